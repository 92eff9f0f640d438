"""A picture as PNG, with everything needed to make it again inside."""

import json
from dataclasses import dataclass
from io import BytesIO

from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngImageFile, PngInfo

from core.errors import InputError
from pipelines.spec import GenerationResult, GenerationSpec
from pipelines.spec_record import spec_from_record, spec_to_record

_KEY = "fewstroke"


def to_png_bytes(result: GenerationResult) -> bytes:
    """Encode a picture; equal pictures of equal specifications give equal bytes.

    Args:
        result: A finished picture.

    Returns:
        A PNG whose text chunk "fewstroke" is a JSON object: the fields of the specification, and
        `model`, `revision` and `backend`. No date and no timing stands in it.
    """
    info = PngInfo()
    info.add_text(_KEY, describe_origin(result))
    stream = BytesIO()
    result.image.save(stream, format="PNG", pnginfo=info)
    return stream.getvalue()


def describe_origin(result: GenerationResult) -> str:
    """Return everything needed to make a picture again, as one JSON object in ASCII.

    Args:
        result: A finished picture.
    """
    record = {
        **spec_to_record(result.spec),
        "model": result.model,
        "revision": result.revision,
        "backend": result.backend,
    }
    return json.dumps(record, sort_keys=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class PngOrigin:
    """How a PNG came to be.

    Attributes:
        spec: What was asked for.
        model: Name of the model that painted it.
        revision: Content hash of that model.
        backend: What computed it; empty in pictures of before it was noted.
    """

    spec: GenerationSpec
    model: str
    revision: str
    backend: str


def read_png_spec(png: bytes) -> PngOrigin:
    """Read back what `to_png_bytes` wrote.

    Args:
        png: A whole PNG file.

    Returns:
        The specification and who painted it.

    Raises:
        InputError: If this is no PNG, or none of ours.
    """
    try:
        with Image.open(BytesIO(png), formats=["PNG"]) as image:
            text = image.text if isinstance(image, PngImageFile) else {}
        record = json.loads(text[_KEY])
        model, revision = record.pop("model"), record.pop("revision")
        backend = record.pop("backend", "")
        spec = spec_from_record(record)
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise InputError("This is not a whole PNG file: give the bytes as they came.") from error
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"This PNG carries no {_KEY!r} text that can be read: it was painted elsewhere, or "
            "saved again by a program that drops such texts."
        ) from error
    return PngOrigin(spec=spec, model=model, revision=revision, backend=backend)
