"""The part of a request that is about places: plan, regions, and how they act."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from core.errors import InputError
from llm_prompting.plan import PlanLimits, parse_plan
from pipelines.depth import PRESETS
from pipelines.from_plan import with_plan
from pipelines.region_defaults import RegionDefaults, parse_depth
from pipelines.region_spec import MAX_REGIONS, MAX_TEXT_CHARS, Region
from pipelines.spec import GenerationSpec
from pipelines.spec_record import decode_mask

NO_PLANNER = "none"
"""What `planner` says to have the prompt painted as it is."""

FIELD_OF_SPEC: Mapping[str, str] = {"base_share": "base_ratio"}
"""Our request's names of the specification's fields, where they differ."""

_Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
_Text = Annotated[str, Field(max_length=MAX_TEXT_CHARS)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class BoxBody(_Body):
    """A rectangle as fractions of the picture; (0, 0) is the top left corner."""

    x0: _Share = Field(description="Left edge.")
    y0: _Share = Field(description="Top edge.")
    x1: _Share = Field(description="Right edge, right of x0.")
    y1: _Share = Field(description="Bottom edge, below y0.")


class RegionBody(_Body):
    """A part of the picture and the words that only it hears."""

    high: _Text = Field(min_length=1, description='What it is ("a cat").')
    low: _Text = Field("", description='How it looks ("orange, fluffy").')
    box: BoxBody | None = Field(None, description="Where it is; a region has a box or a mask.")
    mask: str | None = Field(
        None,
        max_length=PlanLimits().max_mask_chars,
        description="Any shape: a PNG of the picture's size in base64, white where the region is.",
    )
    z: int = Field(0, ge=-1000, le=1000, description="Order in depth; the greater is in front.")
    weight: float = Field(
        1.0, gt=0, le=10, allow_inf_nan=False, description="How loudly it speaks against others."
    )
    feather: float = Field(
        0.0,
        ge=0,
        le=0.5,
        allow_inf_nan=False,
        description="Softness of its edge, as a fraction of the picture's shorter edge.",
    )
    negative: _Text = Field("", description="What this region keeps away from.")


class RegionalFields(BaseModel):
    """What a request may say about places; all of it travels through `extra_body`."""

    plan: dict[str, Any] | None = Field(
        None,
        description="A scene plan as `POST /v1/plans` returns it, edited or not. It is checked, "
        "never repaired.",
    )
    planner: str | None = Field(
        None,
        max_length=40,
        description='Who turns the prompt into a plan: "grammar", "openai" where the server has a '
        'language model, or "none"; by default the server\'s setting.',
    )
    regions: list[RegionBody] | None = Field(
        None, max_length=MAX_REGIONS, description="Regions without a plan around them."
    )
    depth: Any = Field(
        None,
        description="Which words each layer hears, by default the model's: a preset, or one "
        "object per cross-attention layer.",
        json_schema_extra={
            "anyOf": [
                {"type": "null"},
                {"type": "string", "enum": list(PRESETS)},
                {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {
                            "level": {"enum": ["high", "low", "both"]},
                            "scope": {"enum": ["regional", "global", "both"]},
                        },
                    },
                },
            ]
        },
    )
    region_window: list[_Share] | None = Field(
        None,
        min_length=2,
        max_length=2,
        description="Shares of the steps in which regions act, from and until before; by default "
        "the model's.",
    )
    base_ratio: _Share | None = Field(
        None, description="How much of a region still hears the prompt; by default the model's."
    )
    ground: _Text | None = Field(
        None,
        description='What is heard where no region is ("on a sandy beach"); by default the plan\'s '
        "background, else the prompt.",
    )


def with_regions(
    spec: GenerationSpec, body: RegionalFields, defaults: RegionDefaults
) -> GenerationSpec:
    """Add what a request says about places to its picture.

    Args:
        spec: The picture without regions.
        body: The request; its prompt was planned if it is to be.
        defaults: How regions act on this model where the request does not say it.

    Returns:
        The picture with regions; the same one if the request names none.

    Raises:
        InputError: If fields contradict each other or cannot be read; `param` is the path.
    """
    if body.plan is not None and body.regions is not None:
        raise InputError("Send either plan or regions: a plan holds regions.", param="regions")
    if body.plan is None and body.regions is None:
        _refuse_idle(body)
        return spec
    depth = defaults.depth if body.depth is None else parse_depth(body.depth)
    window = defaults.window if body.region_window is None else tuple(body.region_window)
    placed = replace(
        spec,
        depth=depth,
        region_window=(window[0], window[1]),
        base_share=defaults.base_share if body.base_ratio is None else body.base_ratio,
    )
    if body.plan is not None:
        planned = with_plan(placed, parse_plan(body.plan))
        return planned if body.ground is None else replace(planned, ground=body.ground)
    size = (spec.width, spec.height)
    return replace(
        placed,
        ground=body.ground or "",
        regions=tuple(
            _region(region, size, f"regions[{place}]")
            for place, region in enumerate(body.regions or ())
        ),
    )


def texts_of(spec: GenerationSpec) -> tuple[str, ...]:
    """Return what a picture's text encoder reads.

    Args:
        spec: The picture.
    """
    whole = (spec.prompt, spec.negative_prompt, spec.ground)
    own = (text for region in spec.regions for text in (region.words("both"), region.negative))
    return tuple(filter(None, (*whole, *own)))


def _refuse_idle(body: RegionalFields) -> None:
    for name in ("depth", "region_window", "base_ratio", "ground"):
        if getattr(body, name) is not None and body.planner in {None, NO_PLANNER}:
            raise InputError(
                f"{name} acts on regions alone: send plan, regions or planner with it.", param=name
            )


def _region(body: RegionBody, size: tuple[int, int], path: str) -> Region:
    box = body.box
    return Region(
        high=body.high,
        low=body.low,
        box=None if box is None else (box.x0, box.y0, box.x1, box.y1),
        mask=None if body.mask is None else decode_mask(body.mask, param=f"{path}.mask", size=size),
        z=body.z,
        weight=body.weight,
        feather=body.feather,
        negative=body.negative,
    )
