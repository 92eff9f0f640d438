import pytest

from app.errors import (
    STATUS_OF,
    IdempotencyInUseError,
    ModelNotFoundError,
    QuotaExceededError,
    RateLimitedError,
    describe_invalid,
    status_of,
)
from core import errors
from core.errors import FewstrokeError


def _tree(root: type[FewstrokeError]) -> list[type[FewstrokeError]]:
    return [root, *(leaf for child in root.__subclasses__() for leaf in _tree(child))]


@pytest.mark.parametrize("kind", _tree(FewstrokeError), ids=lambda kind: kind.__name__)
def test_every_error_of_the_tree_has_a_status_that_fits_its_nature(
    kind: type[FewstrokeError],
) -> None:
    error = kind.__new__(kind)
    status, family = status_of(error)
    assert 400 <= status < 600
    assert (status < 500) == issubclass(
        kind,
        errors.InputError
        | errors.UnsupportedError
        | errors.QueueFullError
        | IdempotencyInUseError
        | QuotaExceededError
        | RateLimitedError
        | errors.GenerationCancelledError,
    )
    # OpenAI's client tries 408, 409, 429 and 5xx again by itself
    assert not kind.retryable or status in {409, 429, 503}
    assert family in {"invalid_request_error", "rate_limit_error", "server_error"}


def test_the_nearest_ancestor_in_the_table_decides() -> None:
    assert status_of(ModelNotFoundError("model", "x", ["y"])) == STATUS_OF[ModelNotFoundError]
    assert status_of(errors.UnknownNameError("scheduler", "x", ["y"]))[0] == 400
    assert status_of(errors.ShuttingDownError("Bye."))[0] == 503


def test_what_a_caller_sent_is_shown_short_and_in_ascii() -> None:
    message, param, code = describe_invalid(
        {
            "type": "int_type",
            "loc": ("body", "n"),
            "msg": "Input should be valid",
            "input": "\ud800" * 999,
        }
    )
    assert message.isascii()
    assert len(message) < 200
    assert (param, code) == ("n", "invalid_value")


@pytest.mark.parametrize(
    ("finding", "said"),
    [
        ({"type": "model_attributes_type", "input": [1]}, "`regions` must be a JSON object, not"),
        ({"type": "list_type", "input": {}}, "`regions` must be a list, not"),
        (
            {"type": "too_long", "ctx": {"actual_length": 20, "max_length": 16}},
            "`regions` has 20 entries: at most 16.",
        ),
    ],
)
def test_what_a_field_wants_is_said_in_the_words_of_json(
    finding: dict[str, object], said: str
) -> None:
    message, param, _ = describe_invalid(
        {"loc": ("body", "regions"), "msg": "Input should be a valid tuple", **finding}
    )
    assert message.startswith(said)
    assert param == "regions"
