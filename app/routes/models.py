"""What is served."""

from typing import Annotated

from fastapi import APIRouter, Path

from app.deps import ServiceDep
from app.images.mapping import check_model_name, to_card
from app.schemas.images import ErrorEnvelope, ModelCard, ModelList

router = APIRouter(prefix="/v1/models", tags=["models"])


@router.get("", summary="List the models")
async def list_models(service: ServiceDep) -> ModelList:
    """List what can be passed as `model`: one model, in one or more variants."""
    return ModelList(data=[to_card(service.painters, service.settings, service.loaded_at)])


@router.get(
    "/{model_id:path}",
    summary="Show one model",
    responses={404: {"model": ErrorEnvelope, "description": "No such model."}},
)
async def show_model(
    model_id: Annotated[str, Path(description="A model that the list names.")], service: ServiceDep
) -> ModelCard:
    """Show one model with its variants, revisions, sizes and defaults."""
    check_model_name(model_id, next(iter(service.models.values())))
    return to_card(service.painters, service.settings, service.loaded_at)
