"""Words in places, judged: our regional control beside other ways, on the same scenes and noise."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from core.progress import progress
from core.seeding import numpy_generator
from evaluation.intervals import Rate, wilson
from evaluation.model import Painter
from evaluation.regional_items import RegionalItem
from pipelines.depth import DepthMap, LayerRule
from pipelines.from_plan import with_plan
from pipelines.spec import GenerationSpec
from scenes.compose import Scene, SceneObject
from scenes.readings import SAME_PLACE_IOU, Judge, Reading, SeenObject, box_iou, look_word

Ask = Callable[[GenerationSpec, RegionalItem], GenerationSpec]
"""From a bare specification to what a method asks for one item."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """One way to put words into places.

    Attributes:
        painter: Who paints.
        ask: What it is asked.
        is_ours: Whether it is the regional attention of this package.
    """

    painter: Painter
    ask: Ask
    is_ours: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """One picture, judged.

    Attributes:
        item: What was asked for.
        image: What was painted.
        regions_right: Of each region: right thing, right colour, right place, nothing else there.
        leaks: Of each region: whether it shows another region's thing or colour.
        is_bound: Whether the picture holds each thing once in its colour, wherever, and no other.
        seam: Change of brightness across the regions' edges over that elsewhere; 1 is no seam.
        seconds: How long it took.
    """

    item: RegionalItem
    image: Image.Image
    regions_right: tuple[bool, ...]
    leaks: tuple[bool, ...]
    is_bound: bool
    seam: float
    seconds: float


def methods_of(
    ours: Painter, mixed: Painter, joined: Painter, *, num_layers: int, window: tuple[float, float]
) -> dict[str, Method]:
    """Return all methods that are compared.

    Args:
        ours: The model with its own regional attention.
        mixed: The same by latent mixing.
        joined: The same by one attention mask.
        num_layers: Cross-attention layers of the model.
        window: Shares of the steps in which regions act.
    """
    even = tuple(
        LayerRule() if layer % 2 == 0 else LayerRule(scope="global") for layer in range(num_layers)
    )

    def planned(depth: DepthMap) -> Ask:
        return lambda spec, item: with_plan(
            replace(spec, depth=depth, region_window=window), item.plan
        )

    others = {
        "plain": Method(painter=ours, ask=lambda spec, _: spec),
        "location_words": Method(
            painter=ours, ask=lambda spec, item: replace(spec, prompt=item.located)
        ),
        "rewritten": Method(
            painter=ours, ask=lambda spec, item: replace(spec, prompt=item.rewritten)
        ),
        "latent_mixing": Method(painter=mixed, ask=planned("flat")),
        "joined_mask": Method(painter=joined, ask=planned("flat")),
        "first_layers": Method(painter=ours, ask=planned("release")),
        "even_layers": Method(painter=ours, ask=planned(even)),
    }
    presets = ("flat", "progressive", "reversed", "layout-first")
    return others | {
        name: Method(painter=ours, ask=planned(name), is_ours=True) for name in presets
    }


def compare(
    methods: Mapping[str, Method],
    items: Sequence[RegionalItem],
    judge: Judge,
    bare: GenerationSpec,
) -> dict[str, list[Outcome]]:
    """Let every method paint every item from the same noise, in turns, and judge the pictures.

    Args:
        methods: By name.
        items: What is asked for.
        judge: Reads the pictures.
        bare: Steps, guidance and size of every picture.

    Returns:
        Outcomes by method, in the order of the items.
    """
    outcomes: dict[str, list[Outcome]] = {name: [] for name in methods}
    with progress("Comparing", total=len(methods) * len(items), unit="pictures") as report:
        for item in items:
            for name, method in methods.items():
                spec = replace(bare, prompt=item.prompt, seed=item.seed)
                started = time.perf_counter()
                image = method.painter.generate([method.ask(spec, item)])[0].image
                seconds = time.perf_counter() - started
                outcomes[name].append(judged(item, image, judge, seconds))
                report.advance()
    return outcomes


def judged(item: RegionalItem, image: Image.Image, judge: Judge, seconds: float) -> Outcome:
    """Judge one picture.

    Args:
        item: What was asked for.
        image: What was painted.
        judge: Reads it.
        seconds: How long it took.
    """
    pixels = np.asarray(image)
    reading, objects = judge.read(pixels), item.scene.objects
    return Outcome(
        item=item,
        image=image,
        regions_right=tuple(_is_right(thing, reading) for thing in objects),
        leaks=tuple(_leaks(thing, objects, reading) for thing in objects),
        is_bound=_is_bound(item.scene, reading),
        seam=seam_energy(pixels, item.scene),
        seconds=seconds,
    )


def table(outcomes: Mapping[str, Sequence[Outcome]]) -> dict[str, dict[str, Rate]]:
    """Return the rates of each method.

    Args:
        outcomes: By method.

    Returns:
        For each method: region_success, leak (per region), image_success and color_attr (per
        picture), with Wilson intervals.
    """
    rates = {}
    for name, each in outcomes.items():
        right = [right for outcome in each for right in outcome.regions_right]
        leaks = [leak for outcome in each for leak in outcome.leaks]
        rates[name] = {
            "region_success": wilson(sum(right), len(right)),
            "leak": wilson(sum(leaks), len(leaks)),
            "image_success": wilson(sum(all(o.regions_right) for o in each), len(each)),
            "color_attr": wilson(sum(o.is_bound for o in each), len(each)),
        }
    return rates


def paired_margin(
    ours: Sequence[Outcome], theirs: Sequence[Outcome], *, num_draws: int = 2000
) -> tuple[float, float, float]:
    """Return by how much one method's region success exceeds another's, scene by scene.

    Args:
        ours: One outcome per item, at least one.
        theirs: The other method's on the same items, in the same order.
        num_draws: Draws of the bootstrap.

    Returns:
        Mean difference, and the ends of its 95 % interval by a bootstrap over scenes.
    """
    gaps = np.array(
        [
            np.mean(our.regions_right) - np.mean(their.regions_right)
            for our, their in zip(ours, theirs, strict=True)
        ]
    )
    rng = numpy_generator(0, "bootstrap")
    means = gaps[rng.integers(len(gaps), size=(num_draws, len(gaps)))].mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(gaps.mean()), float(low), float(high)


def seam_energy(pixels: UInt8[np.ndarray, "h w 3"], scene: Scene) -> float:
    """Return how much brighter or darker pictures get at the edges of regions than elsewhere.

    Args:
        pixels: The picture.
        scene: Whose objects' boxes are the regions.

    Returns:
        Mean step in brightness across the edges over that of the rest; 1 where nothing shows.
    """
    bright = pixels.astype(np.float64).mean(axis=2)
    steps = np.abs(np.diff(bright, axis=0))[:, :-1] + np.abs(np.diff(bright, axis=1))[:-1]
    height, width = bright.shape
    at_edge = np.zeros(steps.shape, bool)
    for thing in scene.objects:
        x0, x1 = (round(x * width) for x in (thing.box.x0, thing.box.x1))
        y0, y1 = (round(y * height) for y in (thing.box.y0, thing.box.y1))
        for row in (y0 - 1, y1 - 1):
            at_edge[max(row, 0) : row + 1, x0:x1] = True
        for column in (x0 - 1, x1 - 1):
            at_edge[y0:y1, max(column, 0) : column + 1] = True
    rest = float(steps[~at_edge].mean())
    return float(steps[at_edge].mean()) / rest if rest and at_edge.any() else 1.0


def comparison_sheet(outcomes: Mapping[str, Sequence[Outcome]], path: Path) -> None:
    """Write a row for each scene and a column for each method, the regions drawn in.

    Args:
        outcomes: By method, on the same items; the first 12 are shown.
        path: PNG file to write.
    """
    names = list(outcomes)
    rows = list(zip(*outcomes.values(), strict=True))[:12]
    edge = rows[0][0].image.width if rows else 1
    sheet = Image.new("RGB", (len(names) * (edge + 8), 20 + len(rows) * (edge + 24)), "white")
    pen = ImageDraw.Draw(sheet)
    for column, name in enumerate(names):
        pen.text((column * (edge + 8) + 4, 4), name, fill="black")
    for number, row in enumerate(rows):
        top = 20 + number * (edge + 24)
        pen.text((4, top + edge + 4), row[0].item.prompt[:160], fill="black")
        for column, outcome in enumerate(row):
            left = column * (edge + 8) + 4
            sheet.paste(outcome.image, (left, top))
            for thing, is_right in zip(
                outcome.item.scene.objects, outcome.regions_right, strict=True
            ):
                box = thing.box
                corners = [left + box.x0 * edge, top + box.y0 * edge]
                corners += [left + box.x1 * edge, top + box.y1 * edge]
                pen.rectangle(corners, outline="#1e8449" if is_right else "#b00020")
    sheet.save(path)


def _is_right(thing: SceneObject, reading: Reading) -> bool:
    inside = _inside(thing, reading)
    return len(inside) == 1 and (
        inside[0].noun == thing.noun
        and inside[0].color_is_sure
        and _look(inside[0]) == look_word(thing.noun, thing.color)
        and box_iou(inside[0].box, thing.box) >= SAME_PLACE_IOU
    )


def _leaks(thing: SceneObject, objects: Sequence[SceneObject], reading: Reading) -> bool:
    nouns = {other.noun for other in objects} - {thing.noun}
    colors = {look_word(other.noun, other.color) for other in objects if other is not thing}
    colors -= {look_word(thing.noun, thing.color)}
    return any(
        seen.noun in nouns or (seen.noun == thing.noun and _look(seen) in colors)
        for seen in _inside(thing, reading)
    )


def _is_bound(scene: Scene, reading: Reading) -> bool:
    wanted = sorted(
        (thing.noun, str(look_word(thing.noun, thing.color))) for thing in scene.objects
    )
    sure = [seen for seen in reading.objects if seen.noun is not None and seen.color_is_sure]
    return len(sure) == len(reading.objects) and (
        sorted((str(seen.noun), str(_look(seen))) for seen in sure) == wanted
    )


def _look(seen: SeenObject) -> str | None:
    return seen.color if seen.noun is None else look_word(seen.noun, seen.color)


def _inside(thing: SceneObject, reading: Reading) -> list[SeenObject]:
    box = thing.box
    return [
        seen
        for seen in reading.objects
        if box.x0 <= (seen.box.x0 + seen.box.x1) / 2 <= box.x1
        and box.y0 <= (seen.box.y0 + seen.box.y1) / 2 <= box.y1
    ]
