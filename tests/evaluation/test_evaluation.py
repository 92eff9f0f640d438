from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from core.errors import UnknownNameError
from evaluation.baselines import BASELINES
from evaluation.intervals import paired_difference, wilson
from evaluation.judge_table import CONTROLS, DISTURBANCES, judge_table
from evaluation.model import failure_sheet, judge_model, judge_pictures, rates
from evaluation.predicates import TAGS, Include, Item, relations, satisfies, shows_nothing_else
from evaluation.prompts_from_scenes import items
from evaluation.reconstructions import judge_reconstructions
from pipelines.region_spec import Region
from pipelines.spec import GenerationResult, GenerationSpec
from scenes.compose import Box, render, sample_scene
from scenes.readings import Reading, SeenObject
from tests.world import JUDGE, SHEET


def seen(noun, x=0.2, y=0.4, *, color=None, is_sure=True):
    return SeenObject(
        noun=noun,
        color=color,
        color_is_sure=is_sure,
        size="medium",
        box=Box(x0=x, y0=y, x1=x + 0.3, y1=y + 0.3),
        z=0,
        unexplained=0.0,
    )


def reading(*objects):
    return Reading(objects=objects, background="sky", style="natural", detail="plain")


def item(*include, tag="position"):
    return Item(tag=tag, prompt="", include=include, is_unseen=False)


def test_a_picture_may_show_more_than_asked_except_where_it_must_count():
    cat, one_cat = item(Include(noun="cat")), item(Include(noun="cat"), tag="counting")
    for wanted in (cat, one_cat):
        assert satisfies(reading(seen("cat")), wanted)
        assert not satisfies(reading(), wanted)
        assert not satisfies(reading(seen("dog")), wanted)
        assert satisfies(reading(seen("cat"), seen("dog", 0.6)), wanted)
        assert satisfies(reading(seen("cat"), seen(None, 0.6)), wanted)
    two_cats = reading(seen("cat"), seen("cat", 0.6))
    assert satisfies(two_cats, cat)
    assert not satisfies(two_cats, one_cat)


def test_nothing_else_counts_what_has_no_name_too():
    cat = item(Include(noun="cat"))
    assert shows_nothing_else(reading(seen("cat")), cat)
    assert not shows_nothing_else(reading(seen("cat"), seen(None, 0.6)), cat)


def test_the_surest_of_several_stands_for_its_class():
    left = item(Include(noun="cat", position=("left of", 1)), Include(noun="dog"))
    sure, doubtful = seen("cat", 0.1), replace(seen("cat", 0.65), unexplained=0.3)
    assert satisfies(reading(doubtful, sure, seen("dog", 0.6)), left)


def test_a_colour_must_be_the_asked_one_and_sure():
    wanted = item(Include(noun="cat", color="blue"))
    assert satisfies(reading(seen("cat", color="blue")), wanted)
    assert not satisfies(reading(seen("cat", color="red")), wanted)
    assert not satisfies(reading(seen("cat", color="blue", is_sure=False)), wanted)


def test_swapped_places_do_not_satisfy_a_position():
    left = item(Include(noun="cat", position=("left of", 1)), Include(noun="dog"))
    assert satisfies(reading(seen("cat", 0.1), seen("dog", 0.6)), left)
    assert not satisfies(reading(seen("cat", 0.6), seen("dog", 0.1)), left)


def test_relations_mirror_and_overlap_has_none():
    assert relations(seen("cat", 0.1, 0.4), seen("dog", 0.6, 0.4)) == {"left of"}
    assert relations(seen("dog", 0.6, 0.4), seen("cat", 0.1, 0.4)) == {"right of"}
    assert relations(seen("cat", 0.1, 0.1), seen("dog", 0.6, 0.6)) == {"left of", "above"}
    assert relations(seen("cat", 0.4, 0.4), seen("dog", 0.42, 0.4)) == set()


def test_wilson_interval_holds_the_rate_and_narrows():
    assert wilson(0, 0).value is None
    assert str(wilson(0, 0)) == "not measured"
    few, many = wilson(9, 10), wilson(900, 1000)
    assert few.low < many.low < 0.9 < many.high < few.high
    assert wilson(10, 10).high == 1.0
    # Wilson's own closed form at 10 of 10: low = n / (n + z^2)
    assert wilson(10, 10).low == pytest.approx(10 / (10 + 1.959964**2))
    assert str(wilson(1, 2)).startswith("50.0 %")


def test_a_paired_difference_counts_only_where_outcomes_differ():
    both, only_first, only_second, neither = [(1, 1)], [(1, 0)], [(0, 1)], [(0, 0)]

    def measured(*pairs):
        first, second = zip(*(pair for part in pairs for pair in part), strict=True)
        return paired_difference([bool(x) for x in first], [bool(x) for x in second])

    same = measured(both * 70, neither * 30)
    assert same.value == 0
    assert same.low == pytest.approx(-same.high)
    found = measured(both * 70, only_first * 8, only_second * 3, neither * 19)
    assert found.value == pytest.approx(0.05)
    assert found.low < 0
    # Closed form: (8.5 - 3.5) / 102, and the spread of a trial that is worth 1, -1 or 0.
    middle, spread = 5 / 102, 12 / 102 - (5 / 102) ** 2
    assert (found.low + found.high) / 2 == pytest.approx(middle)
    assert (found.high - found.low) / 2 == pytest.approx(1.959964 * (spread / 102) ** 0.5)
    many = measured(both * 700, only_first * 80, only_second * 30, neither * 190)
    assert many.low > 0
    turned = measured(both * 70, only_first * 3, only_second * 8, neither * 19)
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low))


def test_prompts_are_of_their_split_and_repeatable():
    for tag in TAGS:
        assert items(tag, 5, is_unseen=False) == items(tag, 5, is_unseen=False)
        assert {each.tag for each in items(tag, 5, is_unseen=False)} == {tag}
    assert all(each.is_unseen for each in items("color_attr", 8, is_unseen=True))
    with pytest.raises(UnknownNameError, match="color_attr"):
        items("counting", 1, is_unseen=True)
    with pytest.raises(UnknownNameError, match="single_object"):
        items("speed", 1, is_unseen=False)


class FixedJudge:
    """Always gives one reading."""

    def __init__(self, fixed):
        self.fixed = fixed

    def read(self, image):
        return self.fixed


class BlankPainter:
    """The baseline that must score nothing."""

    def generate(self, specs):
        blank = Image.new("RGB", (128, 128), (160, 205, 238))
        return [
            GenerationResult(image=blank, spec=spec, model="blank", revision="0") for spec in specs
        ]


BARE = GenerationSpec(prompt="", num_steps=1, guidance_scale=1.0, scheduler="ddim")


def test_a_blank_canvas_scores_nothing_and_its_failures_are_drawn(tmp_path):
    judged = judge_model(BlankPainter(), JUDGE, bare=BARE, num_prompts=1)
    table = rates(judged)
    assert all(rate.value == 0.0 for rate in table.values() if rate.value is not None)
    assert table["counting_unseen"].value is None
    assert table["colors"].num_tried == 2
    failure_sheet(judged, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width == 6 * 210


def test_pictures_are_placed_before_they_are_painted():
    asked = []

    class Seeing(BlankPainter):
        def generate(self, specs):
            asked.extend(specs)
            return super().generate(specs)

    judge_model(
        Seeing(),
        JUDGE,
        bare=BARE,
        num_prompts=1,
        place=lambda spec: replace(spec, regions=(Region(high="a cat", box=(0.0, 0.0, 0.5, 1.0)),)),
    )
    assert {spec.regions[0].high for spec in asked} == {"a cat"}
    assert {(spec.num_steps, spec.scheduler) for spec in asked} == {(1, "ddim")}


def test_a_blind_judge_reads_and_accepts_nothing():
    table = judge_table(FixedJudge(reading()), SHEET, num_scenes=4)
    assert {name for name in table if name.startswith("exact")} == {
        f"exact_{name}" for name in DISTURBANCES
    }
    assert all(rate.value == 0.0 for name, rate in table.items() if name.startswith("exact"))
    assert table["false_accept"].value == 0.0


def test_controls_change_what_is_seen_and_disturbances_do_not_move_it():
    rng = np.random.default_rng(0)
    for seed in range(6):
        scene = sample_scene(seed, split="seen", sheet=SHEET, kind="several")
        clean = render(scene, SHEET).astype(int)
        for change in CONTROLS.values():
            changed = change(scene, rng)
            if changed is not None:
                assert np.abs(render(changed, SHEET).astype(int) - clean).max() > 20
        for disturb in DISTURBANCES.values():
            assert np.abs(disturb(clean.astype(np.uint8), rng).astype(int) - clean).mean() < 14


class Untouched(torch.nn.Module):
    """An autoencoder that keeps everything."""

    config = SimpleNamespace(scaling_factor=1.0)

    def encode(self, pixels):
        return SimpleNamespace(latent=pixels)

    def decode(self, latent):
        return SimpleNamespace(sample=latent)


class Erases(Untouched):
    def decode(self, latent):
        return SimpleNamespace(sample=torch.zeros_like(latent))


def test_what_an_autoencoder_keeps_is_read_and_what_it_erases_is_not():
    kept = judge_reconstructions(Untouched(), JUDGE, SHEET, num_scenes=3)
    lost = judge_reconstructions(Erases(), JUDGE, SHEET, num_scenes=3)
    assert kept.readable.num_tried == kept.num_read
    assert kept.readable.value == 1.0
    assert kept.psnr_db > 50
    assert lost.readable.value == 0.0
    assert lost.psnr_db < 20


@pytest.mark.slow
def test_baselines_score_as_they_must():
    right = {
        name: [
            each.is_right
            for each in judge_pictures(partial(paint, sheet=SHEET), JUDGE, num_prompts=1)
        ]
        for name, paint in BASELINES.items()
    }
    assert not any(right["blank"])
    assert sum(right["random"]) <= 2
    assert sum(right["oracle"]) >= len(right["oracle"]) - 1
