"""What operators change while the service runs; every route needs the key of an operator."""

from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from app.deps import Service, ServiceDep, require_admin, require_json
from app.schemas.images import ErrorEnvelope

router = APIRouter(prefix="/admin/models", tags=["admin"], dependencies=[Depends(require_admin)])

_Name = Annotated[str, Field(min_length=1, max_length=120)]

_ERRORS = {
    400: "No such release or variant, or one of another model.",
    401: "No API key, or none that is accepted.",
    403: "The key is none of an operator.",
    500: "The release is damaged or does not paint; what was served before is served on.",
    503: "Another change has not ended.",
}


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Activation(_Body):
    """Body of `POST /admin/models/activate`."""

    release: _Name = Field(description="Name of a release, as `fewstroke models publish` told it.")


class Rollback(_Body):
    """Body of `POST /admin/models/rollback`."""

    variant: _Name = Field(description="A served variant.")


class ServedVariant(BaseModel):
    """One variant as it is served now."""

    revision: str = Field(description="Content hash of its weights and configuration.")
    release: str | None = Field(description="Its release; null for what the settings name.")
    can_roll_back: bool = Field(description="Whether what was served before is still held.")


class Deployment(BaseModel):
    """What is served, and what could be."""

    served: dict[str, ServedVariant] = Field(description="The variants, the default first.")
    releases: list[str] = Field(description="All releases, the oldest first.")


@router.get("", summary="Show what is served and what could be")
def show_deployment(service: ServiceDep) -> Deployment:
    """Show each served variant with its release, and every release on this machine."""
    return _deployment(service)


@router.post(
    "/activate",
    summary="Serve a release",
    dependencies=[Depends(require_json)],
    responses={
        status: {"model": ErrorEnvelope, "description": description}
        for status, description in _ERRORS.items()
    },
)
async def activate(body: Activation, service: ServiceDep) -> Deployment:
    """Check a release, try it on a few pictures, and swap it in between two steps.

    Requests that were accepted before are painted to their end by the old weights. If anything is
    wrong with the release, nothing changes.
    """
    await service.refresher.activate(body.release)
    return _deployment(service)


@router.post(
    "/rollback",
    summary="Serve again what was served before",
    dependencies=[Depends(require_json)],
    responses={
        status: {"model": ErrorEnvelope, "description": description}
        for status, description in _ERRORS.items()
        if status < 500
    },
)
async def roll_back(body: Rollback, service: ServiceDep) -> Deployment:
    """Swap a variant back to what it was before its last change; twice is forward again."""
    await service.refresher.roll_back(body.variant)
    return _deployment(service)


def _deployment(service: Service) -> Deployment:
    refresher = service.refresher
    active = refresher.shelf.active()
    return Deployment(
        served={
            name: ServedVariant(
                revision=info.revision,
                release=active.get(name),
                can_roll_back=name in refresher.can_roll_back,
            )
            for name, info in service.models.items()
        },
        releases=[release.name for release in refresher.shelf.listed()],
    )
