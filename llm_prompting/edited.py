"""A plan that a person edited: what is wrong with its places is mended and listed."""

from collections.abc import Mapping
from dataclasses import replace
from math import isfinite
from typing import Any

from llm_prompting.geometry import Rect
from llm_prompting.plan import (
    Box,
    PlanLimits,
    PlannedObject,
    Repair,
    RepairKind,
    ScenePlan,
    parse_plan,
)
from llm_prompting.repair import Loose, mend

MAX_LISTED = 40

_WHOLE = {"x0": 0.0, "y0": 0.0, "x1": 1.0, "y1": 1.0}


def mend_plan(
    data: object, *, aspect: float = 1.0, limits: PlanLimits | None = None, param: str = "plan"
) -> ScenePlan:
    """Check an edited plan, and mend its boxes as a language model's are mended.

    Words, types and numbers that are none are refused by path, as `parse_plan` does; boxes that
    are inverted, empty, off the picture, doubled or on top of each other are mended, too many
    objects cut, and what the prompt names and the plan lost is added. Objects with masks stay as
    they are, and where there are any nothing is added. A plan without faults comes back as it is.

    Args:
        data: Decoded JSON.
        aspect: Picture width over height.
        limits: How large the plan may be.
        param: Name of the field that holds the plan; the root of every path.

    Returns:
        The plan; its provenance lists the new repairs behind the old ones.
    """
    limits = limits or PlanLimits()
    rects, strict = _without_places(data)
    most = replace(limits, max_objects=4 * limits.max_objects)
    plan = parse_plan(strict, limits=most, param=param)
    if len(rects) == len(plan.objects) == 1 and plan.is_one_region and rects.get(0) == _ALL:
        return plan
    repairs: list[Repair] = []

    def log(kind: RepairKind, name: str, detail: str) -> None:
        repairs.append(Repair(kind=kind, object=name[:80], detail=detail))

    masked = [thing for thing in plan.objects if thing.mask is not None]
    things = [
        Loose(thing.name, thing.high, thing.low, rects[place], thing.z, thing)
        for place, thing in enumerate(plan.objects)
        if thing.mask is None
    ]
    room = replace(limits, max_objects=limits.max_objects - len(masked[: limits.max_objects]))
    mended, notes = mend(things, "" if masked else plan.prompt, aspect=aspect, limits=room, log=log)
    objects = (*masked[: limits.max_objects], *map(_planned, mended))
    listed = (*plan.provenance.repairs, *repairs)[-MAX_LISTED:]
    provenance = plan.provenance.model_copy(
        update={"repairs": listed, "notes": (*plan.provenance.notes, *notes)[:8]}
    )
    checked = plan.model_copy(update={"objects": objects, "provenance": provenance})
    limits.check(checked, param=param)
    return checked


_ALL = Rect(**_WHOLE)


def _without_places(data: object) -> tuple[dict[int, Rect], object]:
    """Take the boxes out of a plan, so that all else can be checked strictly."""
    rects: dict[int, Rect] = {}
    objects = data.get("objects") if isinstance(data, Mapping) else None
    if not isinstance(data, Mapping) or not isinstance(objects, list | tuple):
        return rects, data
    strict: list[Any] = []
    for place, thing in enumerate(objects):
        rect = _rect(thing.get("box")) if isinstance(thing, Mapping) else None
        if rect is not None:
            rects[place] = rect
            thing = {**thing, "box": _WHOLE}  # noqa: PLW2901
        strict.append(thing)
    return rects, {**data, "objects": strict}


def _rect(box: object) -> Rect | None:
    if not isinstance(box, Mapping) or box.keys() != _WHOLE.keys():
        return None
    edges = [box[name] for name in _WHOLE]
    if any(isinstance(e, bool) or not isinstance(e, int | float) for e in edges):
        return None
    # Beyond this any number means "off the picture"; so integers never overflow floats.
    edges = [max(min(edge, 1e6), -1e6) for edge in edges]
    return Rect(*map(float, edges)) if all(map(isfinite, edges)) else None


def _planned(thing: Loose) -> PlannedObject:
    box = Box(**dict(zip(Box.model_fields, thing.rect, strict=True)))
    if thing.source is None:
        return PlannedObject(name=thing.name, high=thing.high, low=thing.low, box=box, z=thing.z)
    return thing.source.model_copy(
        update={"name": thing.name, "high": thing.high, "low": thing.low, "box": box, "z": thing.z}
    )
