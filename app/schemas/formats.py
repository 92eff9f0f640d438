"""A finished picture as a file: PNG, WebP or JPEG, with how it was made written inside."""

from dataclasses import dataclass
from io import BytesIO
from typing import Literal

from PIL import ExifTags, Image

from core.errors import InputError
from pipelines.png import describe_origin, to_png_bytes
from pipelines.spec import GenerationResult

ImageFormat = Literal["png", "webp", "jpeg"]

DEFAULT_COMPRESSION = 100

EXIF_LIMIT_BYTES = 60_000
"""A JPEG segment holds 65,533 bytes, EXIF's own frame included."""

UNDESCRIBED = "origin_not_embedded"


@dataclass(frozen=True, kw_only=True, slots=True)
class FileFormat:
    """How pictures are written.

    Attributes:
        kind: The file format.
        compression: Quality of WebP and JPEG in percent, 100 the best; PNG is lossless.
    """

    kind: ImageFormat = "png"
    compression: int = DEFAULT_COMPRESSION


def to_file(result: GenerationResult, wanted: FileFormat) -> bytes:
    """Write a finished picture, with its specification, seed and model inside.

    PNG carries the record as its text chunk, WebP and JPEG as EXIF's ImageDescription.

    Args:
        result: The picture.
        wanted: How to write it.

    Returns:
        The file. Equal results give equal bytes.
    """
    if wanted.kind == "png":
        return to_png_bytes(result)
    record = describe_origin(result)
    return _compressed(result.image, wanted, None if is_too_long(record) else record)


def to_preview(image: Image.Image, wanted: FileFormat) -> bytes:
    """Write an unfinished picture: without a record, since nothing makes it again.

    Args:
        image: The picture so far, RGB.
        wanted: How to write it.
    """
    if wanted.kind != "png":
        return _compressed(image, wanted, None)
    stream = BytesIO()
    image.save(stream, format="PNG", compress_level=1)
    return stream.getvalue()


def notes_on(result: GenerationResult, wanted: FileFormat) -> list[str]:
    """Name what could not be written as documented.

    Args:
        result: The picture.
        wanted: How it is written.

    Returns:
        `UNDESCRIBED` if its record is too long for the format; as a rule nothing.
    """
    too_long = wanted.kind != "png" and is_too_long(describe_origin(result))
    return [UNDESCRIBED] if too_long else []


def is_too_long(record: str) -> bool:
    """Return whether a record does not fit into EXIF.

    Args:
        record: How a picture was made.
    """
    return len(record.encode()) > EXIF_LIMIT_BYTES


def choose_format(kind: ImageFormat | None, compression: int | None) -> FileFormat:
    """Turn the fields of a request into a format.

    Args:
        kind: `output_format`; None for PNG.
        compression: `output_compression` in percent; None for the best.

    Returns:
        The format.

    Raises:
        InputError: If PNG, which is lossless, is to be compressed.
    """
    if compression is not None and kind in {None, "png"}:
        raise InputError(
            "PNG is lossless: ask for output_format webp or jpeg, or leave output_compression out.",
            param="output_compression",
        )
    return FileFormat(
        kind=kind or "png", compression=DEFAULT_COMPRESSION if compression is None else compression
    )


def _compressed(image: Image.Image, wanted: FileFormat, record: str | None) -> bytes:
    exif = Image.Exif()
    if record is not None:
        exif[ExifTags.Base.ImageDescription] = record
    stream = BytesIO()
    options: dict[str, object] = {"quality": wanted.compression}
    if wanted.kind == "jpeg":
        # chroma at full resolution where the best is asked for; Pillow halves it otherwise
        options["subsampling"] = 0 if wanted.compression == DEFAULT_COMPRESSION else 2
    if record is not None:
        options["exif"] = exif
    image.save(stream, format=wanted.kind.upper(), **options)
    return stream.getvalue()
