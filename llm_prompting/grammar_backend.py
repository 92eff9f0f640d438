"""The planner that needs no language model: offline, instant, deterministic."""

from typing import ClassVar

from llm_prompting.grammar import read
from llm_prompting.inflection import plural
from llm_prompting.layout import Placed, lay_out
from llm_prompting.phrases import Thing
from llm_prompting.plan import Box, PlanLimits, PlannedObject, Provenance, ScenePlan
from llm_prompting.reading import Reading, Relation
from llm_prompting.words import NUMBERS

_WHOLE = Box(x0=0.0, y0=0.0, x1=1.0, y1=1.0)
_NUMBER_WORDS = {number: word for word, number in reversed(NUMBERS.items())}


class GrammarBackend:
    """Plans sentences that it can take apart; says so where it cannot.

    Args:
        limits: How large its plans may be.
    """

    name: ClassVar[str] = "grammar"
    model: ClassVar[str] = ""
    template: ClassVar[str] = ""
    temperature: ClassVar[float] = 0.0

    def __init__(self, limits: PlanLimits | None = None) -> None:
        self._limits = limits or PlanLimits()

    async def plan(self, prompt: str, *, aspect: float = 1.0) -> ScenePlan:
        """Plan a prompt; the same as `plan_by_grammar`, in the form of every backend.

        Args:
            prompt: Any string.
            aspect: Picture width over height.

        Returns:
            The plan.
        """
        return plan_by_grammar(prompt, aspect=aspect, limits=self._limits)

    async def close(self) -> None:
        """Close nothing: it holds nothing open."""


def plan_by_grammar(
    prompt: str, *, aspect: float = 1.0, limits: PlanLimits | None = None
) -> ScenePlan:
    """Plan a prompt without a language model; never fails, whatever the string.

    Args:
        prompt: Any string. What the grammar cannot take apart becomes one region, the whole
            picture, and a note says so.
        aspect: Picture width over height; beyond 1:4 and 4:1 laid out as if it were that.
        limits: How large the plan may be.

    Returns:
        The plan.
    """
    limits = limits or PlanLimits()
    # A lone surrogate is a str in Python, and nothing that JSON or a tokenizer could hold.
    prompt = prompt.encode("utf-8", "replace").decode("utf-8")
    reading = read(prompt)
    if not reading.is_understood:
        reason = f"not understood at {reading.failure!r}" if reading.failure else "names nothing"
        return _one_region(prompt, reading, f"{reason}: one region", limits)
    if sum(thing.count for thing in reading.things) > limits.max_objects:
        note = f"more than {limits.max_objects} objects: one region"
        return _one_region(prompt, reading, note, limits)
    placed, notes = lay_out(reading, aspect=min(max(aspect, 0.25), 4.0))
    style = ", ".join(reading.style)
    plan = ScenePlan(
        prompt=prompt,
        content=content(reading),
        topic=_joined([_mention(thing, with_tail=False) for thing in reading.things]),
        background=", ".join(reading.background),
        objects=tuple(_planned(reading.things[box.thing], box, style, limits) for box in placed),
        details=", ".join(reading.details),
        style=style,
        negative=", ".join(reading.negatives),
        provenance=Provenance(planner="grammar", notes=tuple(notes[:8])),
    )
    return _shortened(plan, limits)


def content(reading: Reading) -> str:
    """Say in words what is to be seen and how it stands, without how it looks.

    Args:
        reading: An understood prompt.

    Returns:
        A phrase such as "two frogs above a cake".
    """
    told: set[int] = set()
    clauses: list[str] = []
    for relation in reading.relations:
        clauses.append(_clause(reading, relation))
        told |= {*relation.subjects, *relation.references}
    rest = [thing for index, thing in enumerate(reading.things) if index not in told]
    if rest:
        clauses.append(_joined([_mention(thing) for thing in rest]))
    return ", ".join(clauses)


def _clause(reading: Reading, relation: Relation) -> str:
    subjects = _joined([_mention(reading.things[index]) for index in relation.subjects])
    references = _joined([_mention(reading.things[index]) for index in relation.references])
    return f"{subjects} {_SPOKEN.get(relation.kind, relation.kind)} {references}"


_SPOKEN = {"left of": "to the left of", "right of": "to the right of"}


def _mention(thing: Thing, *, with_tail: bool = True) -> str:
    if thing.count == 1:
        return thing.high if with_tail else thing.noun
    number = _NUMBER_WORDS[thing.count]
    tail = thing.tail if with_tail else ""
    return " ".join(filter(None, (number, plural(thing.noun), tail)))


def _joined(phrases: list[str]) -> str:
    if len(phrases) < 2:
        return "".join(phrases)
    return f"{', '.join(phrases[:-1])} and {phrases[-1]}"


def _planned(thing: Thing, box: Placed, style: str, limits: PlanLimits) -> PlannedObject:
    most = limits.max_text_chars
    return PlannedObject(
        name=thing.noun[:most],
        high=thing.high[:most],
        low=", ".join(filter(None, (*thing.looks, style)))[:most],
        box=box.rect.to_box(),
        z=box.z,
    )


def _one_region(prompt: str, reading: Reading, note: str, limits: PlanLimits) -> ScenePlan:
    words = " ".join(prompt.split())[: limits.max_text_chars] or "picture"
    whole = PlannedObject(name="picture", high=words, box=_WHOLE)
    return _shortened(
        ScenePlan(
            prompt=prompt,
            content=words,
            objects=(whole,),
            negative=", ".join(reading.negatives),
            provenance=Provenance(planner="grammar", notes=(note,)),
        ),
        limits,
    )


def _shortened(plan: ScenePlan, limits: PlanLimits) -> ScenePlan:
    """Cut texts to the limits: they are copies of words that the prompt holds in full."""
    texts = {name: getattr(plan, name)[: limits.max_text_chars] for name in ScenePlan.TEXTS}
    return plan.model_copy(update=texts)
