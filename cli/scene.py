"""Where things stand in a picture that the command paints: from a plan, or planned first."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import InputError, UnknownNameError

if TYPE_CHECKING:
    from llm_prompting.plan import ScenePlan
    from pipelines.model_info import ModelInfo
    from pipelines.spec import GenerationSpec

NO_PLANNER = "none"
PLANNERS = ("grammar", "openai")


def read_scene(prompt: str, *, plan: Path | None, planner: str, size: str) -> "ScenePlan | None":
    """Read a plan from a file, or make one.

    Args:
        prompt: What to paint.
        plan: A JSON file, or a PNG of ours that holds a plan.
        planner: Who plans the prompt; "none" for nobody.
        size: Size of the picture, for its shape.

    Returns:
        The plan; None if none is wanted.

    Raises:
        InputError: If both are named, or the file cannot be read. What is wrong with the plan is
            raised as `parse_plan` says.
    """
    if plan is None:
        return None if planner == NO_PLANNER else ask_planner(prompt, planner=planner, size=size)
    if planner != NO_PLANNER:
        raise InputError("Give either --plan or --planner.", param="planner")
    from llm_prompting.plan import parse_plan

    if not plan.is_file():
        raise InputError(f"There is no file {plan}: give a plan as JSON, or a PNG.", param="plan")
    content = plan.read_bytes()
    if content.startswith(b"\x89PNG"):
        from pipelines.png import read_png_spec

        content = read_png_spec(content).spec.plan.encode()
        if not content:
            raise InputError(f"{plan} was painted without a plan.", param="plan")
    try:
        data = json.loads(content)
    except ValueError as error:
        raise InputError(f"{plan} is not JSON: {error}.", param="plan") from error
    return parse_plan(data)


def ask_planner(
    prompt: str, *, planner: str, size: str = "auto", aspect: float | None = None, **llm: object
) -> "ScenePlan":
    """Plan a prompt.

    Args:
        prompt: The sentence.
        planner: "grammar" or "openai".
        size: Size of the picture; "auto" is square.
        aspect: Width over height; None takes it from the size.
        llm: Settings of the language model that win over the environment: `llm_model`,
            `llm_url`, `llm_key`, `llm_timeout_s`.

    Returns:
        The plan; a planner that cannot be set up is raised as `make_planner` says.

    Raises:
        UnknownNameError: If there is no such planner.
    """
    import asyncio

    from app.images.planning import aspect_of, make_planner
    from app.settings import read_settings

    if planner not in PLANNERS:
        raise UnknownNameError("planner", planner, PLANNERS, param="planner")
    settings = read_settings(planner=planner if planner == "openai" else None, **llm)
    shape = aspect_of(size) if aspect is None else aspect

    async def ask() -> "ScenePlan":
        asked = make_planner(settings)
        try:
            return await asked.plan(prompt, aspect=shape, planner=planner)
        finally:
            await asked.close()

    return asyncio.run(ask())


def place(
    spec: "GenerationSpec",
    scene: "ScenePlan | None",
    info: "ModelInfo",
    *,
    depth: str | None,
    window: tuple[float, float] | None,
    base_ratio: float | None,
) -> "GenerationSpec":
    """Put a plan's regions into a picture.

    Args:
        spec: The picture without regions.
        scene: The plan; None leaves the picture as it is.
        info: The model, which says how regions act where the command does not.
        depth: A preset, or a JSON list of rules.
        window: Shares of the steps in which regions act.
        base_ratio: How much of a region still hears the prompt.

    Returns:
        The picture as it will be painted.

    Raises:
        InputError: If regions are tuned and there are none, or the depth map cannot be read.
    """
    from dataclasses import replace

    from pipelines.from_plan import with_plan
    from pipelines.region_defaults import parse_depth

    tuned = {"depth": depth, "region_window": window, "base_ratio": base_ratio}
    if scene is None:
        for name, value in tuned.items():
            if value is not None:
                flag = name.replace("_", "-")
                raise InputError(
                    f"--{flag} acts on regions alone: give --plan or --planner.", param=name
                )
        return spec
    usual = info.region_defaults
    try:
        rules = json.loads(depth) if depth and depth.lstrip().startswith("[") else depth
    except ValueError as error:
        raise InputError(f"--depth is no JSON list: {error}.", param="depth") from error
    placed = replace(
        spec,
        depth=usual.depth if rules is None else parse_depth(rules),
        region_window=window or usual.window,
        base_share=usual.base_share if base_ratio is None else base_ratio,
    )
    return with_plan(placed, scene)
