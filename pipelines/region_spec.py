"""A region as it is asked for, and what is refused. No torch here: any layer may import it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import cast

from PIL import Image

from core.errors import InputError
from llm_prompting.phrasing import full_phrase
from pipelines.depth import Level

MAX_REGIONS = 16
MAX_TEXT_CHARS = 4000
MASK_MODES = ("1", "L", "F")


def check_regions(
    regions: Sequence["Region"], *, width: int, height: int, param: str = "regions"
) -> None:
    """Refuse regions that cannot be drawn, by the path of the field at fault.

    Args:
        regions: What is asked for.
        width: Picture width in pixels.
        height: Picture height in pixels.
        param: Name of the request field that holds the regions; the root of every path.

    Raises:
        InputError: If there are too many, a shape is missing, off the picture, inverted, empty or
            of another size, a number is out of range, or a text is missing or far too long.
    """
    if len(regions) > MAX_REGIONS:
        raise InputError(f"{param} has {len(regions)} entries: at most {MAX_REGIONS}.", param=param)
    for place, region in enumerate(regions):
        path = f"{param}[{place}]"
        _check_texts(region, path)
        if (region.box is None) == (region.mask is None):
            raise InputError(f"{path} needs either box or mask.", param=path)
        if region.box is not None:
            _check_box(region.box, f"{path}.box")
        if region.mask is not None:
            _check_mask(region.mask, (width, height), f"{path}.mask")
        if not (isfinite(region.weight) and 0 < region.weight <= 10):
            raise InputError(
                f"{path}.weight is {region.weight}: above 0, at most 10.", param=f"{path}.weight"
            )
        if not 0 <= region.feather <= 0.5:
            raise InputError(
                f"{path}.feather is {region.feather}: 0..0.5.", param=f"{path}.feather"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Region:
    """A part of the picture and the words that only it hears.

    Attributes:
        high: What it is ("a cat").
        low: How it looks ("orange, fluffy"); may be empty.
        box: Left, top, right, bottom edge as fractions of the picture; (0, 0) is the top left.
            A region has a box or a mask.
        mask: Grey picture of the picture's size, mode "1", "L" (255 is inside) or "F" (0..1).
        z: Order in depth; the greater is in front. Equal z means side by side.
        weight: How loudly it speaks against others and the base prompt, above 0, at most 10.
        feather: Width of the soft edge: standard deviation of a blur, as a fraction of the shorter
            edge of the picture, 0..0.5.
        negative: What this region keeps away from; empty for none.
    """

    high: str
    low: str = ""
    box: tuple[float, float, float, float] | None = None
    mask: Image.Image | None = field(default=None, hash=False)
    z: int = 0
    weight: float = 1.0
    feather: float = 0.0
    negative: str = ""

    def words(self, level: Level) -> str:
        """Return what a layer hears that listens at a level.

        Args:
            level: "high", "low" or "both". A region without low-level words says at that level
                what it is, for a layer must hear something.
        """
        if level == "both":
            return full_phrase(self.high, self.low)
        return self.high if level == "high" else self.low.strip() or self.high


def joined_negative(whole: str, own: str) -> str:
    """Return what a region keeps away from: what the whole picture does, and more.

    Args:
        whole: The negative prompt; may be empty.
        own: The region's; may be empty.
    """
    return ", ".join(filter(None, (whole.strip(), own.strip())))


def _check_texts(region: Region, path: str) -> None:
    if not region.high.strip():
        raise InputError(f"{path}.high is empty: say what it is.", param=f"{path}.high")
    for name in ("high", "low", "negative"):
        text = getattr(region, name)
        if len(text) > MAX_TEXT_CHARS:
            raise InputError(
                f"{path}.{name} has {len(text)} characters: at most {MAX_TEXT_CHARS}.",
                param=f"{path}.{name}",
            )


def _check_box(box: tuple[float, float, float, float], path: str) -> None:
    edges = dict(zip(("x0", "y0", "x1", "y1"), box, strict=True))
    for name, edge in edges.items():
        if not 0 <= edge <= 1:
            raise InputError(
                f"{path}.{name} is {edge}: a fraction of the picture, 0..1.", param=f"{path}.{name}"
            )
    for low, high in (("x0", "x1"), ("y0", "y1")):
        if edges[low] >= edges[high]:
            raise InputError(
                f"{path}.{high} is {edges[high]}: it must be greater than {low}, {edges[low]}.",
                param=f"{path}.{high}",
            )


def _check_mask(mask: Image.Image, size: tuple[int, int], path: str) -> None:
    if mask.mode not in MASK_MODES:
        raise InputError(
            f"{path} has mode {mask.mode!r}: convert it to one of {', '.join(MASK_MODES)}.",
            param=path,
        )
    if mask.size != size:
        raise InputError(
            f"{path} has {mask.size[0]} x {mask.size[1]} pixels: the picture has "
            f"{size[0]} x {size[1]}.",
            param=path,
        )
    lowest, highest = cast("tuple[float, float]", mask.getextrema())
    # NaN fails every comparison, so the question is put as what must hold. A NaN in the middle
    # escapes the extrema; `regions.token_weights` finds it.
    if not (lowest >= 0 and 0 < highest <= (1 if mask.mode == "F" else 255)):
        raise InputError(
            f"{path} ranges over {lowest}..{highest}: it must be white somewhere, and mode F "
            "must stay in 0..1.",
            param=path,
        )
