import json
from io import BytesIO

import pytest
from PIL import ExifTags, Image

from app.schemas.formats import (
    EXIF_LIMIT_BYTES,
    UNDESCRIBED,
    FileFormat,
    choose_format,
    notes_on,
    to_file,
    to_preview,
)
from core.errors import InputError
from pipelines.png import read_png_spec
from pipelines.spec import GenerationResult, GenerationSpec


def _result(prompt: str = "a red apple") -> GenerationResult:
    image = Image.linear_gradient("L").resize((128, 128)).convert("RGB")
    spec = GenerationSpec(prompt=prompt, seed=7)
    return GenerationResult(image=image, spec=spec, model="tiny", revision="0123456789ab")


@pytest.mark.parametrize("kind", ["png", "webp", "jpeg"])
def test_every_format_holds_the_picture_and_its_origin(kind: str) -> None:
    result = _result()
    content = to_file(result, FileFormat(kind=kind))
    with Image.open(BytesIO(content)) as image:
        assert (image.format, image.size) == (kind.upper(), (128, 128))
        text = image.getexif().get(ExifTags.Base.ImageDescription)
    if kind == "png":
        assert read_png_spec(content).spec == result.spec
    else:
        assert json.loads(text)["seed"] == 7
        assert json.loads(text)["revision"] == result.revision


@pytest.mark.parametrize("kind", ["webp", "jpeg"])
def test_lower_compression_figures_give_smaller_files(kind: str) -> None:
    sizes = [len(to_file(_result(), FileFormat(kind=kind, compression=c))) for c in (0, 50, 100)]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[2]


@pytest.mark.parametrize("kind", ["png", "webp", "jpeg"])
def test_equal_pictures_give_equal_bytes(kind: str) -> None:
    wanted = FileFormat(kind=kind)
    assert to_file(_result(), wanted) == to_file(_result(), wanted)


def test_a_record_that_does_not_fit_is_left_out_and_named() -> None:
    result = _result("x" * EXIF_LIMIT_BYTES)
    wanted = FileFormat(kind="jpeg")
    assert notes_on(result, wanted) == [UNDESCRIBED]
    with Image.open(BytesIO(to_file(result, wanted))) as image:
        assert not image.getexif()
    assert notes_on(_result(), wanted) == []
    assert notes_on(result, FileFormat(kind="png")) == []


@pytest.mark.parametrize("kind", ["png", "webp", "jpeg"])
def test_a_preview_carries_no_record(kind: str) -> None:
    with Image.open(BytesIO(to_preview(_result().image, FileFormat(kind=kind)))) as image:
        assert image.format == kind.upper()
        assert "fewstroke" not in image.info
        assert not image.getexif()


@pytest.mark.parametrize("kind", [None, "png"])
def test_a_lossless_format_takes_no_compression(kind: str | None) -> None:
    with pytest.raises(InputError, match="lossless") as caught:
        choose_format(kind, 50)
    assert caught.value.param == "output_compression"


def test_formats_are_chosen_as_asked() -> None:
    assert choose_format(None, None) == FileFormat(kind="png", compression=100)
    assert choose_format("webp", 0) == FileFormat(kind="webp", compression=0)
