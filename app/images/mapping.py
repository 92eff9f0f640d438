"""From a request's body to pictures that are fully determined."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace

from app.errors import ModelNotFoundError
from app.images.quality import Effort, choose_effort, levels
from app.schemas.formats import FileFormat, choose_format
from app.schemas.images import MAX_SEED, ImageRequest, ModelCard, QualityCard, VariantCard
from app.schemas.regions import FIELD_OF_SPEC, texts_of, with_regions
from app.settings import Settings
from core.errors import InputError, UnknownNameError
from pipelines.from_plan import check_planned
from pipelines.model_info import ModelInfo
from pipelines.noise_schedule import SCHEDULERS
from pipelines.painter import Painter
from pipelines.spec import GenerationSpec

DRAWN_SEED_BELOW = 2**32
"""Seeds that we draw stay small enough for every JSON reader to keep them exact."""

PATCH_EDGE = 2
"""Latent cells along the edge of an image token, in every PixArt."""

_FIELD_OF_SPEC: Mapping[str, str] = {
    "num_steps": "steps",
    "guidance_scale": "guidance",
    "width": "size",
    "height": "size",
    **FIELD_OF_SPEC,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Assignment:
    """A request in the words of the engine and of the files that it becomes.

    Attributes:
        specs: One per picture, seeds counting up.
        painter: Who is asked to paint them.
        effort: Its variant, and the level of quality.
        file_format: How the pictures are written.
        text_tokens: Tokens of the prompts, once.
        image_tokens: Tokens of one picture.
    """

    specs: tuple[GenerationSpec, ...]
    painter: Painter
    effort: Effort
    file_format: FileFormat
    text_tokens: int
    image_tokens: int

    @property
    def cost_units(self) -> float:
        """What a quota is charged: image tokens times steps of all pictures."""
        return float(sum(self.image_tokens * spec.num_steps for spec in self.specs))


def to_assignment(
    body: ImageRequest, painters: Mapping[str, Painter], settings: Settings
) -> Assignment:
    """Turn a request into its pictures: n specs that differ in their seed alone.

    Args:
        body: What was asked for.
        painters: The served variants, the default first.
        settings: The server's limits.

    Returns:
        What to paint, by whom, and how to write it.

    Raises:
        InputError: If a field's value cannot be served; `param` names the field.
    """
    variants = {name: painter.info for name, painter in painters.items()}
    _check_model(body, variants)
    _check_words(body, settings)
    _check_stream(body)
    effort = choose_effort(body, variants, settings.max_steps)
    file_format = choose_format(body.output_format, body.output_compression)
    painter = painters[effort.variant]
    model = painter.info
    guidance = model.default_guidance if body.guidance is None else body.guidance
    if body.negative_prompt and guidance == 1:
        raise InputError("A negative prompt needs guidance above 1.", param="negative_prompt")
    width, height = _size(body.size, model)
    seeds = _seeds(body.seed, body.n or 1)
    first = model.own_spec(
        body.prompt,
        negative_prompt=body.negative_prompt,
        seed=seeds[0],
        num_steps=effort.steps,
        guidance_scale=guidance,
        guidance_every=body.guidance_every,
        cache_threshold=body.cache_threshold,
        guidance_rescale=body.guidance_rescale,
        width=width,
        height=height,
        scheduler=body.scheduler,
    )
    first = with_regions(first, body, model.region_defaults)
    specs = tuple(replace(first, seed=seed) for seed in seeds)
    _check_with(painter, specs[0])
    edge = model.latent_factor * PATCH_EDGE
    texts = texts_of(first)
    return Assignment(
        specs=specs,
        painter=painter,
        effort=effort,
        file_format=file_format,
        text_tokens=sum(map(painter.count_tokens, texts)),
        image_tokens=(width // edge) * (height // edge),
    )


def to_card(painters: Mapping[str, Painter], settings: Settings, loaded_at: int) -> ModelCard:
    """Turn what is served into what `/v1/models` shows.

    Args:
        painters: The served variants, the default first.
        settings: The server's limits.
        loaded_at: When the default was loaded, in Unix seconds.

    Returns:
        The model's card.
    """
    variants = {name: painter.info for name, painter in painters.items()}
    model = next(iter(variants.values()))
    return ModelCard(
        id=model.name,
        created=loaded_at,
        revision=model.revision,
        variant=model.variant,
        variants=list(model.variants),
        served={
            name: VariantCard(
                revision=info.revision,
                steps=info.default_steps,
                guidance=info.default_guidance,
                guidance_rescale=info.default_guidance_rescale,
                bits=info.bits,
                backend=painters[name].execution.backend,
                tolerance=painters[name].execution.tolerance,
                fallbacks=dict(painters[name].execution.fallbacks),
                origin=dict(info.origin),
            )
            for name, info in variants.items()
        },
        qualities={
            level: QualityCard(variant=effort.variant, steps=effort.steps)
            for level, effort in levels(variants, settings.max_steps).items()
        },
        steps=model.default_steps,
        guidance=model.default_guidance,
        guidance_rescale=model.default_guidance_rescale,
        scheduler=model.default_scheduler,
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


def _check_model(body: ImageRequest, variants: Mapping[str, ModelInfo]) -> None:
    if body.model is not None:
        check_model_name(body.model, next(iter(variants.values())))
    if body.variant is not None and body.variant not in variants:
        shipped = next(iter(variants.values())).variants
        if body.variant in shipped:
            raise InputError(
                f"Variant {body.variant!r} is in the checkpoint and not served here, which serves "
                f"{', '.join(variants)}. Whoever runs the server may set "
                "FEWSTROKE_SERVE_VARIANTS=all.",
                param="variant",
            )
        raise UnknownNameError("variant", body.variant, variants, param="variant")
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
    if len(body.regions or ()) > settings.max_regions:
        raise InputError(
            f"{len(body.regions or ())} regions are too many: this server takes up to "
            f"{settings.max_regions}.",
            param="regions",
        )


def _check_stream(body: ImageRequest) -> None:
    if body.partial_images and not body.stream:
        raise InputError(
            "Partial pictures arrive in a stream: set `stream` to true.", param="partial_images"
        )
    if body.stream and body.response_format == "url":
        raise InputError(
            "Events of a stream carry base64: leave response_format out, or do not stream.",
            param="response_format",
        )


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


def _check_with(painter: Painter, spec: GenerationSpec) -> None:
    try:
        check_planned(painter.check, spec)
    except InputError as error:
        # the model speaks of its spec, the caller of the body
        error.param = _FIELD_OF_SPEC.get(error.param or "", error.param)
        raise
