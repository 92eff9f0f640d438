"""Is the process alive, is it warm, and how is it doing?"""

from fastapi import APIRouter, Response

from app.deps import Service, ServiceDep
from app.errors import NotReadyError
from app.schemas.images import ErrorEnvelope, Health

PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"

router = APIRouter(tags=["health"])


@router.get("/livez", summary="Is the process alive?")
async def livez() -> Health:
    """Answer as long as the event loop turns; says nothing about the model."""
    return Health(status="alive")


@router.get(
    "/readyz",
    summary="Is the model warm?",
    responses={503: {"model": ErrorEnvelope, "description": "Warming up or broken: see message."}},
)
async def readyz(service: ServiceDep) -> Health:
    """Turn green once a real picture was painted through the whole request path."""
    _check_ready(service)
    return Health(status="ready")


@router.get(
    "/metrics",
    summary="Figures for Prometheus",
    response_class=Response,
    responses={200: {"description": "Prometheus' text format.", "content": {PROMETHEUS: {}}}},
)
async def metrics(service: ServiceDep) -> Response:
    """Answer with counters, gauges and histograms; no prompt, key or id is among them."""
    return Response(service.metrics.render(), media_type=PROMETHEUS)


def _check_ready(service: Service) -> None:
    if not service.readiness.is_ready:
        backlog_s = service.host.state().backlog_s
        raise NotReadyError(service.readiness.reason, retry_after_s=backlog_s or 1.0)
