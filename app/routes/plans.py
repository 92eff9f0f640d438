"""From a sentence to a scene plan, before anything is painted."""

import re
from typing import Any

import structlog
from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from app.deps import ServiceDep, require_json
from app.images.planning import aspect_of
from app.schemas.images import PROMPT_EXAMPLE, ErrorEnvelope
from core.errors import InputError
from llm_prompting.edited import mend_plan
from llm_prompting.plan import PlanLimits, ScenePlan

router = APIRouter(prefix="/v1", tags=["plans"])
log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


_SIZE = re.compile(r"auto|[1-9]\d{0,4}x[1-9]\d{0,4}")


class PlanRequest(BaseModel):
    """Body of `POST /v1/plans`: a prompt, or a plan that was edited."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        json_schema_extra={"examples": [{"prompt": PROMPT_EXAMPLE, "size": "128x128"}]},
    )

    prompt: str | None = Field(None, max_length=32_000, description="What to plan, in words.")
    plan: dict[str, Any] | None = Field(
        None,
        description="An edited plan: its words are checked, its boxes mended, each repair listed.",
    )
    planner: str | None = Field(
        None,
        max_length=40,
        description='"grammar", or "openai" where the server has a language model; by default the '
        "server's.",
    )
    size: str | None = Field(
        None,
        max_length=20,
        description='Shape of the picture as "1024x768"; by default, and with "auto", square.',
    )


@router.post(
    "/plans",
    summary="Plan a picture, or check an edited plan",
    dependencies=[Depends(require_json)],
    response_model_exclude_none=True,
    responses={400: {"model": ErrorEnvelope, "description": "A field is wrong; `param` names it."}},
)
async def make_plan(body: PlanRequest, service: ServiceDep) -> ScenePlan:
    """Answer with a plan that may be edited and sent back, here or with a picture.

    A planner that fails does not fail the request: the grammar plans instead, and
    `provenance.fallback` says why.
    """
    _check(body)
    aspect = aspect_of(body.size)
    if body.plan is not None:
        limits = PlanLimits(max_prompt_chars=service.settings.max_prompt_chars)
        return mend_plan(body.plan, aspect=aspect, limits=limits)
    plan = await service.planner.plan(body.prompt or "", aspect=aspect, planner=body.planner)
    origin = plan.provenance
    if origin.fallback:
        service.metrics.count_planner_fallback()
    log.info(
        "plan",
        planner=origin.planner,
        num_objects=len(plan.objects),
        num_repairs=len(origin.repairs),
        cached=origin.cached,
        fallback=origin.fallback,
    )
    return plan


def _check(body: PlanRequest) -> None:
    if (body.prompt is None) == (body.plan is None):
        raise InputError("Send either prompt or plan.", param="prompt")
    if body.size is not None and not _SIZE.fullmatch(body.size):
        raise InputError(
            f"size is {body.size!r}: write it as 1024x768, or leave it out for a square.",
            param="size",
        )
    if body.plan is not None and body.planner is not None:
        raise InputError("A plan is checked, not planned: leave planner out.", param="planner")
