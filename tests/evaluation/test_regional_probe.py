from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from evaluation.regional_items import regional_items
from evaluation.regional_probe import (
    FACTORS,
    SHOWS,
    Window,
    choose_defaults,
    control_curves,
    draw_curves,
    layer_windows,
    pairs_of,
    probe_spec,
    step_windows,
)
from pipelines.spec import GenerationResult, GenerationSpec
from scenes.compose import render, sample_scene
from scenes.readings import Reading, SeenObject
from tests.world import JUDGE, SHEET

BARE = GenerationSpec(prompt="a cat")
NUM_LAYERS = 8


class LayerThree:
    """A model whose third layer alone decides the object; its judge knows."""

    def generate(self, specs: Sequence[GenerationSpec]) -> list[GenerationResult]:
        (self.spec,) = specs
        image = Image.new("RGB", (8, 8))
        return [GenerationResult(image=image, spec=self.spec, model="m", revision="r")]

    def read(self, image: np.ndarray) -> Reading:
        heard = self.spec.prompt
        rules = self.spec.depth
        if self.spec.regions and (rules == "flat" or rules[2].scope == "regional"):
            heard = self.spec.regions[0].high
        box = render_box()
        seen = SeenObject(
            noun=heard.split()[-1], color=None, color_is_sure=True, size=None, box=box, z=0,
            unexplained=0.0,
        )  # fmt: skip
        return Reading(objects=(seen,), background=None, style=None, detail=None)


def render_box():
    return sample_scene(0, split="train", sheet=SHEET).objects[0].box


def test_the_curve_finds_the_layer_that_decides() -> None:
    model = LayerThree()
    curves = control_curves(model, model, pairs_of("object", 2), BARE, num_layers=NUM_LAYERS)
    for window, (second, first) in curves["object"].items():
        decides = window.axis == "steps" or window.start <= 2 < window.end
        assert (second.value, first.value) == ((1, 0) if decides else (0, 1))


def test_windows_cover_layers_and_steps() -> None:
    for num in (1, 2, 8, 28, 40):
        windows = layer_windows(num)
        assert windows[0].start == 0
        assert windows[-1].end == num
    assert [w.end for w in step_windows(4)] == [0.25, 0.5, 0.75, 1.0]


def test_a_window_hears_the_second_prompt_alone() -> None:
    pair = pairs_of("color", 1)[0]
    layers = probe_spec(pair, Window(axis="layers", start=1.0, end=3.0), BARE, num_layers=4)
    assert [rule.scope for rule in layers.depth] == ["global", "regional", "regional", "global"]
    assert (layers.prompt, layers.regions[0].high) == pair.prompts
    steps = probe_spec(pair, Window(axis="steps", start=0.25, end=0.5), BARE, num_layers=4)
    assert (steps.region_window, steps.depth) == ((0.25, 0.5), "flat")


@pytest.mark.parametrize("factor", FACTORS)
def test_pairs_differ_in_their_factor_and_repeat(factor: str) -> None:
    pairs = pairs_of(factor, 20)
    assert pairs == pairs_of(factor, 20)
    for pair in pairs:
        assert pair.prompts[0] != pair.prompts[1]
        assert pair.values[0] != pair.values[1]
        assert "a orange" not in "".join(pair.prompts)


def test_a_factor_is_read_from_pictures_of_known_scenes() -> None:
    scene = next(
        scene
        for seed in range(100)
        if (scene := sample_scene(seed, split="train", sheet=SHEET, kind="relation")).relation
        in {"left of", "right of"} and scene.objects[0].color
    )  # fmt: skip
    reading = JUDGE.read(render(scene, SHEET))
    one, other = scene.objects
    opposite = {"left of": "right of", "right of": "left of"}[scene.relation]
    for factor, value, is_shown in (
        ("object", one.noun, True),
        ("object", "nothing", False),
        ("count", "2", True),
        ("position", f"{one.noun}|{scene.relation}|{other.noun}", True),
        ("position", f"{one.noun}|{opposite}|{other.noun}", False),
        ("color", one.color, True),
        ("background", scene.background, True),
        ("style", scene.style, True),
    ):
        assert SHOWS[factor](reading, value) == is_shown, factor


class Painted:
    """Paints the truth where it is told places, in the first half of the steps or in all."""

    def __init__(self, items, sheet, needs="flat"):
        self.items, self.sheet, self.needs = items, sheet, needs

    def generate(self, specs: Sequence[GenerationSpec]) -> list[GenerationResult]:
        (spec,) = specs
        scene = next(item.scene for item in self.items if item.seed == spec.seed)
        if not spec.regions or spec.depth != self.needs:
            scene = replace(scene, objects=())
        image = Image.fromarray(render(scene, self.sheet))
        return [GenerationResult(image=image, spec=spec, model="m", revision="r")]


def test_the_default_is_what_puts_words_into_places_or_nothing() -> None:
    items = regional_items(3, num_objects=2, first_seed=0, sheet=SHEET)
    chosen, rates = choose_defaults(Painted(items, SHEET, "reversed"), JUDGE, items, BARE)
    assert chosen is not None
    assert chosen[0] == "reversed"
    assert rates["plain"].value == 0
    assert choose_defaults(Painted(items, SHEET, "none"), JUDGE, items, BARE)[0] is None


def test_curves_are_drawn(tmp_path) -> None:
    model = LayerThree()
    curves = control_curves(model, model, pairs_of("object", 1), BARE, num_layers=NUM_LAYERS)
    draw_curves(curves, tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as picture:
        assert picture.size == (1200, 480)
