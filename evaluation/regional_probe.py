"""Which layers and which steps decide what: other words in a window of them, and who wins.

A pair of prompts differs in one factor. A window of layers (or of steps) hears the second prompt,
all else the first, and the judge says whose value the picture shows. The method needs no training:
the second prompt is a region that covers the whole picture.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from core.progress import progress
from core.seeding import numpy_generator
from evaluation.intervals import Rate, wilson
from evaluation.model import Painter
from evaluation.predicates import relations
from evaluation.regional import Method, compare, table
from evaluation.regional_items import RegionalItem
from pipelines.depth import PRESETS, LayerRule
from pipelines.from_plan import with_plan
from pipelines.region_spec import Region
from pipelines.spec import GenerationSpec
from scenes.captions import BACKGROUND_WORDINGS, COUNT_WORDS, STYLE_WORDINGS
from scenes.readings import Judge, Reading, look_word
from scenes.vocabulary import BACKGROUNDS, COLORS, NOUNS, STYLES

Shows = Callable[[Reading, str], bool]
"""Whether a reading shows a value of a factor."""

WINDOWS = ((0.0, 1.0), (0.0, 0.5))
FACTORS = ("object", "count", "position", "color", "style", "background")


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """Two prompts that differ in one factor.

    Attributes:
        factor: One of FACTORS.
        prompts: Both prompts.
        values: What each shows of the factor.
        seed: Of the noise.
    """

    factor: str
    prompts: tuple[str, str]
    values: tuple[str, str]
    seed: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """Where the second prompt is heard.

    Attributes:
        axis: "layers" or "steps".
        start: First layer, or share of the steps.
        end: Behind the last.
    """

    axis: str
    start: float
    end: float


def control_curves(
    painter: Painter,
    judge: Judge,
    pairs: Sequence[Pair],
    bare: GenerationSpec,
    *,
    num_layers: int,
    num_step_windows: int = 4,
) -> dict[str, dict[Window, tuple[Rate, Rate]]]:
    """Paint every pair under every window and count whose value shows.

    Args:
        painter: The model.
        judge: Reads its pictures.
        pairs: Of any factors.
        bare: Steps, guidance and size of every picture.
        num_layers: Cross-attention layers of the model.
        num_step_windows: Into how many parts the steps are cut.

    Returns:
        For each factor and window the rate at which the second prompt's value shows, and the
        first's; they need not sum to 1.
    """
    windows = [*layer_windows(num_layers), *step_windows(num_step_windows)]
    hits: dict[str, dict[Window, list[tuple[bool, bool]]]] = {}
    with progress("Probing", total=len(windows) * len(pairs), unit="pictures") as report:
        for pair in pairs:
            for window in windows:
                spec = probe_spec(pair, window, bare, num_layers=num_layers)
                reading = judge.read(np.asarray(painter.generate([spec])[0].image))
                shown = tuple(SHOWS[pair.factor](reading, value) for value in pair.values)
                hits.setdefault(pair.factor, {}).setdefault(window, []).append((shown[1], shown[0]))
                report.advance()
    return {
        factor: {
            window: (
                wilson(sum(second for second, _ in seen), len(seen)),
                wilson(sum(first for _, first in seen), len(seen)),
            )
            for window, seen in by_window.items()
        }
        for factor, by_window in hits.items()
    }


def choose_defaults(
    painter: Painter, judge: Judge, items: Sequence[RegionalItem], bare: GenerationSpec
) -> tuple[tuple[str, tuple[float, float]] | None, dict[str, Rate]]:
    """Find the depth map and the step window that put most words into their places.

    Args:
        painter: The model.
        judge: Reads its pictures.
        items: Scenes of the development seeds.
        bare: Steps, guidance and size of every picture.

    Returns:
        The best preset and window, None where nothing beats the plain prompt by more than chance
        (the intervals overlap); and the region success of all, "plain" among them.
    """
    methods = {"plain": Method(painter=painter, ask=lambda spec, _: spec)}
    choices = {f"{preset} {a:g}-{b:g}": (preset, (a, b)) for preset in PRESETS for a, b in WINDOWS}
    for name, (preset, window) in choices.items():
        methods[name] = Method(painter=painter, ask=_asking(preset, window))
    rates = {
        name: rate["region_success"]
        for name, rate in table(compare(methods, items, judge, bare)).items()
    }
    best = max(choices, key=lambda name: rates[name].value or 0.0)
    return (choices[best] if rates[best].low > rates["plain"].high else None), rates


def layer_windows(num_layers: int) -> list[Window]:
    """Return windows of a quarter of the layers, each an eighth of them further.

    Args:
        num_layers: Cross-attention layers of the model.
    """
    size, stride = max(1, num_layers // 4), max(1, num_layers // 8)
    starts = range(0, num_layers - size + 1, stride)
    return [Window(axis="layers", start=float(start), end=float(start + size)) for start in starts]


def step_windows(count: int) -> list[Window]:
    """Return parts of the steps of equal length.

    Args:
        count: How many.
    """
    return [Window(axis="steps", start=n / count, end=(n + 1) / count) for n in range(count)]


def probe_spec(
    pair: Pair, window: Window, bare: GenerationSpec, *, num_layers: int
) -> GenerationSpec:
    """Return the picture in which a window hears the second prompt.

    Args:
        pair: The prompts.
        window: Where the second is heard.
        bare: Steps, guidance and size.
        num_layers: Cross-attention layers of the model.
    """
    whole = Region(high=pair.prompts[1], box=(0.0, 0.0, 1.0, 1.0))
    spec = replace(bare, prompt=pair.prompts[0], seed=pair.seed, regions=(whole,))
    if window.axis == "steps":
        return replace(spec, region_window=(window.start, window.end))
    depth = tuple(
        LayerRule(scope="regional" if window.start <= layer < window.end else "global")
        for layer in range(num_layers)
    )
    return replace(spec, depth=depth)


def pairs_of(factor: str, count: int, *, first_seed: int = 0) -> list[Pair]:
    """Return pairs of prompts in the emoji world's words.

    Args:
        factor: One of FACTORS.
        count: How many.
        first_seed: Seeds count up from here.
    """
    return [_pair(factor, first_seed + number) for number in range(count)]


def draw_curves(curves: Mapping[str, Mapping[Window, tuple[Rate, Rate]]], path: Path) -> None:
    """Draw a curve per factor: over layers on the left, over steps on the right.

    Args:
        curves: What `control_curves` returned.
        path: PNG file to write.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    panels = dict(zip(("layers", "steps"), figure.subplots(1, 2, sharey=True), strict=True))
    for factor, by_window in curves.items():
        for axis, panel in panels.items():
            points = [(w, rate[0]) for w, rate in by_window.items() if w.axis == axis]
            middles = [(w.start + w.end) / 2 for w, _ in points]
            panel.plot(middles, [rate.value for _, rate in points], marker="o", label=factor)
            panel.set_xlabel(f"middle of the window ({axis})")
            panel.set_ylim(-0.05, 1.05)
    panels["layers"].set_ylabel("the window's words show")
    panels["steps"].legend(fontsize="small")
    figure.savefig(path, dpi=120)


def _asking(
    preset: str, window: tuple[float, float]
) -> Callable[[GenerationSpec, RegionalItem], GenerationSpec]:
    return lambda spec, item: with_plan(
        replace(spec, depth=preset, region_window=window), item.plan
    )


def _pair(factor: str, seed: int) -> Pair:
    rng = numpy_generator(seed, "probe", factor)
    noun, other = (str(each) for each in rng.choice(list(NOUNS), size=2, replace=False))
    color, shade = (str(each) for each in rng.choice(list(COLORS), size=2, replace=False))
    ground, behind = (str(each) for each in rng.choice(list(BACKGROUNDS), size=2, replace=False))
    style, manner = (str(each) for each in rng.choice(list(STYLES), size=2, replace=False))
    side, opposite = (str(each) for each in rng.permutation(["left of", "right of"]))
    few, more = (int(each) for each in rng.choice([2, 3, 4], size=2, replace=False))
    several = NOUNS[noun].plural
    thing = f"a {color} {noun}"
    prompts = {
        "object": (f"a {color} {noun}", f"a {color} {other}"),
        "count": (f"{COUNT_WORDS[few]} {several}", f"{COUNT_WORDS[more]} {several}"),
        "position": (f"a {noun} {side} a {other}", f"a {noun} {opposite} a {other}"),
        "color": (f"a {color} {noun}", f"a {shade} {noun}"),
        "style": tuple(f"{thing}, {STYLE_WORDINGS[each][0]}" for each in (style, manner)),
        "background": tuple(f"{thing} {BACKGROUND_WORDINGS[e][0]}" for e in (ground, behind)),
    }
    values = {
        "object": (noun, other),
        "count": (str(few), str(more)),
        "position": (f"{noun}|{side}|{other}", f"{noun}|{opposite}|{other}"),
        "color": (color, shade),
        "style": (style, manner),
        "background": (ground, behind),
    }
    first, second = (text.replace("a orange", "an orange") for text in prompts[factor])
    return Pair(factor=factor, prompts=(first, second), values=values[factor], seed=seed)


def _stands(reading: Reading, value: str) -> bool:
    noun, relation, other = value.split("|")
    ones = [seen for seen in reading.objects if seen.noun == noun]
    others = [seen for seen in reading.objects if seen.noun == other]
    return len(ones) == len(others) == 1 and relation in relations(ones[0], others[0])


def _is_colored(reading: Reading, value: str) -> bool:
    return any(
        seen.noun is not None and seen.color_is_sure and look_word(seen.noun, seen.color) == value
        for seen in reading.objects
    )


SHOWS: Mapping[str, Shows] = {
    "object": lambda reading, value: any(seen.noun == value for seen in reading.objects),
    "count": lambda reading, value: len(reading.objects) == int(value),
    "position": _stands,
    "color": _is_colored,
    "style": lambda reading, value: reading.style == value,
    "background": lambda reading, value: reading.background == value,
}
