"""OpenAPI tells the limits that this server has, not only those that the wire has."""

from functools import partial
from typing import Any

from fastapi import FastAPI

from app.settings import Settings


def state_limits(app: FastAPI, settings: Settings) -> None:
    """Write a server's limits into its own description.

    Args:
        app: The application, with its routes.
        settings: Its limits.
    """
    app.openapi = partial(_with_limits, app.openapi, settings)  # type: ignore[method-assign]


def _with_limits(describe: Any, settings: Settings) -> dict[str, Any]:  # noqa: ANN401
    document: dict[str, Any] = describe()
    fields = document["components"]["schemas"]["ImageRequest"]["properties"]
    for name, keyword, limit in (
        ("prompt", "maxLength", settings.max_prompt_chars),
        ("negative_prompt", "maxLength", settings.max_prompt_chars),
        ("n", "maximum", settings.max_images),
        ("steps", "maximum", settings.max_steps),
        ("regions", "maxItems", settings.max_regions),
    ):
        kinds = fields[name].get("anyOf", [fields[name]])
        for kind in (kind for kind in kinds if kind.get("type") != "null"):
            kind[keyword] = limit
    return document
