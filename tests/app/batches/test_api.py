"""Files and batches as OpenAI's own client uses them, on a real socket."""

import base64
import json
import time
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import httpx2
import pytest
from openai import APIStatusError, BadRequestError, NotFoundError, OpenAI
from openai.types import Batch
from PIL import Image

from app.access.auth import KeyLimits, KeyRing
from tests.app.batches.conftest import ENDPOINT, line, lines
from tests.app.conftest import PATIENCE_S, RunningServer, SteppedPainter, running_server

ENDED = {"completed", "failed", "expired", "cancelled"}


@pytest.fixture
def server(database_url: str, stepped: SteppedPainter) -> Iterator[RunningServer]:
    with running_server(stepped, database_url=database_url, max_file_bytes=1 << 20) as running:
        yield running


@pytest.fixture
def client(server: RunningServer) -> Iterator[OpenAI]:
    with OpenAI(base_url=server.base_url, api_key="none", max_retries=0) as openai_client:
        yield openai_client


def submit(client: OpenAI, *content: bytes, **options: Any) -> Batch:
    file = client.files.create(file=("in.jsonl", b"\n".join(content)), purpose="batch")
    given: dict[str, Any] = {"endpoint": ENDPOINT, "completion_window": "24h"}
    return client.batches.create(input_file_id=file.id, **(given | options))


def ended(client: OpenAI, batch: Batch) -> Batch:
    return until_status(client, batch, ENDED)


def until_status(client: OpenAI, batch: Batch, wanted: set[str]) -> Batch:
    give_up_at = time.monotonic() + PATIENCE_S
    while (seen := client.batches.retrieve(batch.id)).status not in wanted:
        assert time.monotonic() < give_up_at, seen
        time.sleep(0.05)
    return seen


def results(client: OpenAI, file_id: str | None) -> dict[str, Any]:
    if file_id is None:
        return {}
    text = client.files.content(file_id).text
    return {row["custom_id"]: row for row in map(json.loads, text.splitlines())}


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"data": {"purpose": "batch"}, "files": {"other": b"x"}}, "other"),
        ({"data": {"purpose": "batch"}, "files": {"expires_after[seconds]": b"x"}}, "file"),
        ({"files": {"file": b"x"}}, "purpose"),
        ({"data": {"purpose": "fine-tune"}, "files": {"file": b"x"}}, "purpose"),
        (
            {"data": {"purpose": "batch", "expires_after[seconds]": "1"}, "files": {"file": b"x"}},
            "expires_after.seconds",
        ),
    ],
)
def test_an_upload_without_what_it_needs_is_refused_by_field(
    server: RunningServer, given: dict[str, Any], param: str
) -> None:
    answer = httpx2.post(f"{server.base_url}/files", **given)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


def test_lines_that_want_a_stream_or_a_link_fail_by_name(client: OpenAI) -> None:
    done = ended(client, submit(client, line("s", stream=True), line("u", response_format="url")))
    failed = results(client, done.error_file_id)
    bodies = {name: row["response"]["body"]["error"] for name, row in failed.items()}
    assert {name: body["param"] for name, body in bodies.items()} == {
        "s": "stream",
        "u": "response_format",
    }
    assert "file_id" in bodies["u"]["message"]


def test_a_batch_paints_every_line_as_a_live_request_would(client: OpenAI) -> None:
    content = [line("seeded", seed=7), line("unseeded"), line("two", n=2, seed=3)]
    batch = submit(client, *content, metadata={"for": "spring"})
    assert (batch.status, batch.object) == ("validating", "batch")
    done = ended(client, batch)
    assert done.status == "completed"
    assert done.metadata == {"for": "spring"}
    assert done.error_file_id is None
    assert done.errors is None
    stamps = [done.created_at, done.in_progress_at, done.finalizing_at, done.completed_at]
    assert stamps == sorted(stamps)  # type: ignore[type-var]
    assert done.request_counts is not None
    assert done.request_counts.model_dump() == {"completed": 3, "failed": 0, "total": 3}
    found = results(client, done.output_file_id)
    assert list(found) == ["seeded", "unseeded", "two"]
    live = client.images.generate(prompt="a red apple", extra_body={"seed": 7})
    assert live.data is not None
    answer = found["seeded"]["response"]
    assert answer["status_code"] == 200
    assert answer["body"]["data"][0]["b64_json"] == live.data[0].b64_json
    assert [picture["seed"] for picture in found["two"]["response"]["body"]["data"]] == [3, 4]


def test_lines_that_fail_go_to_the_error_file_with_the_endpoints_own_words(client: OpenAI) -> None:
    batch = submit(client, line("good"), line("bad", steps=0), line("odd", wibble=1))
    done = ended(client, batch)
    assert done.status == "completed"
    assert set(results(client, done.output_file_id)) == {"good"}
    failed = results(client, done.error_file_id)
    assert {
        name: (row["response"]["status_code"], row["response"]["body"]["error"]["param"])
        for name, row in failed.items()
    } == {"bad": (400, "steps"), "odd": (400, "wibble")}


def test_pictures_can_become_files_of_their_own(client: OpenAI) -> None:
    asked = line("a", output_format="webp")
    done = ended(client, submit(client, asked, extra_body={"results": "file_id"}))
    [picture] = results(client, done.output_file_id)["a"]["response"]["body"]["data"]
    assert picture["url"].endswith(f"/v1/files/{picture['file_id']}/content")
    content = client.files.content(picture["file_id"]).content
    assert Image.open(BytesIO(content)).size == (128, 128)
    kept = client.files.retrieve(picture["file_id"])
    assert (kept.bytes, kept.filename) == (len(content), "a.webp")


def test_plans_can_be_made_in_a_batch(client: OpenAI) -> None:
    batch = submit(client, line("p", url="/v1/plans"), endpoint="/v1/plans")
    done = ended(client, batch)
    plan = results(client, done.output_file_id)["p"]["response"]["body"]
    assert "apple" in json.dumps(plan)


def test_a_broken_file_fails_the_batch_with_line_numbers(client: OpenAI) -> None:
    done = ended(client, submit(client, line("a"), b"{", line("a")))
    assert done.status == "failed"
    assert done.errors is not None
    assert done.errors.data is not None
    assert [(e.code, e.line, e.param) for e in done.errors.data] == [
        ("invalid_json_line", 2, None),
        ("duplicate_custom_id", 3, "custom_id"),
    ]


def test_cancel_delivers_what_was_finished(client: OpenAI, stepped: SteppedPainter) -> None:
    batch = submit(client, *lines(30))
    until_status(client, batch, {"in_progress", "completed"})
    stepped.stop_before_each_step()
    stopping = client.batches.cancel(batch.id)
    assert stopping.status in {"cancelling", "cancelled"}
    stepped.run_freely()
    done = ended(client, batch)
    assert done.status == "cancelled"
    assert client.batches.cancel(batch.id).status == "cancelled"
    painted, missing = (results(client, f) for f in (done.output_file_id, done.error_file_id))
    assert len(painted) + len(missing) == 30
    assert done.request_counts is not None
    assert done.request_counts.completed == len(painted)
    assert {row["error"]["code"] for row in missing.values()} == {"batch_cancelled"}
    with pytest.raises(BadRequestError):
        client.batches.cancel(ended(client, submit(client, line("a"))).id)


def test_what_is_not_done_in_time_expires(client: OpenAI, stepped: SteppedPainter) -> None:
    stepped.stop_before_each_step()
    batch = submit(client, *lines(3), completion_window="1s")
    done = ended(client, batch)
    stepped.run_freely()
    assert done.status == "expired"
    assert done.expired_at is not None
    missing = results(client, done.error_file_id)
    assert {row["error"]["code"] for row in missing.values()} == {"batch_expired"}
    assert len(missing) == 3


def test_files_are_kept_listed_fetched_and_deleted(client: OpenAI) -> None:
    made = [
        client.files.create(
            file=(f"{k}.jsonl", b"x" * k),
            purpose="user_data",
            expires_after={"anchor": "created_at", "seconds": 3600},
        )
        for k in range(5)
    ]
    assert [file.bytes for file in made] == [0, 1, 2, 3, 4]
    assert made[0].expires_at == made[0].created_at + 3600
    newest_first = [file.id for file in reversed(made)]
    assert [file.id for file in client.files.list(limit=2)] == newest_first  # pages are walked
    listed = client.files.list(order="asc", purpose="user_data", after=made[1].id)
    assert [file.filename for file in listed] == ["2.jsonl", "3.jsonl", "4.jsonl"]
    assert client.files.content(made[3].id).content == b"xxx"
    assert client.files.delete(made[3].id).deleted
    for call in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(NotFoundError):
            call(made[3].id)


def test_an_input_file_may_be_deleted_while_it_is_read(
    client: OpenAI, stepped: SteppedPainter
) -> None:
    stepped.stop_before_each_step()
    batch = submit(client, *lines(3))
    client.files.delete(batch.input_file_id)
    stepped.run_freely()
    assert ended(client, batch).status == "completed"


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"endpoint": "/v1/chat/completions"}, 400, "endpoint"),
        ({"completion_window": "soon"}, 400, "completion_window"),
        ({"input_file_id": "file-none"}, 404, "input_file_id"),
        ({"webhook_url": "https://example.org"}, 400, "webhook_url"),
        ({"metadata": {"k" * 65: "v"}}, 400, None),
        ({"wibble": 1}, 400, "wibble"),
    ],
)
def test_a_batch_that_cannot_be_is_refused_by_name(
    client: OpenAI, body: dict[str, Any], status: int, param: str | None
) -> None:
    file = client.files.create(file=("in.jsonl", line("a")), purpose="batch")
    given = {"input_file_id": file.id, "endpoint": ENDPOINT, "completion_window": "24h"} | body
    with pytest.raises(APIStatusError) as caught:
        client.post("/batches", body=given, cast_to=object)
    assert caught.value.status_code == status
    assert param is None or caught.value.param == param


def test_an_upload_that_is_none_is_refused(server: RunningServer) -> None:
    url = f"{server.base_url}/files"
    bad: list[dict[str, Any]] = [
        {"data": {"purpose": "batch"}},
        {"files": {"file": ("a", b"x")}, "data": {"purpose": "fine-tune"}},
        {"files": {"file": ("a", b"x")}, "data": {"purpose": "batch", "wibble": "1"}},
        {
            "files": {"file": ("a", b"x")},
            "data": {"purpose": "batch", "expires_after[seconds]": "5"},
        },
        {"files": {"file": ("a", b"x" * (1 << 20) + b"x")}, "data": {"purpose": "batch"}},
    ]
    params = [httpx2.post(url, **given).json()["error"]["param"] for given in bad]
    assert params == ["file", "purpose", "wibble", "expires_after.seconds", "file"]
    too_large = httpx2.post(url, files={"file": ("a", b"x" * (2 << 20))})
    assert too_large.status_code == 413


def test_another_keys_files_and_batches_are_not_there(
    database_url: str, stepped: SteppedPainter
) -> None:
    with running_server(stepped, key=KeyLimits(), database_url=database_url) as server:
        other = KeyRing(server.service.database).create("other", KeyLimits())
        mine = OpenAI(base_url=server.base_url, api_key=server.token, max_retries=0)
        theirs = OpenAI(base_url=server.base_url, api_key=other, max_retries=0)
        with mine, theirs:
            batch = submit(mine, line("a"))
            for call in (theirs.batches.retrieve, theirs.batches.cancel):
                with pytest.raises(NotFoundError):
                    call(batch.id)
            for call in (theirs.files.retrieve, theirs.files.content, theirs.files.delete):
                with pytest.raises(NotFoundError):
                    call(batch.input_file_id)
            with pytest.raises(NotFoundError):
                theirs.batches.create(
                    input_file_id=batch.input_file_id,
                    endpoint=ENDPOINT,
                    completion_window="24h",
                )
            assert not theirs.files.list().data
            assert not theirs.batches.list().data
            assert ended(mine, batch).status == "completed"


def test_batches_are_listed_in_pages(client: OpenAI) -> None:
    made = [submit(client, line("a")).id for _ in range(3)]
    assert [batch.id for batch in client.batches.list(limit=1)] == made[::-1]


def test_live_requests_go_on_while_a_batch_is_painted(client: OpenAI) -> None:
    batch = submit(client, *lines(200))
    until_status(client, batch, {"in_progress"})
    answer = client.images.generate(prompt="a blue cat", timeout=10)
    assert answer.data is not None
    assert base64.b64decode(answer.data[0].b64_json or "").startswith(b"\x89PNG")
    client.batches.cancel(batch.id)
    ended(client, batch)
