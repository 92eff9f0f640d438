from typing import Any

from app.main import create_app
from app.schemas.images import ImageRequest
from app.settings import Settings
from tests.app.conftest import SteppedPainter

SCHEMA: dict[str, Any] = create_app(Settings(), {"default": SteppedPainter()}).openapi()


def test_every_route_tells_what_it_does() -> None:
    operations = [op for path in SCHEMA["paths"].values() for op in path.values()]
    assert len(operations) >= 10
    assert all(op["summary"] and op["description"] for op in operations)


def test_every_field_is_described() -> None:
    assert all(
        prop.get("description") or "$ref" in prop or prop.get("const")
        for name in ("ImageRequest", "ImageResponse", "ModelCard", "ErrorBody")
        for prop in SCHEMA["components"]["schemas"][name]["properties"].values()
    )


def test_examples_are_requests_that_fit() -> None:
    examples = SCHEMA["components"]["schemas"]["ImageRequest"]["examples"]
    assert examples
    for example in examples:
        ImageRequest.model_validate(example)


def test_no_endpoint_documents_a_form_of_error_that_is_never_sent() -> None:
    assert "HTTPValidationError" not in SCHEMA["components"]["schemas"]


def test_limits_are_those_of_the_server() -> None:
    settings = Settings(max_prompt_chars=77, max_images=3, max_steps=9, max_regions=2)
    schema = create_app(settings, {"default": SteppedPainter()}).openapi()
    fields = schema["components"]["schemas"]["ImageRequest"]["properties"]
    told = {
        (name, keyword): kind[keyword]
        for name in ("prompt", "negative_prompt", "n", "steps", "regions")
        for kind in fields[name].get("anyOf", [fields[name]])
        for keyword in ("maxLength", "maximum", "maxItems")
        if keyword in kind
    }
    assert told == {
        ("prompt", "maxLength"): 77,
        ("negative_prompt", "maxLength"): 77,
        ("n", "maximum"): 3,
        ("steps", "maximum"): 9,
        ("regions", "maxItems"): 2,
    }
