"""Models beside each other, with painters whose success is known before."""

import numpy as np
import pytest
from PIL import Image

from evaluation.baselines import BASELINES
from evaluation.predicates import TAGS
from evaluation.prompts_from_scenes import TAGS_WITH_UNSEEN, items
from evaluation.side_by_side import Contender, side_by_side
from pipelines.spec import GenerationResult, GenerationSpec
from scenes.judge import SceneJudge
from scenes.readings import Reading
from tests.world import SHEET

BLANK = Image.new("RGB", (128, 128))
BARE = GenerationSpec(prompt="", num_steps=4, guidance_scale=1.0, scheduler="ddim")


class Remembering:
    """Paints nothing, and notes what it was asked for."""

    def __init__(self):
        self.asked = []

    def generate(self, specs):
        self.asked += [(spec.prompt, spec.seed, spec.num_steps) for spec in specs]
        return [
            GenerationResult(image=BLANK, spec=spec, model="blank", revision="") for spec in specs
        ]


class QuickJudge:
    """The judge, who need not search a blank picture for half a minute."""

    def read(self, image):
        assert image.dtype == np.uint8
        if not image.any():
            return Reading(objects=(), background=None, style=None, detail=None)
        return SceneJudge(SHEET).read(image)


def test_all_are_asked_for_the_same_prompts_from_the_same_seeds():
    first, second = Remembering(), Remembering()
    contenders = [
        Contender(name=name, painter=painter, bare=BARE)
        for name, painter in (("a", first), ("b", second))
    ]
    standings = side_by_side(contenders, QuickJudge(), num_prompts=2)
    assert first.asked == second.asked
    assert len(first.asked) == 18  # six categories, three of them with unseen combinations
    assert [each.name for each in standings] == ["a", "b"]
    assert standings[0].behind is None
    assert standings[1].behind.value == 0
    assert standings[0].right.num_tried == 18
    assert set(standings[0].by_category) == set(TAGS)


def test_a_contender_is_made_only_when_the_one_before_it_was_judged():
    order = []

    def contenders():
        for name in "ab":
            painter = Remembering()
            order.append((name, len(order)))
            yield Contender(name=name, painter=painter, bare=BARE)
            order.append((name, len(painter.asked)))

    side_by_side(contenders(), QuickJudge(), num_prompts=1)
    assert [name for name, _ in order] == ["a", "a", "b", "b"]
    assert order[1] == ("a", 9)


class Rendering:
    """Paints by renderer exactly what is asked for, as far as it was told what that is."""

    def __init__(self, known):
        self.known = known

    def generate(self, specs):
        return [self.result(spec) for spec in specs]

    def result(self, spec):
        item = self.known.get(spec.prompt)
        image = BLANK if item is None else BASELINES["oracle"](item, spec.seed, sheet=SHEET)
        return GenerationResult(image=image, spec=spec, model="known", revision="")


def test_how_far_behind_is_told_by_pairs():
    known = {
        item.prompt: item
        for tag in TAGS
        for is_unseen in (False, True)
        for item in items(tag, 1, is_unseen=is_unseen and tag in TAGS_WITH_UNSEEN)
    }
    single = {prompt: item for prompt, item in known.items() if item.tag == "single_object"}
    contenders = [
        Contender(name=name, painter=Rendering(knowing), bare=BARE)
        for name, knowing in (("all", known), ("single", single), ("nothing", {}))
    ]
    _, second, third = side_by_side(contenders, QuickJudge(), num_prompts=1)
    assert second.by_category["single_object"].value == 1
    assert second.by_category["color_attr"].value == 0
    assert second.behind.value == pytest.approx(8 / 9)
    assert second.behind.low < 8 / 9 < third.behind.value == 1
