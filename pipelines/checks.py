"""Is this picture one that this model can paint as asked? Cheap enough to ask before queueing."""

from collections.abc import Callable
from math import isfinite

from core.errors import InputError
from core.seeding import MAX_SEED
from pipelines.spec import GenerationSpec
from pipelines.store import ModelInfo

MAX_STEPS = 1000
MAX_GUIDANCE = 30.0


def check_spec(
    spec: GenerationSpec,
    model: ModelInfo,
    check_steps: Callable[[str, int], None],
    count_tokens: Callable[[str], int],
) -> None:
    """Refuse a picture that the model would paint otherwise than asked.

    Args:
        spec: What is asked for.
        model: Who is to paint it.
        check_steps: Refuses a scheduler and a number of steps that this model cannot follow.
        count_tokens: The model's tokenizer.

    Raises:
        InputError: If a field is out of its range or names no scheduler; `param` says which field.
    """
    _check_words(spec, model, count_tokens)
    _check_numbers(spec)
    check_steps(spec.scheduler, spec.num_steps)
    if (spec.width, spec.height) not in model.sizes:
        served = ", ".join(f"{width}x{height}" for width, height in model.sizes)
        raise InputError(
            f"{model.name} does not paint {spec.width}x{spec.height}: ask for {served}.",
            param="size",
        )


def _check_words(
    spec: GenerationSpec, model: ModelInfo, count_tokens: Callable[[str], int]
) -> None:
    if not spec.prompt.strip():
        raise InputError("The prompt is empty: say in words what to paint.", param="prompt")
    if spec.negative_prompt.strip() and spec.guidance_scale == 1.0:
        raise InputError(
            "A negative prompt has no effect at guidance_scale 1: raise guidance_scale, or leave "
            "the negative prompt out.",
            param="negative_prompt",
        )
    for param, text in (("prompt", spec.prompt), ("negative_prompt", spec.negative_prompt)):
        if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
            raise InputError(
                f"The {param.replace('_', ' ')} holds half of a surrogate pair, which is no "
                "character: send valid UTF-8.",
                param=param,
            )
    for param, text in (("prompt", spec.prompt), ("negative_prompt", spec.negative_prompt)):
        num_tokens = count_tokens(text)
        if num_tokens > model.max_tokens:
            raise InputError(
                f"The {param.replace('_', ' ')} has {num_tokens} tokens, and {model.name} reads "
                f"{model.max_tokens}: shorten it.",
                param=param,
            )


def _check_numbers(spec: GenerationSpec) -> None:
    if not 1 <= spec.num_steps <= MAX_STEPS:
        raise InputError(
            f"{spec.num_steps} steps: ask for 1 to {MAX_STEPS}.",
            param="num_steps",
        )
    if not isfinite(spec.guidance_scale) or not 1.0 <= spec.guidance_scale <= MAX_GUIDANCE:
        raise InputError(
            f"guidance_scale {spec.guidance_scale}: give a number from 1 (off) to "
            f"{MAX_GUIDANCE:g}.",
            param="guidance_scale",
        )
    if not 0 <= spec.seed <= MAX_SEED:
        raise InputError(f"Seed {spec.seed}: give 0 to {MAX_SEED}.", param="seed")
