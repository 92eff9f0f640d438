"""What the planner does to a request for pictures."""

from app.deps import Service
from app.images.planning import aspect_of
from app.schemas.images import ImageRequest
from app.schemas.regions import NO_PLANNER
from core.errors import InputError


async def planned(body: ImageRequest, service: Service) -> ImageRequest:
    """Plan a request's prompt, if the request or the server wants it planned.

    Args:
        body: The request.
        service: Who serves it.

    Returns:
        The request with a plan in it; the same one if nothing is to be planned.

    Raises:
        InputError: If the request names a planner beside its own plan or regions. What else is
            wrong with name or prompt is raised as `Planner.plan` says.
    """
    has_places = body.plan is not None or body.regions is not None
    if has_places and body.planner not in {None, NO_PLANNER}:
        raise InputError(
            "planner makes a plan, and this request brings its own: leave one of them out.",
            param="planner",
        )
    name = service.settings.planner if body.planner is None else body.planner
    if has_places or name == NO_PLANNER:
        return body
    plan = await service.planner.plan(body.prompt, aspect=aspect_of(body.size), planner=name)
    if plan.provenance.fallback:
        service.metrics.count_planner_fallback()
    return body.model_copy(update={"plan": plan.model_dump(mode="json", exclude_none=True)})
