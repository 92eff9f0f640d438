"""A model, judged: its pictures of known prompts, read by the judge, category by category."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from PIL import Image, ImageDraw

from core.progress import progress
from evaluation.intervals import Rate, wilson
from evaluation.predicates import TAGS, Item, satisfies
from evaluation.prompts_from_scenes import TAGS_WITH_UNSEEN, items
from pipelines.spec import GenerationResult, GenerationSpec
from scenes.readings import Judge, Reading


@runtime_checkable
class Painter(Protocol):
    """Whatever paints pictures from specifications."""

    def generate(self, specs: Sequence[GenerationSpec]) -> list[GenerationResult]:
        """Return one picture per specification, in order.

        Args:
            specs: What to paint.
        """


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """One picture with what was asked and what was read.

    Attributes:
        item: What was asked for.
        image: What was painted.
        reading: What the judge saw.
        is_right: Whether one satisfies the other.
    """

    item: Item
    image: Image.Image
    reading: Reading
    is_right: bool


def judge_model(
    painter: Painter,
    judge: Judge,
    *,
    bare: GenerationSpec,
    num_prompts: int,
    place: Callable[[GenerationSpec], GenerationSpec] | None = None,
) -> list[Judged]:
    """Paint and judge every category, seen and unseen combinations.

    Seed and prompt go together, so two models are compared on the same prompts and noise.

    Args:
        painter: The model.
        judge: Reads its pictures.
        bare: Steps, guidance, solver and size of every picture.
        num_prompts: Prompts per category, and as many again of unseen combinations.
        place: Puts regions into a picture; None has none.
    """

    def paint(item: Item, seed: int) -> Image.Image:
        spec = replace(bare, prompt=item.prompt, seed=seed)
        return painter.generate([spec if place is None else place(spec)])[0].image

    return judge_pictures(paint, judge, num_prompts=num_prompts)


def judge_pictures(
    paint: Callable[[Item, int], Image.Image], judge: Judge, *, num_prompts: int
) -> list[Judged]:
    """Have every category painted, seen and unseen combinations, and judge it.

    Args:
        paint: From what is asked and a seed to a picture.
        judge: Reads the pictures.
        num_prompts: Prompts per category, and as many again of unseen combinations.
    """
    asked = [
        item
        for tag in TAGS
        for is_unseen in ((False, True) if tag in TAGS_WITH_UNSEEN else (False,))
        for item in items(tag, num_prompts, is_unseen=is_unseen)
    ]
    judged = []
    with progress("Painting and judging", total=len(asked), unit="pictures") as report:
        for seed, item in enumerate(asked):
            image = paint(item, seed)
            reading = judge.read(np.asarray(image))
            is_right = satisfies(reading, item)
            judged.append(Judged(item=item, image=image, reading=reading, is_right=is_right))
            report.advance()
    return judged


def rates(judged: Sequence[Judged]) -> dict[str, Rate]:
    """Return the rate of each category: over all, and over seen and unseen combinations apart.

    Args:
        judged: Of any categories.
    """
    table = {}
    for tag in TAGS:
        of_tag = [each for each in judged if each.item.tag == tag]
        parts = {
            tag: of_tag,
            f"{tag}_seen": [each for each in of_tag if not each.item.is_unseen],
            f"{tag}_unseen": [each for each in of_tag if each.item.is_unseen],
        }
        for name, part in parts.items():
            table[name] = wilson(sum(each.is_right for each in part), len(part))
    return table


def failure_sheet(judged: Sequence[Judged], path: Path, *, columns: int = 6) -> None:
    """Write pictures that failed, each over what was asked and what was read.

    Args:
        judged: Failures are taken evenly over the categories, 36 at most.
        path: PNG file to write.
        columns: Pictures in a row.
    """
    failed = [each for each in judged if not each.is_right]
    failed = failed[:: max(1, len(failed) // 36)][:36]
    cell_width, cell_height = 210, 176
    rows = max(1, -(-len(failed) // columns))
    sheet = Image.new("RGB", (columns * cell_width, rows * cell_height), "white")
    draw = ImageDraw.Draw(sheet)
    for index, each in enumerate(failed):
        x, y = index % columns * cell_width, index // columns * cell_height
        sheet.paste(each.image, (x + 8, y + 6))
        draw.text((x + 8, y + 138), each.item.prompt[:36], fill="black")
        draw.text((x + 8, y + 154), f"read: {_words(each.reading)}"[:36], fill="#b00020")
    sheet.save(path)


def _words(reading: Reading) -> str:
    names = [f"{thing.color or ''} {thing.noun or 'unsure'}".strip() for thing in reading.objects]
    return ", ".join(names) or "nothing"
