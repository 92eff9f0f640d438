"""What routes ask for, by name, and how they get it."""

import time
from dataclasses import dataclass, field
from email.message import Message
from typing import Annotated

from fastapi import Depends, Request
from starlette.exceptions import HTTPException

from app.access.auth import Caller, KeyRing
from app.access.idempotency import AnswerBook
from app.access.quotas import Quotas
from app.access.signed_urls import PictureLinks
from app.batches.batches import Batches
from app.engine_host import EngineHost
from app.errors import PermissionDeniedError
from app.operations.metrics import Metrics
from app.settings import Settings
from app.storage.blobs import BlobStore
from app.storage.database import Database
from app.storage.files import Files
from app.weights.refresh import Refresher
from llm_prompting.planner import Planner
from pipelines.model_info import ModelInfo
from pipelines.painter import Painter


@dataclass(kw_only=True, slots=True)
class Readiness:
    """Whether requests are answered at full speed.

    Attributes:
        is_ready: True between the end of the warm-up and the beginning of the shutdown.
        reason: Why not, in words for an operator.
    """

    is_ready: bool = False
    reason: str = "The model is warming up."

    def end(self) -> None:
        """Turn red for good: the server is on its way out."""
        self.is_ready = False
        self.reason = "The server is shutting down."


@dataclass(frozen=True, kw_only=True, slots=True)
class Service:
    """Everything a running server holds.

    Attributes:
        settings: How it is deployed.
        host: The engine and its thread.
        database: Keys, answers, files and batches.
        store: Where bytes lie that every replica reaches.
        files: What was uploaded or produced.
        batches: Jobs over files.
        keys: The API keys.
        needs_key: Whether a request needs one; decided at the start.
        quotas: What keys have left.
        answers: What was answered under an Idempotency-Key.
        links: Pictures behind links.
        metrics: What Prometheus reads.
        refresher: Changes what is served.
        planner: Who turns prompts into plans.
        readiness: Whether it is warm.
        loaded_at: When the model was loaded, in Unix seconds.
    """

    settings: Settings
    host: EngineHost
    database: Database
    store: BlobStore
    files: Files
    batches: Batches
    keys: KeyRing
    needs_key: bool
    quotas: Quotas
    answers: AnswerBook
    links: PictureLinks
    metrics: Metrics
    refresher: Refresher
    planner: Planner
    readiness: Readiness = field(default_factory=Readiness)
    loaded_at: int = field(default_factory=lambda: int(time.time()))

    @property
    def painters(self) -> dict[str, Painter]:
        """The models that requests may name now, the default first."""
        return self.host.intake.variants()

    @property
    def models(self) -> dict[str, ModelInfo]:
        """What these models are, by variant."""
        return {name: painter.info for name, painter in self.painters.items()}


def get_service(request: Request) -> Service:
    """Return the service that this application runs.

    Args:
        request: Any request to it.
    """
    service = request.app.state.service
    assert isinstance(service, Service)
    return service


def get_caller(request: Request) -> Caller:
    """Return who sent a request, as the middleware found out.

    Args:
        request: A request to a guarded path.
    """
    caller = request.state.caller
    assert isinstance(caller, Caller)
    return caller


def require_admin(caller: Annotated[Caller, Depends(get_caller)]) -> None:
    """Refuse who may not change what is served.

    Args:
        caller: Who asks.

    Raises:
        PermissionDeniedError: If their key is none of an operator.
    """
    if not caller.is_admin:
        raise PermissionDeniedError(
            "This needs the key of an operator: make one with `fewstroke keys create --admin`."
        )


def require_json(request: Request) -> None:
    """Refuse a body that does not say it is JSON.

    Args:
        request: The request.

    Raises:
        HTTPException: With status 415.
    """
    declared = Message()
    declared["content-type"] = request.headers.get("content-type", "none/none")
    subtype = declared.get_content_subtype()
    is_json = subtype == "json" or subtype.endswith("+json")
    if declared.get_content_maintype() != "application" or not is_json:
        found = ascii(request.headers.get("content-type", "nothing"))
        raise HTTPException(
            415,
            f"Content-Type must be application/json, not {found} (curl: -H 'Content-Type: "
            "application/json').",
        )


ServiceDep = Annotated[Service, Depends(get_service)]
CallerDep = Annotated[Caller, Depends(get_caller)]
