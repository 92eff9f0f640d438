"""A specification as JSON and back: what stands in PNG files and batch lines."""

import base64
from binascii import Error as BinasciiError
from collections.abc import Mapping
from dataclasses import MISSING, fields
from io import BytesIO
from typing import Any

from PIL import Image, UnidentifiedImageError

from core.errors import InputError
from pipelines.region_defaults import format_depth, parse_depth
from pipelines.region_spec import Region
from pipelines.spec import GenerationSpec


def spec_to_record(spec: GenerationSpec) -> dict[str, Any]:
    """Write a specification as JSON holds it.

    Args:
        spec: The specification.

    Returns:
        Its fields by name; boxes are lists x0, y0, x1, y1, masks are image files in base64. What
        few ask for is left out where it has its default.
    """
    record: dict[str, Any] = {}
    for each in fields(spec):
        value = getattr(spec, each.name)
        if each.name in _RARE and value == each.default:
            continue
        record[each.name] = value
    if "regions" in record:
        record["regions"] = [_region_to_record(region) for region in spec.regions]
    if "depth" in record:
        record["depth"] = format_depth(spec.depth)
    if "region_window" in record:
        record["region_window"] = list(spec.region_window)
    return record


def spec_from_record(record: Mapping[str, Any]) -> GenerationSpec:
    """Read what `spec_to_record` wrote.

    Args:
        record: The fields by name. A TypeError says that there are others, as GenerationSpec
            raises it; no value is checked here.

    Returns:
        An equal specification.
    """
    given = dict(record)
    if "regions" in given:
        given["regions"] = tuple(_region_from_record(each) for each in given["regions"])
    if "depth" in given:
        given["depth"] = parse_depth(given["depth"])
    if "region_window" in given:
        given["region_window"] = tuple(given["region_window"])
    return GenerationSpec(**given)


def decode_mask(text: str, *, param: str, size: tuple[int, int] | None = None) -> Image.Image:
    """Read a mask that came from outside, and refuse it before a pixel is unpacked.

    Args:
        text: A PNG in base64, white where the region is, of any colour mode; what is transparent
            counts as black.
        param: Path of the field that holds it.
        size: Width and height that it must have; None takes any.

    Returns:
        A grey picture.

    Raises:
        InputError: If this is no base64, no whole PNG, or one of another size.
    """
    image = _open(text, ("PNG",), param)
    if size is not None and image.size != size:
        raise InputError(
            f"{param} has {image.size[0]} x {image.size[1]} pixels: the picture has "
            f"{size[0]} x {size[1]}.",
            param=param,
        )
    try:
        if image.mode in {"RGBA", "LA", "PA"} or "transparency" in image.info:
            seen = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", seen.size, "black"), seen)
        grey = image.convert("L")
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"{param} is no whole PNG: {error}.", param=param) from error
    grey.info = {}
    return grey


def _open(text: str, formats: tuple[str, ...], param: str) -> Image.Image:
    try:
        return Image.open(BytesIO(base64.b64decode(text, validate=True)), formats=formats)
    except (BinasciiError, ValueError) as error:
        raise InputError(f"{param} is no base64: send the PNG's bytes so.", param=param) from error
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(
            f"{param} is no PNG image: send a PNG file in base64, white where the region is.",
            param=param,
        ) from error


def _region_to_record(region: Region) -> dict[str, Any]:
    record: dict[str, Any] = {}
    for each in fields(region):
        value = getattr(region, each.name)
        if each.default is MISSING or value != each.default:
            record[each.name] = value
    if region.box is not None:
        record["box"] = list(region.box)
    if region.mask is not None:
        record["mask"] = _encoded(region.mask)
    return record


def _region_from_record(record: Mapping[str, Any]) -> Region:
    given = dict(record)
    if "box" in given:
        given["box"] = tuple(given["box"])
    if "mask" in given:
        mask = _open(given["mask"], ("PNG", "TIFF"), "mask")
        given["mask"] = Image.frombytes(mask.mode, mask.size, mask.tobytes())
    return Region(**given)


def _encoded(mask: Image.Image) -> str:
    stream = BytesIO()
    mask.save(stream, format="TIFF" if mask.mode == "F" else "PNG")
    return base64.b64encode(stream.getvalue()).decode("ascii")


_RARE = (
    "guidance_every",
    "cache_threshold",
    "guidance_rescale",
    "regions",
    "prompt_high",
    "prompt_low",
    "ground",
    "depth",
    "region_window",
    "base_share",
    "plan",
)
