"""What a level of `quality` means: which variant paints, in how many steps.

    medium, standard, auto   the default variant and its own steps
    low                      the served variant with the fewest own steps; if that is the default
                             one, half of its steps
    high, hd                 the served variant with the most own steps; if that is the default
                             one, one and a half times its steps
    xhigh, max               the variant of high, in twice and four times its own steps

A student paints in the steps that it was taught for, at every level: others it never learned. No
level goes above the server's limit of steps.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from app.schemas.images import ImageRequest, Quality
from core.errors import InputError
from pipelines.model_info import ModelInfo

Level = Literal["low", "medium", "high", "xhigh", "max"]

_LEGACY: Mapping[str, Level] = {"standard": "medium", "hd": "high"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Effort:
    """How a request is painted.

    Attributes:
        quality: The level, or "auto" where the request says variant or steps itself.
        variant: The variant that paints.
        steps: Denoising steps.
    """

    quality: Quality
    variant: str
    steps: int


def levels(variants: Mapping[str, ModelInfo], max_steps: int) -> dict[Level, Effort]:
    """Return what each level means for what is served.

    Args:
        variants: The served variants, the default first.
        max_steps: The server's limit.

    Returns:
        An effort for every level, the lowest first.
    """
    default = next(iter(variants))
    own = {name: info.default_steps for name, info in variants.items()}
    fast = min(own, key=lambda name: (own[name], variants[name].bits))
    good = max(own, key=lambda name: own[name])

    def times(name: str, share: float) -> int:
        return own[name] if variants[name].is_student else int(own[name] * share)

    steps: dict[Level, tuple[str, int]] = {
        "low": (fast, times(fast, 1 if fast != default else 0.5)),
        "medium": (default, own[default]),
        "high": (good, times(good, 1 if good != default else 1.5)),
        "xhigh": (good, times(good, 2)),
        "max": (good, times(good, 4)),
    }
    return {
        level: Effort(quality=level, variant=name, steps=max(1, min(count, max_steps)))
        for level, (name, count) in steps.items()
    }


def choose_effort(body: ImageRequest, variants: Mapping[str, ModelInfo], max_steps: int) -> Effort:
    """Turn `quality`, `variant` and `steps` into who paints and in how many steps.

    Args:
        body: What was asked for; its `variant` is one of `variants`, if it names one.
        variants: The served variants, the default first.
        max_steps: The server's limit.

    Returns:
        The effort.

    Raises:
        InputError: If these fields contradict each other, or the steps are too many.
    """
    if body.steps is not None and body.steps > max_steps:
        raise InputError(
            f"{body.steps} steps are too many: this server takes 1 to {max_steps}.", param="steps"
        )
    if body.quality in {None, "auto"}:
        return _own_effort(body, variants, max_steps)
    for name in ("steps", "variant"):
        if getattr(body, name) is not None:
            raise InputError(
                f"`quality` chooses {name} already: give `quality` or `{name}`, not both.",
                param=name,
            )
    asked = str(body.quality)
    table = levels(variants, max_steps)
    return next(effort for level, effort in table.items() if level == _LEGACY.get(asked, asked))


def _own_effort(body: ImageRequest, variants: Mapping[str, ModelInfo], max_steps: int) -> Effort:
    is_told = body.steps is not None or body.variant is not None
    variant = body.variant or next(iter(variants))
    own = min(variants[variant].default_steps, max_steps)
    return Effort(quality="auto" if is_told else "medium", variant=variant, steps=body.steps or own)
