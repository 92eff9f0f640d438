from pathlib import Path

import pytest

from app.errors import _HTTP_CODES, STATUS_OF
from app.schemas.images import ImageRequest, ImageResponse, ModelCard
from tests.app.test_openapi import SCHEMA

PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text("utf-8")


@pytest.mark.parametrize("schema", [ImageRequest, ImageResponse, ModelCard])
def test_every_field_stands_in_the_page(schema: type) -> None:
    fields = set(schema.model_fields) - {"data"}
    assert not {name for name in fields if f"`{name}`" not in PAGE}


def test_every_route_stands_in_the_page() -> None:
    for path, operations in SCHEMA["paths"].items():
        for method in operations:
            assert f"{method.upper()} {path.replace('{model_id}', '{id}')}" in PAGE


def test_every_error_stands_in_the_page_with_its_status() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ")]
    pairs = {(status, kind.code) for kind, (status, _) in STATUS_OF.items()}
    missing = {
        (status, code)
        for status, code in pairs | set(_HTTP_CODES.items())
        if not any(str(status) in row and f"`{code}`" in row for row in rows)
    }
    assert not missing
