"""Mend a planner's answer: seven repairs in a fixed order, each written down in the plan."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from llm_prompting.draft import PlanDraft
from llm_prompting.geometry import Rect, largest_gap, strips_around
from llm_prompting.grammar import read
from llm_prompting.inflection import singular
from llm_prompting.layout import lay_out
from llm_prompting.phrases import Thing
from llm_prompting.plan import (
    PlanLimits,
    PlannedObject,
    Provenance,
    Repair,
    RepairKind,
    ScenePlan,
)

UNIT = 1000
SAME_BOX_IOU = 0.7
TWIN_IOU = 0.5
HIDDEN_SHARE = 0.75
KEPT_SHARE = 0.5
MIN_AREA = 1e-4
FULL_AREA = 0.95
MIN_GAP_SIDE = 0.1
MIN_CUT_SIDE = 0.02


@dataclass(frozen=True, slots=True)
class Loose:
    """An object that is still being mended.

    Attributes:
        name: What it is.
        high: High-level phrase.
        low: Low-level phrase.
        rect: Its box, in fractions of the picture; any numbers.
        z: Order in depth; any number.
        source: The object as it was, with what no repair touches; None for one that is new.
    """

    name: str
    high: str
    low: str
    rect: Rect
    z: int
    source: PlannedObject | None = None


Log = Callable[[RepairKind, str, str], None]


def repair(
    draft: PlanDraft, prompt: str, *, aspect: float = 1.0, limits: PlanLimits | None = None
) -> ScenePlan:
    """Turn a draft into a valid plan.

    In this order: clamp boxes and texts, drop what is empty or covers everything, swap inverted
    edges, merge duplicates, resolve overlaps, cap the count, add what the prompt names and the
    draft lost. Repairing the result again changes nothing.

    Args:
        draft: What the language model wrote.
        prompt: The sentence that was planned.
        aspect: Picture width over height.
        limits: How large the plan may be.

    Returns:
        The plan; its provenance lists every repair. It may hold no objects, if the draft held
        none and the grammar finds none in the prompt.
    """
    limits = limits or PlanLimits()
    repairs: list[Repair] = []

    def log(kind: RepairKind, name: str, detail: str) -> None:
        repairs.append(Repair(kind=kind, object=name[:80], detail=detail))

    things = [
        Loose(thing.name, thing.high, thing.low, _fractions(thing.box.model_dump()), thing.z)
        for thing in draft.objects
    ]
    texts = {name: getattr(draft, name) for name in ScenePlan.TEXTS}
    texts = {name: _clamp_text(name, text, limits, log) for name, text in texts.items()}
    things, notes = mend(things, prompt, aspect=aspect, limits=limits, log=log)
    depth = {z: rank for rank, z in enumerate(sorted({thing.z for thing in things}))}
    kept = tuple(
        PlannedObject(
            name=thing.name,
            high=thing.high,
            low=thing.low,
            box=thing.rect.to_box(),
            z=depth[thing.z],
        )
        for thing in things
    )
    # A thousand broken objects need not be listed one by one.
    listed = repairs[:40]
    if len(repairs) > len(listed):
        notes.append(f"{len(repairs) - len(listed)} more repairs")
    provenance = Provenance(repairs=tuple(listed), notes=tuple(notes[:8]))
    return ScenePlan(prompt=prompt, objects=kept, provenance=provenance, **texts)


def mend(
    things: list[Loose], prompt: str, *, aspect: float, limits: PlanLimits, log: Log
) -> tuple[list[Loose], list[str]]:
    """Apply the seven repairs to a list of objects.

    Args:
        things: The objects, most important first.
        prompt: The sentence that was planned.
        aspect: Picture width over height.
        limits: How large the plan may be.
        log: Told of every repair.

    Returns:
        The mended objects, and notes on what could not be mended.
    """
    things = [_clamp(thing, limits, log) for thing in things]
    things = _drop(things, log)
    things = [_swap(thing, log) for thing in things]
    # The steps behind compare each with each: a flood is cut to a bounded number first.
    things = _cap(things, 4 * limits.max_objects, log)
    things = _merge(things, log)
    things = _part(things, log)
    things = _order(things, log)
    things = _cap(things, limits.max_objects, log)
    return _add_lost(things, prompt, aspect=aspect, limits=limits, log=log)


def _fractions(box: dict[str, int]) -> Rect:
    # Beyond this any number means "off the picture"; so floats never overflow.
    edges = (max(min(edge, 10**9), -(10**9)) / UNIT for edge in box.values())
    return Rect(*edges)


def _clamp(thing: Loose, limits: PlanLimits, log: Log) -> Loose:
    rect = Rect(*(min(max(edge, 0.0), 1.0) for edge in thing.rect))
    if rect != thing.rect:
        log("clamp", thing.name, "box reached outside the picture")
    name, high = thing.name.strip(), thing.high.strip()
    name, high = name or high, high or name
    most = limits.max_text_chars
    return replace(
        thing,
        name=_clamp_text(name, name, limits, log)[:most],
        high=_clamp_text(name, high, limits, log),
        low=_clamp_text(name, thing.low.strip(), limits, log),
        rect=rect,
    )


def _clamp_text(name: str, text: str, limits: PlanLimits, log: Log) -> str:
    text = text.encode("utf-8", "replace").decode("utf-8")
    if len(text) <= limits.max_text_chars:
        return text
    log("clamp", name, f"text of {len(text)} characters cut to {limits.max_text_chars}")
    return text[: limits.max_text_chars]


def _drop(things: list[Loose], log: Log) -> list[Loose]:
    kept = []
    for thing in things:
        area = abs(thing.rect.width) * abs(thing.rect.height)
        if not thing.name:
            log("drop", "", "object without a name")
        elif area < MIN_AREA:
            log("drop", thing.name, "box is empty")
        elif area >= FULL_AREA:
            log("drop", thing.name, "box covers the whole picture")
        else:
            kept.append(thing)
    return kept


def _swap(thing: Loose, log: Log) -> Loose:
    x0, y0, x1, y1 = thing.rect
    if x0 <= x1 and y0 <= y1:
        return thing
    log("swap", thing.name, "box was inverted")
    return replace(thing, rect=Rect(min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)))


def _merge(things: list[Loose], log: Log) -> list[Loose]:
    kept: list[Loose] = []
    for thing in things:
        twin = any(
            _key(thing.name) == _key(other.name) and thing.rect.iou(other.rect) > SAME_BOX_IOU
            for other in kept
        )
        if twin:
            log("merge", thing.name, "listed twice at one place")
        else:
            kept.append(thing)
    return kept


def _part(things: list[Loose], log: Log) -> list[Loose]:
    """Make overlapping neighbours disjoint, where that leaves at least half of each."""
    things = list(things)
    changed = True
    # Boxes only shrink, and a parted pair stays apart: each pair is parted once at most.
    while changed:
        changed = False
        for one in range(len(things)):
            for other in range(one + 1, len(things)):
                back, front = _by_area(things, one, other)
                cut = _cut(things[back], things[front])
                # Slivers are left as they are: no words would be heard in them.
                if cut is not None and all(_is_wide(rect) for rect in cut):
                    things[back] = replace(things[back], rect=cut[0])
                    things[front] = replace(things[front], rect=cut[1])
                    log("overlap", things[back].name, f"parted from {things[front].name}")
                    changed = True
    return things


def _cut(back: Loose, front: Loose) -> tuple[Rect, Rect] | None:
    common = back.rect.intersection(front.rect).area
    if common <= 1e-9:
        return None
    if back.rect.iou(front.rect) > TWIN_IOU:
        return _halves(back.rect, front.rect)
    # What lies inside something belongs to it, as a hat to a man: depth tells them apart.
    if back.z != front.z or common > HIDDEN_SHARE * front.rect.area:
        return None
    best = max(strips_around(back.rect, front.rect), key=lambda strip: strip.area)
    return (best, front.rect) if best.area >= KEPT_SHARE * back.rect.area else None


def _is_wide(rect: Rect) -> bool:
    return min(rect.width, rect.height) >= MIN_CUT_SIDE


def _halves(back: Rect, front: Rect) -> tuple[Rect, Rect]:
    """Share the place of two boxes that stand on each other, along the longer side."""
    whole = Rect(
        min(back.x0, front.x0), min(back.y0, front.y0), max(back.x1, front.x1),
        max(back.y1, front.y1),
    )  # fmt: skip
    x, y = whole.center
    if whole.width >= whole.height:
        parts = (whole._replace(x1=x), whole._replace(x0=x))
        back_first = (back.center[0], 0) <= (front.center[0], 1)
    else:
        parts = (whole._replace(y1=y), whole._replace(y0=y))
        back_first = (back.center[1], 0) <= (front.center[1], 1)
    return parts if back_first else (parts[1], parts[0])


def _order(things: list[Loose], log: Log) -> list[Loose]:
    """Where boxes still overlap, bring the smaller one to the front, so that both are seen."""
    things = list(things)
    by_area = sorted(range(len(things)), key=lambda index: (-things[index].rect.area, index))
    for at, small in enumerate(by_area):
        for large in by_area[:at]:
            if _is_hidden(things[small], things[large]):
                top = max(thing.z for thing in things) + 1
                things[small] = replace(things[small], z=top)
                log("overlap", things[small].name, f"brought in front of {things[large].name}")
    return things


def _is_hidden(small: Loose, large: Loose) -> bool:
    common = small.rect.intersection(large.rect).area
    if common <= 1e-9 or small.z > large.z:
        return False
    return small.z == large.z or common > HIDDEN_SHARE * small.rect.area


def _by_area(things: list[Loose], one: int, other: int) -> tuple[int, int]:
    larger = things[one].rect.area >= things[other].rect.area
    return (one, other) if larger else (other, one)


def _cap(things: list[Loose], most: int, log: Log) -> list[Loose]:
    for thing in things[most:]:
        log("cap", thing.name, f"more than {most} objects")
    return things[:most]


def _add_lost(
    things: list[Loose], prompt: str, *, aspect: float, limits: PlanLimits, log: Log
) -> tuple[list[Loose], list[str]]:
    reading = read(prompt)
    notes: list[str] = []
    if not reading.is_understood:
        return things, notes
    things = list(things)
    style = ", ".join(reading.style)
    wanted = sum(thing.count for thing in reading.things)
    # With nothing to keep clear of, the grammar's own places are the best ones.
    places = lay_out(reading, aspect=aspect)[0] if wanted <= limits.max_objects else []
    found = [_key(f"{thing.name} {thing.high}") for thing in things]
    for index, thing in enumerate(reading.things):
        own = [box.rect for box in places if box.thing == index]
        for number in range(_missing(thing, found)):
            rect = _room(things, own[number] if number < len(own) else None)
            if rect is None or len(things) >= limits.max_objects:
                notes.append(f"no room for {thing.noun}, which the prompt names")
                break
            low = ", ".join(filter(None, (*thing.looks, style)))
            things.append(Loose(thing.noun, thing.high, low, rect, _lowest(things)))
            log("add", thing.noun, "named in the prompt, missing in the plan")
    return things, notes


def _missing(thing: Thing, found: list[frozenset[str]]) -> int:
    """Count how many the plan lacks, and take those it has out of what others may claim."""
    head = singular(thing.noun.split()[-1].lower())
    missing = 0
    for _ in range(thing.count):
        owner = next((words for words in found if head in words), None)
        if owner is None:
            missing += 1
        else:
            found.remove(owner)
    return missing


def _lowest(things: list[Loose]) -> int:
    return min((thing.z for thing in things), default=0)


def _room(things: list[Loose], own: Rect | None) -> Rect | None:
    taken = [thing.rect for thing in things]
    if own is not None:
        own = Rect(*(round(edge, 4) for edge in own))
        if all(own.intersection(rect).area <= 1e-9 for rect in taken):
            return own
    gap = largest_gap(taken)
    if min(gap.width, gap.height) < MIN_GAP_SIDE:
        return None
    x, y = gap.center
    half_width, half_height = min(gap.width, 0.5) * 0.45, min(gap.height, 0.5) * 0.45
    return Rect(x - half_width, y - half_height, x + half_width, y + half_height)


def _key(text: str) -> frozenset[str]:
    words = "".join(char if char.isalnum() else " " for char in text.lower()).split()
    return frozenset(singular(word) for word in words)
