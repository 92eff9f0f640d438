"""From a scene plan to a specification: which words each part of the picture hears."""

from collections.abc import Callable
from dataclasses import replace

from core.errors import InputError
from llm_prompting.plan import PlannedObject, ScenePlan
from pipelines.region_spec import Region
from pipelines.spec import GenerationSpec
from pipelines.spec_record import decode_mask


def with_plan(spec: GenerationSpec, plan: ScenePlan, *, param: str = "plan") -> GenerationSpec:
    """Let a picture be painted by a plan.

    Every object becomes a region, and the background (or style and details alone) what is heard
    between them. The whole picture hears the prompt, at the high level content and background, at
    the low level style and details.
    A plan of one region that covers the whole picture says nothing about places: it changes no
    word. What the plan keeps away from is taken where the specification names nothing and guidance
    is on.

    Args:
        spec: The picture without regions.
        plan: A checked plan.
        param: Name of the field that holds the plan; the root of every path in errors, which
            are raised as `decode_mask` says.

    Returns:
        The picture with regions, the plan inside.
    """
    # Whether a plan was remembered says nothing about the picture: equal pictures, equal files.
    provenance = plan.provenance.model_copy(update={"cached": False})
    plan = plan.model_copy(update={"provenance": provenance})
    if spec.guidance_scale > 1.0 and not spec.negative_prompt.strip():
        spec = replace(spec, negative_prompt=plan.negative)
    if plan.is_one_region:
        return replace(spec, plan=plan.to_json())
    look = ", ".join(filter(None, (plan.style, plan.details)))
    regions = tuple(
        _region(thing, (spec.width, spec.height), f"{param}.objects[{place}]")
        for place, thing in enumerate(plan.objects)
    )
    return replace(
        spec,
        regions=regions,
        prompt_high=", ".join(filter(None, (plan.content or plan.topic, plan.background))),
        prompt_low=look,
        ground=plan.background or look,
        plan=plan.to_json(),
    )


def check_planned(
    check: Callable[[GenerationSpec], None], spec: GenerationSpec, *, param: str = "plan"
) -> None:
    """Check a picture, and name the plan's field where a region's is at fault.

    Args:
        check: Refuses what the model cannot paint.
        spec: A picture, with a plan or without.
        param: Name of the field that holds the plan.

    Raises:
        InputError: As `check` raises it, with the path in the plan.
    """
    try:
        check(spec)
    except InputError as error:
        at_fault = error.param or ""
        ours = {
            "prompt_high": f"{param}.content",
            "prompt_low": f"{param}.style",
            "ground": f"{param}.background",
        }
        named = ours.get(at_fault, at_fault.replace("regions[", f"{param}.objects[", 1))
        if not spec.plan or named == at_fault:
            raise
        message = error.message.replace("regions[", f"{param}.objects[", 1)
        raise InputError(message, param=named) from error


def plan_notes(spec: GenerationSpec) -> tuple[str, ...]:
    """Return what became of a picture's plan otherwise than asked, in words.

    Args:
        spec: A picture that was made by `with_plan`.
    """
    if not spec.plan:
        return ()
    plan = ScenePlan.model_validate_json(spec.plan)
    notes = []
    if plan.provenance.fallback:
        notes.append(f"planner: {plan.provenance.fallback}; the grammar planned instead.")
    if plan.negative and spec.guidance_scale == 1.0:
        notes.append(f"plan.negative {plan.negative!r} has no effect at guidance 1.")
    return tuple(notes)


def revised_prompt(spec: GenerationSpec) -> str | None:
    """Return in one sentence what a plan had painted; None where it changed no word.

    Args:
        spec: A picture that was made by `with_plan`, or has no plan.
    """
    if not spec.plan or not spec.regions:
        return None
    plan = ScenePlan.model_validate_json(spec.plan)
    own = [region.words("both") for region in spec.regions]
    whole = (plan.content, plan.background, *own, plan.style, plan.details)
    return ", ".join(filter(None, whole))


def _region(thing: PlannedObject, size: tuple[int, int], path: str) -> Region:
    box = thing.box
    return Region(
        high=thing.high,
        low=thing.low,
        box=None if box is None else (box.x0, box.y0, box.x1, box.y1),
        mask=None
        if thing.mask is None
        else decode_mask(thing.mask, param=f"{path}.mask", size=size),
        z=thing.z,
        weight=thing.weight,
        negative=thing.negative,
    )
