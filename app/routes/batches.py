"""Batches: many requests as one file."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query
from sqlalchemy import select

from app.batches.batches import BatchOrder
from app.batches.webhooks import check_target
from app.deps import CallerDep, Service, ServiceDep, require_json
from app.schemas.batches import (
    BatchList,
    BatchObject,
    BatchRequest,
    DeliveryList,
    to_batch_object,
    to_delivery,
)
from app.schemas.images import ErrorEnvelope
from app.storage.paging import Page
from app.storage.tables import WebhookDelivery
from core.errors import InputError

BatchId = Annotated[str, Path(max_length=100, description="Id of a batch.")]

router = APIRouter(prefix="/v1/batches", tags=["batches"])

_NOT_THERE: dict[int | str, dict[str, Any]] = {
    404: {"model": ErrorEnvelope, "description": "No such batch, or it belongs to another key."}
}


@router.post(
    "",
    summary="Run a file of requests",
    dependencies=[Depends(require_json)],
    responses={
        400: {"model": ErrorEnvelope, "description": "A field is wrong; `param` names it."},
        404: {"model": ErrorEnvelope, "description": "No such input file."},
        503: {"model": ErrorEnvelope, "description": "The disk is full or read-only."},
    },
)
def create_batch(body: BatchRequest, service: ServiceDep, caller: CallerDep) -> BatchObject:
    """Take a batch in; when this answers, it is safe whatever happens to the server.

    Its lines are checked next. If one cannot be run as asked, `status` becomes `failed` and
    `errors` says which and why; nothing is painted then.
    """
    if body.webhook_url is not None:
        _check_webhook(body.webhook_url, service)
    lifetime = body.output_expires_after
    order = BatchOrder(
        input_file_id=body.input_file_id,
        endpoint=body.endpoint,
        completion_window=body.completion_window,
        metadata=body.metadata or {},
        results=body.results,
        output_expires_after_s=None if lifetime is None else lifetime.seconds,
        webhook_url=body.webhook_url,
    )
    return to_batch_object(service.batches.create(order, owner=caller.id))


@router.get("", summary="List batches")
def list_batches(
    service: ServiceDep,
    caller: CallerDep,
    *,
    after: Annotated[str | None, Query(max_length=100, description="Last batch before.")] = None,
    limit: Annotated[int, Query(ge=1, le=100, description="Most batches.")] = 20,
) -> BatchList:
    """List the caller's batches, the newest first."""
    rows, has_more = service.batches.page(Page(after=after, limit=limit), owner=caller.id)
    data = [to_batch_object(row) for row in rows]
    return BatchList(
        data=data,
        first_id=data[0].id if data else None,
        last_id=data[-1].id if data else None,
        has_more=has_more,
    )


@router.get("/{batch_id}", summary="Show a batch", responses=_NOT_THERE)
def show_batch(batch_id: BatchId, service: ServiceDep, caller: CallerDep) -> BatchObject:
    """Show how far a batch is."""
    return to_batch_object(service.batches.get(batch_id, owner=caller.id))


@router.post(
    "/{batch_id}/cancel",
    summary="Cancel a batch",
    responses={400: {"model": ErrorEnvelope, "description": "It has ended."}, **_NOT_THERE},
)
def cancel_batch(batch_id: BatchId, service: ServiceDep, caller: CallerDep) -> BatchObject:
    """Stop a batch: what is being painted stops, and what was finished is delivered."""
    return to_batch_object(service.batches.cancel(batch_id, owner=caller.id))


@router.get(
    "/{batch_id}/webhook_deliveries",
    summary="Show who was told that a batch ended",
    responses=_NOT_THERE,
)
def list_deliveries(batch_id: BatchId, service: ServiceDep, caller: CallerDep) -> DeliveryList:
    """List the webhooks of a batch and how their delivery went."""
    service.batches.get(batch_id, owner=caller.id)
    with service.database.read() as session:
        rows = session.scalars(
            select(WebhookDelivery)
            .where(WebhookDelivery.batch_id == batch_id)
            .order_by(WebhookDelivery.created_at)
        )
        return DeliveryList(data=[to_delivery(row) for row in rows])


def _check_webhook(url: str, service: Service) -> None:
    if service.settings.webhook_secret is None:
        raise InputError(
            "This server signs no webhooks: its operator has to set FEWSTROKE_WEBHOOK_SECRET.",
            param="webhook_url",
        )
    check_target(url, allow_private=service.settings.allow_private_webhooks)
