"""Is the process alive, and is it warm?"""

from fastapi import APIRouter

from app.deps import Service, ServiceDep
from app.errors import NotReadyError
from app.schemas import ErrorEnvelope, Health

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


def _check_ready(service: Service) -> None:
    if not service.readiness.is_ready:
        raise NotReadyError(
            service.readiness.reason, retry_after_s=service.worker.backlog_s() or 1.0
        )
