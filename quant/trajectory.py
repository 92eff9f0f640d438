"""What a float transformer does while its own pipeline samples: inputs, outputs, last features.

Calibration and training see exactly the calls that stock diffusers makes, so that anything with a
pipeline can be quantized: no data set is needed, and no second sampling loop is written.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from core.errors import UnsupportedError
from core.seeding import torch_generator

PlainCall = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """How a pipeline is sampled.

    Attributes:
        num_steps: Steps of its scheduler.
        guidance: Guidance scale; 1 is none.
        batch_size: Pictures that are sampled together.
    """

    num_steps: int
    guidance: float
    batch_size: int = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """One call of the transformer, as its pipeline made it.

    Attributes:
        arguments: Keyword arguments of its forward.
        output: What it returned.
        feature: What its output projection heard.
    """

    arguments: PlainCall
    output: Tensor
    feature: Tensor


def sample(
    pipeline: Any,  # noqa: ANN401 - any diffusers pipeline
    prompts: Sequence[str],
    seeds: Sequence[int],
    sampling: Sampling,
    *,
    output_type: str = "latent",
) -> Iterator[Any]:
    """Let a pipeline draw, and yield what it drew for each batch.

    Args:
        pipeline: A diffusers text-to-image pipeline.
        prompts: One per picture.
        seeds: One per picture.
        sampling: Steps, guidance, batch size.
        output_type: "latent", "np" or another of the pipeline's.

    Yields:
        The pipeline's pictures, in its own form.
    """
    known = signature(pipeline.__call__).parameters
    wanted: dict[str, Any] = {
        "num_inference_steps": sampling.num_steps,
        "guidance_scale": sampling.guidance,
        "output_type": output_type,
        "clean_caption": False,
        "use_resolution_binning": False,
        "max_sequence_length": _longest(pipeline, prompts),
    }
    options = {k: v for k, v in wanted.items() if k in known and v is not None}
    pipeline.set_progress_bar_config(disable=True)
    pairs = list(zip(prompts, seeds, strict=True))
    for start in range(0, len(pairs), sampling.batch_size):
        batch = pairs[start : start + sampling.batch_size]
        generators = [torch_generator(seed) for _, seed in batch]
        with torch.no_grad():
            drawn = pipeline(
                prompt=[prompt for prompt, _ in batch], generator=generators, **options
            )
        yield drawn.images


def record_calls(
    transformer: nn.Module, output_layer: str, run: Callable[[], object]
) -> list[Call]:
    """Run something, and keep every call of a transformer that it makes.

    Args:
        transformer: The float network.
        output_layer: Name of its output projection.
        run: What calls it.

    Returns:
        The calls, in order.
    """
    calls: list[Call] = []
    with watched_feature(transformer, output_layer) as feature:

        def keep(
            module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: object
        ) -> None:
            names = list(signature(module.forward).parameters)
            arguments = {**dict(zip(names, args, strict=False)), **kwargs, "return_dict": False}
            calls.append(
                Call(
                    arguments=_detached(arguments),
                    output=first_tensor(output).detach().clone(),
                    feature=feature().detach().clone(),
                )
            )

        handle = transformer.register_forward_hook(keep, with_kwargs=True)
        try:
            run()
        finally:
            handle.remove()
    return calls


@contextmanager
def watched_feature(network: nn.Module, output_layer: str) -> Iterator[Callable[[], Tensor]]:
    """Let the caller read what the output projection heard in the newest forward pass.

    Args:
        network: A transformer.
        output_layer: Name of its output projection.

    Yields:
        A function that returns the newest feature, with its gradient where there is one.
    """
    heard: list[Tensor] = []

    def note(_: nn.Module, args: tuple[Any, ...]) -> None:
        heard[:] = [args[0]]

    handle: RemovableHandle = network.get_submodule(output_layer).register_forward_pre_hook(note)
    try:
        yield lambda: heard[0]
    finally:
        handle.remove()


def guided(
    output: Float[Tensor, "b ..."], guidance: float, *, is_doubled: bool
) -> Float[Tensor, "d ..."]:
    """Return the prediction that moves the sampler.

    Args:
        output: What the transformer returned.
        guidance: Guidance scale.
        is_doubled: Whether the first half of the rows is without words.

    Source: Ho and Salimans, arXiv 2207.12598, equation 6.
    """
    if not is_doubled:
        return output
    without, with_words = output.chunk(2)
    return without + guidance * (with_words - without)


def first_tensor(output: Any) -> Tensor:  # noqa: ANN401
    """Return the prediction in what a transformer returned.

    Args:
        output: A tensor, a tuple, or one of diffusers' output classes.

    Raises:
        UnsupportedError: If there is no tensor in it.
    """
    if isinstance(output, Tensor):
        return output
    value = output[0]
    if not isinstance(value, Tensor):
        raise UnsupportedError(f"A transformer that returns {type(output).__name__} is not known.")
    return value


def _detached(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, Mapping):
        return {key: _detached(part) for key, part in value.items()}
    return value


def _longest(pipeline: Any, prompts: Sequence[str]) -> int | None:  # noqa: ANN401
    # Pipelines pad every prompt to their longest; words that are not there would be calibrated on.
    names = [name for name in pipeline.components if name.startswith("tokenizer")]
    if len(names) != 1:
        return None
    tokenizer = pipeline.components[names[0]]
    longest = max(len(tokenizer(prompt)["input_ids"]) for prompt in (*prompts, ""))
    return min(longest, int(tokenizer.model_max_length))
