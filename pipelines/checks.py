"""Is this picture one that this model can paint as asked? Cheap enough to ask before queueing."""

from collections.abc import Callable
from math import isfinite

from core.errors import InputError
from core.seeding import MAX_SEED
from pipelines.depth import layer_rules
from pipelines.model_info import ModelInfo
from pipelines.region_spec import Region, check_regions, joined_negative
from pipelines.spec import GenerationSpec

MAX_STEPS = 1000
MAX_GUIDANCE = 30.0


def check_spec(
    spec: GenerationSpec,
    model: ModelInfo,
    check_steps: Callable[[str, int], None],
    count_tokens: Callable[[str], int],
) -> None:
    """Refuse a picture that the model would paint otherwise than asked.

    A field that is out of its range, or names nothing, is raised as an InputError; its `param` is
    the path of that field.

    Args:
        spec: What is asked for.
        model: Who is to paint it.
        check_steps: Refuses a scheduler and a number of steps that this model cannot follow.
        count_tokens: The model's tokenizer.
    """
    _check_words(spec, model, count_tokens)
    check_numbers(spec)
    check_steps(spec.scheduler, spec.num_steps)
    _check_size(spec, model)
    _check_cache(spec, model)
    _check_regional(spec, model, count_tokens)


def _check_size(spec: GenerationSpec, model: ModelInfo) -> None:
    if (spec.width, spec.height) not in model.sizes:
        served = ", ".join(f"{width}x{height}" for width, height in model.sizes)
        raise InputError(
            f"{model.name} does not paint {spec.width}x{spec.height}: ask for {served}.",
            param="size",
        )


def _check_cache(spec: GenerationSpec, model: ModelInfo) -> None:
    if spec.cache_threshold and model.num_layers == 1:
        raise InputError(
            f"cache_threshold has no effect on {model.name}, which has one block: leave it out.",
            param="cache_threshold",
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
        _check_text(text, param, model, count_tokens)


def _check_text(
    text: str, param: str, model: ModelInfo, count_tokens: Callable[[str], int]
) -> None:
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        raise InputError(
            f"The {param.replace('_', ' ')} holds half of a surrogate pair, which is no "
            "character: send valid UTF-8.",
            param=param,
        )
    num_tokens = count_tokens(text)
    if num_tokens > model.max_tokens:
        raise InputError(
            f"The {param.replace('_', ' ')} has {num_tokens} tokens, and {model.name} reads "
            f"{model.max_tokens}: shorten it.",
            param=param,
        )


def _check_regional(
    spec: GenerationSpec, model: ModelInfo, count_tokens: Callable[[str], int]
) -> None:
    check_regions(spec.regions, width=spec.width, height=spec.height)
    layer_rules(spec.depth, model.num_layers)
    start, end = spec.region_window
    if not 0 <= start <= end <= 1:
        raise InputError(
            f"region_window is {start}, {end}: start and end as shares of the steps, "
            "0 <= start <= end <= 1.",
            param="region_window",
        )
    if not 0 <= spec.base_share <= 1:
        raise InputError(f"base_share is {spec.base_share}: 0..1.", param="base_share")
    for name in ("prompt_high", "prompt_low", "ground"):
        _check_text(getattr(spec, name), name, model, count_tokens)
    for place, region in enumerate(spec.regions):
        path = f"regions[{place}]"
        if region.negative.strip() and spec.guidance_scale == 1.0:
            raise InputError(
                f"{path}.negative has no effect at guidance_scale 1: raise guidance_scale, or "
                "leave it out.",
                param=f"{path}.negative",
            )
        for name, text in _texts_of(region, spec.negative_prompt):
            _check_text(text, f"{path}.{name}", model, count_tokens)


def _texts_of(region: Region, negative_prompt: str) -> list[tuple[str, str]]:
    return [
        ("high", region.high),
        ("low", region.words("both")),
        ("negative", joined_negative(negative_prompt, region.negative)),
    ]


def check_numbers(spec: GenerationSpec) -> None:
    """Refuse steps, guidance and seeds that no model takes; needs no weights.

    Args:
        spec: What is asked for.

    Raises:
        InputError: If a number is out of its range, or has no effect.
    """
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
    if not 1 <= spec.guidance_every <= MAX_STEPS:
        raise InputError(
            f"guidance_every {spec.guidance_every}: give a number of steps from 1 to {MAX_STEPS}.",
            param="guidance_every",
        )
    if spec.guidance_every > 1 and spec.guidance_scale == 1.0:
        raise InputError(
            "guidance_every has no effect at guidance_scale 1: raise guidance_scale, or leave it "
            "out.",
            param="guidance_every",
        )
    if not 0 <= spec.cache_threshold <= 1:
        raise InputError(
            f"cache_threshold {spec.cache_threshold}: give a relative change from 0 (off) to 1.",
            param="cache_threshold",
        )
    if not 0 <= spec.guidance_rescale <= 1:
        raise InputError(
            f"guidance_rescale {spec.guidance_rescale}: give a share from 0 (off) to 1.",
            param="guidance_rescale",
        )
    if spec.guidance_rescale and spec.guidance_scale == 1.0:
        raise InputError(
            "guidance_rescale has no effect at guidance_scale 1: raise guidance_scale, or leave it "
            "out.",
            param="guidance_rescale",
        )
    if not 0 <= spec.seed <= MAX_SEED:
        raise InputError(f"Seed {spec.seed}: give 0 to {MAX_SEED}.", param="seed")
