"""From a request's body to pictures that are fully determined, and from pictures to the answer."""

import base64
import secrets
import time
from collections.abc import Mapping, Sequence

from app.errors import ModelNotFoundError
from app.generator import Generator
from app.schemas import (
    MAX_SEED,
    ImageData,
    ImageRequest,
    ImageResponse,
    InputTokensDetails,
    ModelCard,
    Usage,
)
from app.settings import Settings
from core.errors import InputError, UnknownNameError
from pipelines.schedulers import SCHEDULERS
from pipelines.spec import GenerationResult, GenerationSpec
from pipelines.store import ModelInfo

DRAWN_SEED_BELOW = 2**32
"""Seeds that we draw stay small enough for every JSON reader to keep them exact."""

PATCH_EDGE = 2
"""Latent cells along the edge of an image token, in every PixArt."""

DEFAULT_SCHEDULER = "dpmpp"

_FIELD_OF_SPEC: Mapping[str, str] = {
    "num_steps": "steps",
    "guidance_scale": "guidance",
    "width": "size",
    "height": "size",
}


def to_specs(
    body: ImageRequest, generator: Generator, settings: Settings
) -> tuple[GenerationSpec, ...]:
    """Turn a request into its pictures: n specs that differ in their seed alone.

    Args:
        body: What was asked for.
        generator: The loaded model, which checks each picture.
        settings: The server's limits.

    Returns:
        One spec per picture, seeds counting up.

    Raises:
        InputError: If a field's value cannot be served; `param` names the field.
    """
    model = generator.info
    _check_model(body, model)
    _check_words(body, settings)
    steps = model.default_steps if body.steps is None else body.steps
    if steps > settings.max_steps:
        raise InputError(
            f"{steps} steps are too many: this server takes 1 to {settings.max_steps}.",
            param="steps",
        )
    guidance = model.default_guidance if body.guidance is None else body.guidance
    if body.negative_prompt and guidance == 1:
        raise InputError("A negative prompt needs guidance above 1.", param="negative_prompt")
    width, height = _size(body.size, model)
    num_images = body.n or 1
    specs = tuple(
        GenerationSpec(
            prompt=body.prompt,
            negative_prompt=body.negative_prompt or "",
            seed=seed,
            num_steps=steps,
            guidance_scale=guidance,
            width=width,
            height=height,
            scheduler=body.scheduler or DEFAULT_SCHEDULER,
        )
        for seed in _seeds(body.seed, num_images)
    )
    _check_with(generator, specs[0])
    return specs


def to_response(
    results: Sequence[GenerationResult],
    pngs: Sequence[bytes],
    generator: Generator,
    timings_s: Mapping[str, float],
) -> ImageResponse:
    """Turn finished pictures into the answer.

    Args:
        results: What the model painted, in the order of the seeds.
        pngs: The same pictures as files.
        generator: The model that painted, which counts tokens.
        timings_s: Seconds that the service itself took, by stage.

    Returns:
        The body of the answer.
    """
    first, model = results[0], generator.info
    spec = first.spec
    text_tokens = sum(map(generator.count_tokens, filter(None, _texts(spec))))
    edge = model.latent_factor * PATCH_EDGE
    image_tokens = len(results) * (spec.width // edge) * (spec.height // edge)
    return ImageResponse(
        created=int(time.time()),
        data=[
            ImageData(
                b64_json=base64.b64encode(png).decode("ascii"),
                revised_prompt=None,
                seed=result.spec.seed,
            )
            for result, png in zip(results, pngs, strict=True)
        ],
        size=f"{spec.width}x{spec.height}",
        usage=Usage(
            input_tokens=text_tokens,
            output_tokens=image_tokens,
            total_tokens=text_tokens + image_tokens,
            input_tokens_details=InputTokensDetails(text_tokens=text_tokens, image_tokens=0),
        ),
        model=first.model,
        revision=first.revision,
        steps=spec.num_steps,
        guidance=spec.guidance_scale,
        scheduler=spec.scheduler,
        timings_s={name: round(s, 4) for name, s in {**first.timings_s, **timings_s}.items()},
        fallbacks=list(dict.fromkeys(note for result in results for note in result.fallbacks)),
    )


def to_card(model: ModelInfo, settings: Settings, loaded_at: int) -> ModelCard:
    """Turn a loaded model into what `/v1/models` shows.

    Args:
        model: The loaded model.
        settings: The server's limits.
        loaded_at: When it was loaded, in Unix seconds.

    Returns:
        The model's card.
    """
    return ModelCard(
        id=model.name,
        created=loaded_at,
        revision=model.revision,
        variant=model.variant,
        variants=list(model.variants),
        steps=model.default_steps,
        guidance=model.default_guidance,
        scheduler=DEFAULT_SCHEDULER,
        schedulers=list(SCHEDULERS.names()),
        sizes=[f"{width}x{height}" for width, height in model.sizes],
        max_steps=settings.max_steps,
        bits=model.bits,
    )


def check_model_name(name: str, model: ModelInfo) -> None:
    """Refuse a model that is not the served one.

    Args:
        name: What the client asked for.
        model: What is served.

    Raises:
        ModelNotFoundError: If these differ.
    """
    if name != model.name:
        raise ModelNotFoundError("model", name, [model.name], param="model")


def _check_model(body: ImageRequest, model: ModelInfo) -> None:
    if body.model is not None:
        check_model_name(body.model, model)
    if body.variant is not None and body.variant != model.variant:
        raise UnknownNameError("variant", body.variant, [model.variant], param="variant")
    if body.scheduler is not None and body.scheduler not in SCHEDULERS:
        raise UnknownNameError("scheduler", body.scheduler, SCHEDULERS.names(), param="scheduler")


def _check_words(body: ImageRequest, settings: Settings) -> None:
    if not body.prompt.strip():
        raise InputError("The prompt is empty: say what to paint.", param="prompt")
    for name, text in (("prompt", body.prompt), ("negative_prompt", body.negative_prompt or "")):
        if len(text) > settings.max_prompt_chars:
            raise InputError(
                f"{len(text)} characters are too many: this server takes up to "
                f"{settings.max_prompt_chars}.",
                param=name,
            )
        if "\0" in text:
            raise InputError("Text must not hold NUL characters.", param=name)


def _size(asked: str | None, model: ModelInfo) -> tuple[int, int]:
    if asked is None or asked == "auto":
        return model.sizes[0]
    served = {f"{width}x{height}": (width, height) for width, height in model.sizes}
    if asked not in served:
        raise InputError(
            f"Size {asked[:40]!r} is not served. Ask for auto, {', '.join(served)}.", param="size"
        )
    return served[asked]


def _seeds(first: int | None, num_images: int) -> range:
    start = secrets.randbelow(DRAWN_SEED_BELOW) if first is None else first
    if start + num_images - 1 > MAX_SEED:
        raise InputError(
            f"Seed {start} leaves no room for {num_images} pictures: seeds end at {MAX_SEED}.",
            param="seed",
        )
    return range(start, start + num_images)


def _check_with(generator: Generator, spec: GenerationSpec) -> None:
    try:
        generator.check(spec)
    except InputError as error:
        # the model speaks of its spec, the caller of the body
        error.param = _FIELD_OF_SPEC.get(error.param or "", error.param)
        raise


def _texts(spec: GenerationSpec) -> tuple[str, str]:
    return spec.prompt, spec.negative_prompt
