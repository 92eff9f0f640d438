from io import BytesIO
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from core.errors import InputError
from pipelines.png import read_png_spec, to_png_bytes
from pipelines.spec import GenerationResult, GenerationSpec

# Built in the test: the shape checker looks at an element drawn at random, and strategies must not.
FIELDS = st.fixed_dictionaries(
    {
        "prompt": st.text(min_size=1),
        "negative_prompt": st.text(),
        "seed": st.integers(0, 2**63 - 1),
        "num_steps": st.integers(1, 1000),
        "guidance_scale": st.floats(1, 30),
        "scheduler": st.sampled_from(["ddim", "dpmpp"]),
        "base_share": st.floats(0, 1),
        "plan": st.text(),
    }
)


def result(spec: GenerationSpec, **changes: object) -> GenerationResult:
    image = Image.new("RGB", (8, 8), (200, 30, 60))
    return GenerationResult(image=image, spec=spec, model="m", revision="r", **changes)


@given(fields=FIELDS)
def test_what_was_asked_for_is_read_back(fields: dict[str, Any]) -> None:
    spec = GenerationSpec(**fields)
    origin = read_png_spec(to_png_bytes(result(spec)))
    assert (origin.spec, origin.model, origin.revision) == (spec, "m", "r")
    assert origin.backend == "torch"


def test_a_picture_names_what_computed_it_and_older_ones_need_not() -> None:
    spec = GenerationSpec(prompt="a cat")
    assert read_png_spec(to_png_bytes(result(spec, backend="openvino"))).backend == "openvino"
    old = _png('{"model": "m", "revision": "r", "prompt": "x"}')
    assert read_png_spec(old).backend == ""


def test_pixels_survive_and_timings_leave_no_trace() -> None:
    spec = GenerationSpec(prompt="a cat")
    png = to_png_bytes(result(spec, timings_s={"denoise": 1.5}))
    assert png == to_png_bytes(result(spec, timings_s={"denoise": 2.5}))
    assert Image.open(BytesIO(png)).getpixel((3, 3)) == (200, 30, 60)


def _png(text: str | None) -> bytes:
    info, stream = PngInfo(), BytesIO()
    if text is not None:
        info.add_text("fewstroke", text)
    Image.new("RGB", (8, 8)).save(stream, format="PNG", pnginfo=info)
    return stream.getvalue()


@pytest.mark.parametrize(
    "png",
    [b"", b"GIF89a", _png(None), _png("{"), _png("[]"), _png("{}"), _png('{"model": 1}'),
     _png('{"model": "m", "revision": "r", "prompt": "x", "unknown": 1}'), _png("")[:40]],
)  # fmt: skip
def test_a_file_that_is_not_ours_is_refused(png: bytes) -> None:
    with pytest.raises(InputError, match="PNG"):
        read_png_spec(png)
