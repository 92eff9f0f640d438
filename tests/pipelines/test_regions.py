from itertools import permutations
from math import nan
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from core.errors import InputError
from pipelines.region_spec import MAX_REGIONS, Region
from pipelines.regions import token_weights

LEFT, RIGHT = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)

edges = st.tuples(st.floats(0, 1), st.floats(0, 1)).filter(lambda e: e[0] != e[1]).map(sorted)
boxes = st.tuples(edges, edges).map(lambda e: (e[0][0], e[1][0], e[0][1], e[1][1]))
some_regions = st.lists(
    st.builds(
        Region,
        high=st.just("a cat"),
        box=boxes,
        z=st.integers(-2, 2),
        weight=st.floats(0, 10, exclude_min=True),
        feather=st.floats(0, 0.5),
    ),
    max_size=6,
)


def weights_of(*regions: Region, **changes: Any) -> torch.Tensor:
    return token_weights(regions, **({"width": 128, "height": 64, "token_px": 16} | changes))


@settings(max_examples=100, deadline=None)
@given(some_regions, st.floats(0, 1))
def test_weights_are_finite_and_sum_to_one_on_every_token(
    regions: list[Region], base_share: float
) -> None:
    weights = weights_of(*regions, base_share=base_share)
    assert weights.shape == (len(regions) + 1, 32)
    assert weights.isfinite().all()
    assert ((weights >= 0) & (weights <= 1)).all()
    torch.testing.assert_close(weights.sum(0), torch.ones(32), atol=1e-6, rtol=0)


def test_without_regions_the_base_prompt_is_heard_everywhere() -> None:
    assert weights_of().equal(torch.ones(1, 32))


def test_boxes_on_the_grid_are_hard_and_the_base_covers_the_rest() -> None:
    left, part = weights_of(Region(high="a", box=(0.0, 0.0, 0.5, 0.5))).view(2, 4, 8)
    assert part[:2, :4].eq(1).all()
    assert part.sum() == 8
    assert left.equal(1 - part)


def test_a_box_covers_a_token_by_area() -> None:
    weights = weights_of(Region(high="a", box=(0.0, 0.0, 1 / 16, 1 / 8)))
    assert weights[1, 0] == pytest.approx(0.25)
    assert weights[1, 1:].sum() == 0


def test_a_mask_weighs_as_the_box_it_draws() -> None:
    pixels = np.zeros((64, 128), np.float32)
    pixels[8:40, 4:76] = 1
    box = (4 / 128, 8 / 64, 76 / 128, 40 / 64)
    expected = weights_of(Region(high="a", box=box))
    for mask in (
        Image.fromarray(pixels),
        Image.fromarray((pixels * 255).astype(np.uint8)),
        Image.fromarray((pixels * 255).astype(np.uint8)).convert("1"),
    ):
        torch.testing.assert_close(weights_of(Region(high="a", mask=mask)), expected)


def test_the_front_hides_the_back_and_equals_share() -> None:
    back, front = Region(high="a", box=LEFT), Region(high="b", box=LEFT, z=1)
    assert weights_of(back, front)[1].sum() == 0
    equal = weights_of(back, Region(high="b", box=LEFT))
    assert equal[1].equal(equal[2])
    loud = weights_of(back, Region(high="b", box=LEFT, weight=3.0))
    assert loud[:, 0].tolist() == pytest.approx([0, 0.25, 0.75])


def test_base_share_is_heard_within_regions_only_against_their_weight() -> None:
    quiet, loud = Region(high="a", box=LEFT), Region(high="b", box=RIGHT, weight=3.0)
    weights = weights_of(quiet, loud, base_share=0.25)
    assert weights[:, 0].tolist() == pytest.approx([0.25, 0.75, 0])
    assert weights[:, 7].tolist() == pytest.approx([0.1, 0, 0.9])
    assert weights_of(quiet, loud, base_share=1.0)[0].eq(1).all()


def test_feather_softens_edges_and_leaves_a_full_cover_full() -> None:
    row = weights_of(Region(high="a", box=LEFT, feather=0.25)).view(2, 4, 8)[1, 0]
    assert (row.diff() < 0).all()
    assert weights_of(Region(high="a", box=(0.0, 0.0, 1.0, 1.0), feather=0.25))[1].eq(1).all()


def test_the_order_of_regions_changes_nothing() -> None:
    regions = [
        Region(high="a", box=(0.1, 0.1, 0.63, 0.7)),
        Region(high="b", box=(0.3, 0.2, 0.9, 1.0), weight=2.0),
        Region(high="c", box=(0.2, 0.5, 0.7, 0.9), z=1, feather=0.1),
    ]
    expected = weights_of(*regions, base_share=0.1)
    for order in permutations(range(3)):
        weights = weights_of(*(regions[place] for place in order), base_share=0.1)
        torch.testing.assert_close(weights[1:], expected[1:][list(order)], atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"box": (0.5, 0.0, 0.2, 1.0)}, "regions[1].box.x1"),
        ({"box": (0.0, 0.4, 1.0, 0.4)}, "regions[1].box.y1"),
        ({"box": (-0.1, 0.0, 1.0, 1.0)}, "regions[1].box.x0"),
        ({"box": (0.0, 0.0, 1.0, 1.1)}, "regions[1].box.y1"),
        ({"box": (0.0, nan, 1.0, 1.0)}, "regions[1].box.y0"),
        ({"box": None}, "regions[1]"),
        ({"mask": Image.new("L", (128, 64), 255)}, "regions[1]"),
        ({"box": None, "mask": Image.new("L", (64, 128), 255)}, "regions[1].mask"),
        ({"box": None, "mask": Image.new("RGB", (128, 64))}, "regions[1].mask"),
        ({"box": None, "mask": Image.new("L", (128, 64), 0)}, "regions[1].mask"),
        ({"box": None, "mask": Image.new("F", (128, 64), 1.5)}, "regions[1].mask"),
        ({"box": None, "mask": Image.new("F", (128, 64), nan)}, "regions[1].mask"),
        ({"weight": 0.0}, "regions[1].weight"),
        ({"weight": nan}, "regions[1].weight"),
        ({"feather": nan}, "regions[1].feather"),
    ],
)
def test_a_bad_region_is_refused_by_the_path_of_its_field(
    changes: dict[str, Any], param: str
) -> None:
    with pytest.raises(InputError) as refusal:
        weights_of(Region(high="a", box=LEFT), Region(**({"high": "b", "box": RIGHT} | changes)))
    assert refusal.value.param == param


def test_too_many_regions_a_nan_pixel_and_a_bad_base_share_are_refused() -> None:
    with pytest.raises(InputError, match="at most 16"):
        weights_of(*[Region(high="a", box=LEFT)] * (MAX_REGIONS + 1))
    pixels = np.ones((64, 128), np.float32)
    pixels[30, 30] = nan
    with pytest.raises(InputError) as refusal:
        weights_of(Region(high="a", mask=Image.fromarray(pixels)))
    assert refusal.value.param == "regions[0].mask"
    with pytest.raises(InputError) as refusal:
        weights_of(base_share=nan)
    assert refusal.value.param == "base_share"
