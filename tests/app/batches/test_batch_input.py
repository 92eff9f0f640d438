"""Whatever an input file holds, it is told by line, and read without holding it."""

import io
import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.batches.input import InputCheck, Line, group_key, split
from tests.app.batches.conftest import ENDPOINT, line


def check(*content: bytes, end: bytes = b"\n", **limits: int) -> tuple[list[Line], InputCheck]:
    given_limits = {"max_lines": 50_000, "max_line_bytes": 1 << 20} | limits
    stream = io.BytesIO(end.join(content))
    found = InputCheck(stream, endpoint=ENDPOINT, **given_limits)
    return list(found.lines()), found


def told(found: InputCheck) -> list[tuple[str, int | None, str | None]]:
    return [(error.code, error.line, error.param) for error in found.errors]


def changed(**changes: Any) -> bytes:
    request = json.loads(line("a")) | changes
    kept = {key: value for key, value in request.items() if value is not ...}
    return json.dumps(kept).encode()


@pytest.mark.parametrize(
    ("bad", "code", "param"),
    [
        (b"not json", "invalid_json_line", None),
        (b'["a", "list"]', "invalid_json_line", None),
        (b'{"custom_id": "\xff"}', "invalid_json_line", None),
        (b"[" * 100_000, "invalid_json_line", None),
        (changed(url="/v1/chat/completions"), "url_mismatch", "url"),
        (changed(method="GET"), "invalid_method", "method"),
        (changed(custom_id=...), "missing_required_parameter", "custom_id"),
        (changed(method=...), "missing_required_parameter", "method"),
        (changed(url=...), "missing_required_parameter", "url"),
        (changed(body=...), "missing_required_parameter", "body"),
        (changed(body="words"), "invalid_request", "body"),
        (changed(custom_id=7), "invalid_request", "custom_id"),
        (changed(custom_id=""), "invalid_request", "custom_id"),
        (changed(custom_id="x" * 513), "invalid_request", "custom_id"),
        (changed(custom_id="\0"), "invalid_request", "custom_id"),
        (changed(custom_id="\ud800"), "invalid_request", "custom_id"),
        (b"x" * 10_000_000, "invalid_request", None),
    ],
)
def test_a_bad_line_is_told_by_code_and_number(bad: bytes, code: str, param: str | None) -> None:
    good, found = check(line("first"), bad, line("last"))
    assert told(found) == [(code, 2, param)]
    assert [kept.number for kept in good] == [1, 3]


def test_custom_ids_and_models_are_compared_over_the_whole_file() -> None:
    _, found = check(line("a", model="m"), line("b"), line("a"), line("c", model="n"))
    assert told(found) == [
        ("duplicate_custom_id", 3, "custom_id"),
        ("model_mismatch", 4, "body.model"),
    ]
    assert found.model == "m"


def test_too_many_lines_none_and_very_many_errors_are_told() -> None:
    good, found = check(*(line(str(k)) for k in range(51)), max_lines=50)
    assert (len(good), told(found)) == (50, [("too_many_tasks", 51, None)])
    assert told(check(b"", b"  ")[1]) == [("empty_file", None, None)]
    assert len(check(*[b"{"] * 500)[1].errors) == 100


def test_51_000_lines_are_one_error_and_little_memory() -> None:
    content = b"\n".join(line(f"line-{k}", prompt="p" * 900) for k in range(51_000))
    tracemalloc.start()
    found = InputCheck(
        io.BytesIO(content), endpoint=ENDPOINT, max_lines=50_000, max_line_bytes=1 << 20
    )
    for _ in found.lines():
        pass
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert told(found) == [("too_many_tasks", 50_001, None)]
    assert peak_bytes < len(content) / 4  # names are kept, to tell when one comes twice


def test_a_file_of_empty_lines_is_not_read_to_its_end() -> None:
    content = io.BytesIO(b"\n" * 5_000_000 + line("last"))
    found = InputCheck(content, endpoint=ENDPOINT, max_lines=50, max_line_bytes=1 << 20)
    assert list(found.lines()) == []
    assert told(found) == [("too_many_tasks", 101, None)]
    assert content.tell() < 2_500_000
    spaced = io.BytesIO(b"\n\n".join(line(str(k)) for k in range(50)))
    found = InputCheck(spaced, endpoint=ENDPOINT, max_lines=50, max_line_bytes=1 << 20)
    assert len(list(found.lines())) == 50


@given(
    st.lists(st.binary(max_size=40).filter(lambda raw: b"\n" not in raw), max_size=20),
    st.integers(1, 30),
)
def test_lines_are_found_where_they_stand(content: list[bytes], max_bytes: int) -> None:
    data = b"\n".join(content)
    found = list(split(io.BytesIO(data), max_bytes))
    expected = data.split(b"\n")
    if expected[-1] == b"":
        expected.pop()
    assert [data[start : start + size] for _, start, size, _ in found] == expected
    assert [kept for *_, kept in found] == [raw[:max_bytes] for raw in expected]
    assert [number for number, *_ in found] == list(range(1, len(expected) + 1))


@settings(suppress_health_check=[HealthCheck.too_slow])  # its first draw, on a busy machine
@given(
    st.dictionaries(
        st.sampled_from(["size", "guidance", "variant"]),
        st.from_type(type(None)) | st.text() | st.floats() | st.lists(st.integers()),
    )
)
def test_any_body_has_a_group_that_a_database_can_keep(body: dict[str, Any]) -> None:
    key = group_key(body)
    assert key.isascii()
    assert len(key) <= 64
    assert "\0" not in key


def test_windows_line_ends_and_a_missing_last_one_are_fine() -> None:
    good, found = check(line("a"), line("b"), end=b"\r\n")
    assert [kept.custom_id for kept in good] == ["a", "b"]
    assert not found.errors
