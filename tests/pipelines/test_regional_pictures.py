"""Promises of regions in whole pictures."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from core.errors import InputError
from pipelines.depth import PRESETS, LayerRule
from pipelines.png import read_png_spec, to_png_bytes
from pipelines.region_spec import Region
from pipelines.spec import GenerationResult, GenerationSpec
from pipelines.text_to_image import TextToImage

LEFT, RIGHT = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)
SPEC = GenerationSpec(prompt="a cat and a dog", seed=3, num_steps=4, guidance_scale=4.0)
CAT = Region(high="a cat", low="red", box=LEFT)
DOG = Region(high="a dog", low="blue, watercolor", box=RIGHT)
FRONT = replace(CAT, box=(0.2, 0.2, 0.8, 0.8), z=1)
TWO = replace(SPEC, regions=(CAT, DOG))


def pixels(result: GenerationResult) -> np.ndarray:
    return np.asarray(result.image).astype(int)


def paint(model: TextToImage, *specs: GenerationSpec) -> list[bytes]:
    return [result.image.tobytes() for result in model.generate(specs)]


def disc(size: tuple[int, int] = (128, 128)) -> Image.Image:
    grid = np.mgrid[: size[1], : size[0]] / 64 - 1
    return Image.fromarray(((grid**2).sum(0) < 0.5).astype(np.uint8) * 255)


@pytest.mark.parametrize("sigma", [False, True], ids=["alpha", "sigma"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_one_full_region_paints_its_own_words(
    make_folder: Callable[..., Path], dtype: str, *, sigma: bool
) -> None:
    model = TextToImage.load(make_folder(sigma=sigma), device="cpu", dtype=dtype)
    full = Region(high="a red cat", box=(0.0, 0.0, 1.0, 1.0))
    ours, plain, other = model.generate(
        [replace(SPEC, regions=(full,)), replace(SPEC, prompt="a red cat"), SPEC]
    )
    assert abs(pixels(ours) - pixels(plain)).mean() <= (0.02 if dtype == "float32" else 3)
    assert (pixels(other) != pixels(plain)).mean() > 0.05


def test_regions_change_pictures_and_every_knob_matters(model: TextToImage) -> None:
    settings: list[dict[str, Any]] = [
        {},
        {"regions": (DOG,)},
        {"regions": (replace(CAT, box=RIGHT), replace(DOG, box=LEFT))},
        {"regions": (replace(CAT, low="green"), DOG)},
        {"regions": (replace(CAT, negative="a apple"), DOG)},
        {"regions": (replace(CAT, feather=0.2), DOG)},
        {"regions": (replace(CAT, box=None, mask=disc()),)},
        {"depth": "progressive"},
        {"depth": "reversed"},
        {"depth": "release"},
        {"depth": (LayerRule(level="low"), LayerRule(scope="global"))},
        {"region_window": (0.0, 0.5)},
        {"base_share": 0.5},
    ]
    painted = [SPEC, *(replace(TWO, **changes) for changes in settings)]
    assert len(set(paint(model, *painted))) == len(painted)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_closed_window_is_bit_identical_to_plain(model: TextToImage, preset: str) -> None:
    closed = replace(TWO, depth=preset, region_window=(0.0, 0.0))
    assert paint(model, closed) == paint(model, SPEC)


def test_a_full_base_share_hears_the_prompt_alone(model: TextToImage) -> None:
    ours, plain = model.generate([replace(TWO, base_share=1.0), SPEC])
    assert abs(pixels(ours) - pixels(plain)).max() <= 1


def test_same_picture_in_any_company(model: TextToImage) -> None:
    company = [TWO, SPEC, replace(TWO, regions=(DOG,), seed=9), replace(TWO, guidance_scale=1.0)]
    together = paint(model, *company)
    assert together == [paint(model, spec)[0] for spec in company]


def test_pictures_of_different_regions_share_a_forward(folder: Path, model: TextToImage) -> None:
    wide = TextToImage.load(folder, device="cpu", num_rows=4)
    company = [
        TWO,
        SPEC,
        replace(TWO, regions=(replace(DOG, feather=0.1), CAT, FRONT)),
        replace(TWO, regions=(replace(CAT, negative="a dog"), DOG), seed=5),
    ]
    for alone, batched in zip(model.generate(company), wide.generate(company), strict=True):
        assert abs(pixels(alone) - pixels(batched)).max() <= 1


def test_pictures_at_different_steps_and_guidance_share_a_forward(model: TextToImage) -> None:
    specs = [TWO, SPEC, replace(TWO, guidance_scale=1.0, region_window=(0.0, 0.5))]
    latents = torch.randn(3, 8, 16, 16, generator=torch.Generator().manual_seed(1))
    timesteps, progress = torch.tensor([900, 500, 100]), [0.1, 0.4, 0.7]
    with torch.inference_mode():
        heard = [model.prepare(spec) for spec in specs]
        together = model.predict(latents, timesteps, heard, progress)
        for place in range(3):
            here = slice(place, place + 1)
            alone = model.predict(latents[here], timesteps[here], heard[here], progress[here])
            torch.testing.assert_close(together[here], alone, atol=1e-5, rtol=1e-4)


def test_the_ground_is_heard_behind_all_regions(model: TextToImage) -> None:
    behind = Region(high="at night", low="watercolor", box=(0.0, 0.0, 1.0, 1.0), z=-5)
    front = replace(TWO, regions=(FRONT,), prompt_low="watercolor")
    for depth in PRESETS:
        grounded = replace(front, depth=depth, ground="at night")
        explicit = replace(front, depth=depth, regions=(behind, FRONT))
        ours, same, without = paint(model, grounded, explicit, replace(front, depth=depth))
        assert ours == same
        assert ours != without


def test_n_pictures_of_a_request_share_their_keys(model: TextToImage) -> None:
    assert model.prepare(TWO) is model.prepare(replace(TWO, seed=99))
    held = model.prepare(TWO)
    assert model.prepare(replace(TWO, base_share=0.1)) is not held


def test_the_file_says_how_to_paint_it_again(model: TextToImage) -> None:
    asked = replace(
        TWO,
        regions=(CAT, replace(DOG, box=None, mask=disc(), z=2, weight=2.0, negative="cat")),
        depth=(LayerRule(level="low"), LayerRule(scope="both")),
        region_window=(0.0, 0.5),
        base_share=0.25,
        prompt_high="a cat",
        ground="at night",
        plan='{"prompt": "a cat"}',
    )
    result = model.generate([asked])[0]
    again = read_png_spec(to_png_bytes(result)).spec
    assert again == asked
    assert paint(model, again)[0] == result.image.tobytes()


BAD: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("regions[1].box.x1", {"regions": (CAT, replace(DOG, box=(0.5, 0.0, 0.2, 1.0)))}, "greater"),
    ("regions[0].box.y0", {"regions": (replace(CAT, box=(0.0, float("nan"), 1.0, 1.0)),)}, "0..1"),
    ("regions[0].box.x1", {"regions": (replace(CAT, box=(0.3, 0.0, 0.3, 1.0)),)}, "greater"),
    ("regions[0].box.x1", {"regions": (replace(CAT, box=(0.0, 0.0, 1.2, 1.0)),)}, "0..1"),
    ("regions", {"regions": (CAT,) * 1000}, "at most 16"),
    ("regions[0].high", {"regions": (replace(CAT, high="cat " * 250_000),)}, "at most 4000"),
    ("regions[0].high", {"regions": (replace(CAT, high="cat " * 30),)}, "tokens"),
    ("regions[0].high", {"regions": (replace(CAT, high="  "),)}, "say what it is"),
    ("regions[0].low", {"regions": (replace(CAT, low="cat " * 30),)}, "tokens"),
    ("regions[0].high", {"regions": (replace(CAT, high="cat \ud800"),)}, "surrogate"),
    ("regions[0].negative", {"regions": (replace(CAT, negative="cat " * 30),)}, "tokens"),
    (
        "regions[0].negative",
        {"regions": (replace(CAT, negative="dog"),), "guidance_scale": 1.0},
        "no effect",
    ),
    ("regions[0].mask", {"regions": (replace(CAT, box=None, mask=disc((64, 64))),)}, "128 x 128"),
    ("regions[0]", {"regions": (replace(CAT, mask=disc()),)}, "either"),
    ("regions[0].weight", {"regions": (replace(CAT, weight=0.0),)}, "above 0"),
    ("depth", {"depth": "shallow"}, "flat"),
    ("depth", {"depth": (LayerRule(),) * 3}, "2 cross-attention"),
    ("region_window", {"region_window": (0.5, 0.2)}, "start <= end"),
    ("region_window", {"region_window": (float("nan"), 1.0)}, "start <= end"),
    ("base_share", {"base_share": 1.5}, "0..1"),
    ("prompt_high", {"prompt_high": "cat " * 30}, "tokens"),
    ("ground", {"ground": "cat " * 30}, "tokens"),
)


@pytest.mark.parametrize(("param", "changes", "way_out"), BAD)
def test_bad_regions_are_refused_before_any_work(
    model: TextToImage,
    monkeypatch: pytest.MonkeyPatch,
    param: str,
    changes: dict[str, Any],
    way_out: str,
) -> None:
    monkeypatch.setattr(model, "prepare", lambda _: pytest.fail("the model was asked"))
    with pytest.raises(InputError, match=way_out) as error:
        model.generate([replace(TWO, **changes)])
    assert error.value.param == param
