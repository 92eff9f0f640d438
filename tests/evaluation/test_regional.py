from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from evaluation.regional import (
    Method,
    compare,
    comparison_sheet,
    judged,
    methods_of,
    paired_margin,
    seam_energy,
    table,
)
from evaluation.regional_items import FIRST_TEST_SEED, RegionalItem, phrase, regional_items
from pipelines.spec import GenerationResult, GenerationSpec
from scenes.compose import Scene, SceneObject, render
from tests.world import JUDGE, SHEET

ITEMS = regional_items(3, num_objects=2, first_seed=FIRST_TEST_SEED, sheet=SHEET)
BARE = GenerationSpec(prompt="a cat")


class Renderer:
    """Paints what a change of the truth looks like."""

    def __init__(self, change):
        self.change = change

    def generate(self, specs: Sequence[GenerationSpec]) -> list[GenerationResult]:
        scenes = [next(item.scene for item in ITEMS if item.seed == spec.seed) for spec in specs]
        return [
            GenerationResult(
                image=Image.fromarray(render(self.change(scene), SHEET)),
                spec=spec,
                model="renderer",
                revision="r",
            )
            for scene, spec in zip(scenes, specs, strict=True)
        ]


def swapped_colors(scene: Scene) -> Scene:
    one, other = scene.objects
    return replace(
        scene, objects=(replace(one, color=other.color), replace(other, color=one.color))
    )


def emptied(scene: Scene) -> Scene:
    return replace(scene, objects=())


@pytest.fixture(scope="module")
def outcomes():
    methods = {
        name: Method(painter=Renderer(change), ask=lambda spec, _: spec)
        for name, change in {
            "truth": lambda scene: scene, "swapped": swapped_colors, "empty": emptied,
        }.items()
    }  # fmt: skip
    return compare(methods, ITEMS, JUDGE, BARE)


def test_the_truth_is_right_and_nothing_else_is(outcomes) -> None:
    rates = table(outcomes)
    assert rates["truth"]["region_success"].value == rates["truth"]["color_attr"].value == 1
    assert rates["truth"]["leak"].value == rates["empty"]["leak"].value == 0
    assert rates["empty"]["region_success"].value == rates["swapped"]["color_attr"].value == 0
    assert rates["swapped"]["region_success"].value == 0
    assert rates["swapped"]["leak"].value == 1


def test_margins_are_paired_and_their_interval_holds_them(outcomes) -> None:
    assert paired_margin(outcomes["truth"], outcomes["empty"]) == (1.0, 1.0, 1.0)
    assert paired_margin(outcomes["truth"], outcomes["truth"]) == (0.0, 0.0, 0.0)


def test_the_sheet_has_a_column_for_each_method(outcomes, tmp_path) -> None:
    comparison_sheet(outcomes, tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as sheet:
        assert sheet.size == (3 * 136, 20 + 3 * 152)


def test_items_name_every_thing_and_only_some_say_where() -> None:
    for item in ITEMS:
        colors = {thing.color for thing in item.scene.objects}
        assert len(colors) == 2
        assert None not in colors
        for thing in item.scene.objects:
            assert phrase(thing) in item.prompt
            assert phrase(thing) in item.located
            assert f"the {thing.noun} is {thing.color}" in item.rewritten
        assert len(item.located) > len(item.prompt)
    again = regional_items(3, num_objects=2, first_seed=FIRST_TEST_SEED, sheet=SHEET)
    assert again == ITEMS


def test_a_seam_shows_at_the_edge_of_a_region() -> None:
    thing = SceneObject(
        noun="cat", color="red", size="medium", side_px=64, z=0,
        box=type(ITEMS[0].scene.objects[0].box)(x0=0.25, y0=0.25, x1=0.75, y1=0.75),
    )  # fmt: skip
    scene = replace(ITEMS[0].scene, objects=(thing,))
    noise = np.random.default_rng(0).integers(0, 8, (128, 128, 3)).astype(np.uint8)
    assert seam_energy(np.zeros((128, 128, 3), np.uint8), scene) == 1
    assert 0.8 < seam_energy(noise, scene) < 1.25
    noise[32:96, 32:96] += 100
    assert seam_energy(noise, scene) > 5


def test_every_method_asks_for_what_it_is_called() -> None:
    truth = Renderer(lambda scene: scene)
    methods = methods_of(truth, truth, truth, num_layers=4, window=(0.0, 0.5))
    item: RegionalItem = ITEMS[0]
    asked = {name: method.ask(BARE, item) for name, method in methods.items()}
    assert asked["plain"] == BARE
    assert asked["location_words"].prompt == item.located
    for name in ("latent_mixing", "joined_mask", "flat"):
        assert asked[name].depth == "flat"
        assert [region.high for region in asked[name].regions] == [
            thing.high for thing in item.plan.objects
        ]
    assert asked["flat"].region_window == (0.0, 0.5)
    assert [rule.scope for rule in asked["even_layers"].depth] == ["regional", "global"] * 2
    assert {name for name, method in methods.items() if method.is_ours} == {
        "flat", "progressive", "reversed", "layout-first",
    }  # fmt: skip


def test_seconds_are_kept() -> None:
    image = Image.fromarray(render(ITEMS[0].scene, SHEET))
    assert judged(ITEMS[0], image, JUDGE, 1.5).seconds == 1.5
