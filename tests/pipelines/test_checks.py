from dataclasses import replace
from math import inf, nan

import pytest

from core.errors import InputError
from pipelines.spec import GenerationSpec
from pipelines.text_to_image import TextToImage

GOOD = GenerationSpec(prompt="a red apple")


@pytest.mark.parametrize(
    ("param", "changes", "way_out"),
    [
        ("prompt", {"prompt": ""}, "say in words"),
        ("prompt", {"prompt": " \n\t"}, "say in words"),
        ("prompt", {"prompt": "cat " * 30}, "has 31 tokens, and tiny reads 24"),
        ("prompt", {"prompt": "a cat \ud800"}, "valid UTF-8"),
        ("negative_prompt", {"negative_prompt": "cat " * 24}, "has 25 tokens"),
        ("negative_prompt", {"negative_prompt": "cat", "guidance_scale": 1.0}, "no effect"),
        ("num_steps", {"num_steps": 0}, "1 to 1000"),
        ("num_steps", {"num_steps": -4}, "1 to 1000"),
        ("num_steps", {"num_steps": 10**9}, "1 to 1000"),
        ("guidance_scale", {"guidance_scale": nan}, "from 1"),
        ("guidance_scale", {"guidance_scale": inf}, "from 1"),
        ("guidance_scale", {"guidance_scale": 0.5}, "from 1"),
        ("guidance_scale", {"guidance_scale": 31.0}, "30"),
        ("seed", {"seed": -1}, "0 to 9223372036854775807"),
        ("seed", {"seed": 2**63}, "0 to 9223372036854775807"),
        ("size", {"width": 256}, "ask for 128x128"),
        ("size", {"height": 0}, "ask for 128x128"),
        ("scheduler", {"scheduler": "euler"}, "ddim, dpmpp"),
    ],
)
def test_a_bad_field_is_named_with_the_way_out(
    model: TextToImage, param: str, changes: dict[str, object], way_out: str
) -> None:
    with pytest.raises(InputError, match=way_out) as error:
        model.check(replace(GOOD, **changes))
    assert error.value.param == param


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"seed": 2**63 - 1},
        {"num_steps": 1000},
        {"num_steps": 1, "scheduler": "ddim"},
        {"guidance_scale": 1.0, "negative_prompt": "  "},
        {"guidance_scale": 30.0},
        {"prompt": "cat " * 23},
    ],
)
def test_the_edge_of_every_range_is_served(model: TextToImage, changes: dict[str, object]) -> None:
    model.check(replace(GOOD, **changes))


def test_the_largest_seed_is_painted(model: TextToImage) -> None:
    results = model.generate([replace(GOOD, seed=2**63 - 1, num_steps=1)])
    assert results[0].image.mode == "RGB"
