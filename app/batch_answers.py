"""Lines of batches answered by the code that answers live requests, in the engine's batch lane."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from app.access.auth import ANONYMOUS, Caller
from app.batches.input import LineError
from app.batches.lines import Call
from app.deps import Service
from app.errors import describe_invalid
from app.images.generation import Asked, answer_once
from app.routes.plans import PlanRequest, make_plan
from app.schemas.images import ImageRequest

Body = TypeVar("Body", bound=BaseModel)


class EndpointAnswers:
    """Answers what stands in lines of batches.

    Args:
        service: Who paints and plans.
    """

    def __init__(self, service: Service) -> None:
        self._service = service

    async def __call__(self, call: Call) -> Mapping[str, Any]:
        """Answer one request as its endpoint would.

        Args:
            call: The request.

        Returns:
            The answer.

        Raises:
            LineError: If the body does not fit. What else the endpoint would refuse with is
                raised as it would.
        """
        if call.endpoint == "/v1/plans":
            plan = await make_plan(_parse(PlanRequest, call.body), self._service)
            return plan.model_dump(mode="json", exclude_none=True)
        body = _parse(ImageRequest, call.body)
        if body.stream:
            raise LineError(
                code="unsupported_value", message="Batches do not stream.", param="stream"
            )
        if body.response_format == "url":
            raise LineError(
                code="unsupported_value",
                message="Links end before batches may. Leave `response_format` out, and ask for "
                '`results: "file_id"` when the batch is created.',
                param="response_format",
            )
        asked = Asked(
            body=body,
            caller=await self._caller(call.owner),
            base_url=self._service.settings.public_url or "/",
            lane="batch",
        )
        content, _ = await answer_once(asked, self._service)
        answer: Mapping[str, Any] = json.loads(content)
        return answer

    async def _caller(self, owner: str) -> Caller:
        if owner == ANONYMOUS:
            return Caller()
        return await asyncio.to_thread(self._service.keys.find, owner)


def _parse(kind: type[Body], body: Mapping[str, Any]) -> Body:
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        first = error.errors()[0]
        located = {**first, "loc": ("body", *first["loc"])}
        message, param, code = describe_invalid(located)
        raise LineError(code=code, message=message, param=param) from error
