import numpy as np
import pytest

from scenes.compose import Box, Scene, SceneObject, sample_scene
from scenes.layout import NUM_COLOR_CLASSES, NUM_NOUN_CLASSES, layout
from scenes.vocabulary import COLORS, NOUNS
from tests.world import SHEET


@pytest.fixture(scope="module")
def sheet():
    return SHEET


def thing(noun, x0, y0, *, color=None, z=1):
    box = Box(x0=x0, y0=y0, x1=x0 + 0.5, y1=y0 + 0.5)
    return SceneObject(noun=noun, color=color, size="large", side_px=64, box=box, z=z)


def scene(*objects):
    return Scene(
        kind="several", objects=objects, background="gray", style="natural", detail="plain"
    )


def test_an_object_is_named_where_it_stands_and_nowhere_else(sheet):
    cells = layout(scene(thing("apple", 0.0, 0.5, color="blue")), sheet, num_cells=8)
    apple, blue = 1 + list(NOUNS).index("apple"), 2 + list(COLORS).index("blue")
    assert (cells[5:7, 1:3] == [apple, blue]).all()
    assert (cells[:4] == 0).all()
    assert (cells[:, 4:] == 0).all()


def test_what_stands_in_front_hides_what_is_behind(sheet):
    front, behind = thing("star", 0.25, 0.25, z=2), thing("apple", 0.25, 0.25, z=1)
    alone = layout(scene(front), sheet, num_cells=8)
    both = layout(scene(behind, front), sheet, num_cells=8)
    star = alone[..., 0] > 0
    middle = np.s_[3:5, 3:5]
    assert star[middle].all()
    assert (both[middle] == alone[middle]).all()


def test_every_scene_shows_exactly_its_own_objects(sheet):
    for seed in range(40):
        truth = sample_scene(seed, split="train", sheet=sheet)
        cells = layout(truth, sheet, num_cells=8)
        assert cells[..., 0].max() < NUM_NOUN_CLASSES
        assert cells[..., 1].max() < NUM_COLOR_CLASSES
        named = {list(NOUNS)[index - 1] for index in np.unique(cells[..., 0]) if index}
        assert named <= {each.noun for each in truth.objects}
        if truth.relation != "in front of":
            assert named == {each.noun for each in truth.objects}, seed
