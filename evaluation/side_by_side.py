"""Models side by side: the same prompts and seeds, one judge, and who is how far behind."""

from collections.abc import Iterable
from dataclasses import dataclass

from evaluation.intervals import Difference, Rate, paired_difference, wilson
from evaluation.model import Judged, Painter, judge_model
from evaluation.predicates import TAGS
from pipelines.spec import GenerationSpec
from scenes.readings import Judge


@dataclass(frozen=True, kw_only=True, slots=True)
class Contender:
    """One model that is to be compared.

    Attributes:
        name: What the table calls it.
        painter: Paints.
        bare: Steps, guidance, solver and size of its pictures.
    """

    name: str
    painter: Painter
    bare: GenerationSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """How a model did.

    Attributes:
        name: Of the contender.
        right: How often it painted what was asked for, over all categories.
        by_category: The same for each of them.
        behind: How much more often the first one did, on the same prompts and seeds; None for the
            first itself.
    """

    name: str
    right: Rate
    by_category: dict[str, Rate]
    behind: Difference | None


def side_by_side(
    contenders: Iterable[Contender], judge: Judge, *, num_prompts: int
) -> list[Standing]:
    """Paint and judge every category with each model, on the same prompts and seeds.

    Args:
        contenders: Taken one by one, each when the one before it was judged, so that not all need
            be loaded at once; the first is what the others are compared with.
        judge: Reads their pictures.
        num_prompts: Prompts per category, and as many again of unseen combinations.
    """
    standings = list[Standing]()
    first: list[bool] | None = None
    for each in contenders:
        judged = judge_model(each.painter, judge, bare=each.bare, num_prompts=num_prompts)
        right = [picture.is_right for picture in judged]
        standings.append(
            Standing(
                name=each.name,
                right=wilson(sum(right), len(right)),
                by_category={tag: _rate_of(judged, tag) for tag in TAGS},
                behind=None if first is None else paired_difference(first, right),
            )
        )
        first = right if first is None else first
    return standings


def _rate_of(judged: list[Judged], tag: str) -> Rate:
    right = [each.is_right for each in judged if each.item.tag == tag]
    return wilson(sum(right), len(right))
