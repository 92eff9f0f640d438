"""What routes ask for, by name, and how they get it."""

import time
from dataclasses import dataclass, field
from email.message import Message
from typing import Annotated

from fastapi import Depends, Request
from starlette.exceptions import HTTPException

from app.generator import Generator
from app.settings import Settings
from app.worker import DeviceWorker


@dataclass(kw_only=True, slots=True)
class Readiness:
    """Whether requests are answered at full speed.

    Attributes:
        is_ready: True between the end of the warm-up and the beginning of the shutdown.
        reason: Why not, in words for an operator.
    """

    is_ready: bool = False
    reason: str = "The model is warming up."


@dataclass(frozen=True, kw_only=True, slots=True)
class Service:
    """Everything a running server holds.

    Attributes:
        settings: How it is deployed.
        generator: The loaded model.
        worker: The queue and the thread of the device.
        readiness: Whether it is warm.
        loaded_at: When the model was loaded, in Unix seconds.
    """

    settings: Settings
    generator: Generator
    worker: DeviceWorker
    readiness: Readiness = field(default_factory=Readiness)
    loaded_at: int = field(default_factory=lambda: int(time.time()))


def get_service(request: Request) -> Service:
    """Return the service that this application runs.

    Args:
        request: Any request to it.
    """
    service = request.app.state.service
    assert isinstance(service, Service)
    return service


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
        raise HTTPException(415, f"Content-Type must be application/json, not {found}.")


ServiceDep = Annotated[Service, Depends(get_service)]
