"""OpenAI's own client against a real server on a real socket: all of the image API."""

import base64
import os
import subprocess
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import httpx2
import openai
import pytest
from openai import OpenAI
from PIL import Image

from app.access.auth import KeyLimits
from tests.app.conftest import RunningServer, SteppedPainter, running_server

OLD_CLIENT = Path(sys.prefix) / "old-openai"
"""Where tools/setup.sh puts an older release."""

WHOLE_WAY = """
import base64, sys
import openai
from openai import OpenAI

client = OpenAI(base_url=sys.argv[1], api_key="none", max_retries=0)
answer = client.images.generate(prompt="a red apple", n=2, size="128x128", extra_body={"seed": 5})
assert len(answer.data) == 2 and base64.b64decode(answer.data[0].b64_json)[:4] == b"\\x89PNG"
assert answer.usage.output_tokens == 128 and answer.model_extra["revision"]
link = client.images.generate(prompt="a red apple", response_format="url").data[0].url
assert link.startswith("http")
events = list(client.images.generate(prompt="a red apple", stream=True, partial_images=2))
assert [event.type.rpartition(".")[2] for event in events] == [
    "partial_image", "partial_image", "completed"]
assert events[-1].usage.total_tokens > 64
try:
    client.images.generate(prompt="a red apple", n=99)
except openai.BadRequestError as error:
    assert error.param == "n" and error.code == "invalid_value" and error.request_id
else:
    raise AssertionError("99 pictures were not refused")
try:
    client.models.retrieve("gpt-image-1")
except openai.NotFoundError as error:
    assert error.code == "model_not_found"
print(openai.__version__)
"""


@pytest.fixture(scope="module")
def running() -> Iterator[RunningServer]:
    with running_server(SteppedPainter()) as server:
        yield server


@pytest.fixture
def client(running: RunningServer) -> Iterator[OpenAI]:
    with OpenAI(base_url=running.base_url, api_key="none", max_retries=0) as openai_client:
        yield openai_client


def test_this_client_goes_the_whole_way(running: RunningServer) -> None:
    _go(running, {})


def test_an_older_client_goes_the_whole_way(running: RunningServer) -> None:
    if not OLD_CLIENT.is_dir():
        pytest.skip(f"run make setup, or: pip install -t {OLD_CLIENT} openai==2.0.0")
    assert _go(running, {"PYTHONPATH": str(OLD_CLIENT)}).startswith("2.")


def _go(running: RunningServer, environment: dict[str, str]) -> str:
    command = [sys.executable, "-W", "ignore", "-c", WHOLE_WAY, running.base_url]
    ended = subprocess.run(
        command,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.parametrize("kind", ["png", "webp", "jpeg"])
def test_formats_arrive_as_asked(client: OpenAI, kind: str) -> None:
    answer = client.images.generate(prompt="a red apple", output_format=kind)
    assert answer.output_format == kind
    with Image.open(BytesIO(base64.b64decode(answer.data[0].b64_json))) as image:
        assert (image.format, image.size) == (kind.upper(), (128, 128))


def test_compression_makes_files_smaller(client: OpenAI) -> None:
    sizes = [
        len(
            client.images.generate(
                prompt="a red apple",
                output_format="jpeg",
                output_compression=percent,
                extra_body={"seed": 3},
            )
            .data[0]
            .b64_json
        )
        for percent in (10, 100)
    ]
    assert sizes[0] < sizes[1]


def test_a_link_gives_the_same_file_as_base64_and_no_other(client: OpenAI) -> None:
    fields = {"prompt": "a red apple", "extra_body": {"seed": 9}}
    inline = client.images.generate(**fields).data[0]
    linked = client.images.generate(**fields, response_format="url").data[0]
    assert linked.b64_json is None
    fetched = httpx2.get(linked.url)
    assert fetched.content == base64.b64decode(inline.b64_json)
    assert fetched.headers["content-type"] == "image/png"
    assert "max-age" in fetched.headers["cache-control"]
    head = httpx2.head(linked.url)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(fetched.content))
    path, _, signature = linked.url.partition("?signature=")
    for url in (path, f"{path}?signature={signature[:-1]}", f"{path}0?signature={signature}"):
        refused = httpx2.get(url)
        assert refused.status_code in {400, 403}
        assert refused.json()["error"]["code"] in {"link_refused", "missing_required_parameter"}


def test_a_stream_brings_previews_and_every_picture(client: OpenAI) -> None:
    stream = client.images.generate(
        prompt="a red apple",
        n=2,
        stream=True,
        partial_images=3,
        output_format="webp",
        quality="low",
        extra_body={"seed": 5},
    )
    events = list(stream)
    completed = [event for event in events if event.type == "image_generation.completed"]
    partial = [event for event in events if event.type == "image_generation.partial_image"]
    assert sorted(event.model_extra["seed"] for event in completed) == [5, 6]
    assert {event.quality for event in events} == {"low"}
    # two steps leave room for one preview each
    assert sorted((e.model_extra["image_index"], e.partial_image_index) for e in partial) == [
        (0, 0),
        (1, 0),
    ]
    for event in events:
        with Image.open(BytesIO(base64.b64decode(event.b64_json))) as image:
            assert (image.format, image.size) == ("WEBP", (128, 128))
    assert completed[0].usage.output_tokens == 64


def test_an_error_in_a_stream_that_has_begun_is_raised_by_the_client() -> None:
    painter = SteppedPainter()
    with (
        running_server(painter, drain_timeout_s=0) as server,
        OpenAI(base_url=server.base_url, api_key="none", max_retries=0) as client,
    ):
        painter.stop_before_each_step()
        stream = client.images.generate(prompt="a red apple", stream=True, partial_images=1)
        painter.allow(2)
        assert next(iter(stream)).type == "image_generation.partial_image"
        server.server.should_exit = True
        with pytest.raises(openai.APIError) as caught:
            list(stream)
        assert caught.value.code == "shutting_down"
        painter.run_freely()


def test_what_is_refused_before_a_stream_begins_has_its_own_status(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.images.generate(prompt="a red apple", stream=True, size="1x1")
    assert caught.value.param == "size"


def test_levels_of_quality_are_what_the_models_card_says(client: OpenAI) -> None:
    [card] = client.models.list().data
    for level, meant in card.model_extra["qualities"].items():
        answer = client.images.generate(prompt="a red apple", quality=level)
        assert answer.quality == level
        assert answer.model_extra["steps"] == meant["steps"]
        assert answer.model_extra["variant"] == meant["variant"]


def test_the_end_user_and_the_request_id_come_back(client: OpenAI) -> None:
    answer = client.images.with_raw_response.generate(
        prompt="a red apple",
        user="old",
        extra_body={"safety_identifier": "u-7"},
        extra_headers={"x-request-id": "mine-7"},
    )
    assert answer.request_id == "mine-7"
    assert answer.parse().model_extra.get("safety_identifier", "u-7") == "u-7"


def test_a_request_that_is_sent_twice_is_painted_once(
    running: RunningServer, client: OpenAI
) -> None:
    headers = {"Idempotency-Key": "order-1"}
    first = client.images.generate(prompt="a red apple", extra_headers=headers)
    taken = running.counters.requests
    again = client.images.with_raw_response.generate(prompt="a red apple", extra_headers=headers)
    assert again.headers["idempotent-replayed"] == "true"
    assert again.parse() == first
    with pytest.raises(openai.ConflictError) as caught:
        client.with_options(max_retries=2).images.generate(prompt="a dog", extra_headers=headers)
    assert caught.value.code == "idempotency_key_reused"
    assert running.counters.requests == taken
    streamed = {"Idempotency-Key": "order-2"}
    fields = {"prompt": "a red apple", "n": 2, "stream": True, "extra_headers": streamed}
    seeds = [event.model_extra["seed"] for event in client.images.generate(**fields)]
    assert [event.model_extra["seed"] for event in client.images.generate(**fields)] == seeds
    assert len(seeds) == 2
    assert running.counters.requests == taken + 1


def test_a_server_with_keys_lets_nobody_else_in() -> None:
    with running_server(SteppedPainter(), key=KeyLimits()) as server:
        with OpenAI(base_url=server.base_url, api_key=server.token, max_retries=0) as client:
            assert client.images.generate(prompt="a red apple", response_format="url").data
            with pytest.raises(openai.BadRequestError) as above:
                client.images.generate(prompt="a red apple", extra_body={"priority": 1})
            assert above.value.param == "priority"
        with (
            OpenAI(base_url=server.base_url, api_key="fs-wrong", max_retries=0) as stranger,
            pytest.raises(openai.AuthenticationError) as caught,
        ):
            stranger.images.generate(prompt="a red apple")
        assert caught.value.code == "invalid_api_key"
        root = f"http://127.0.0.1:{server.port}"
        naked = httpx2.post(f"{root}/v1/images/generations", content=b"{" * 100)
        assert naked.status_code == 401
        assert naked.headers["www-authenticate"] == "Bearer"
        for path in ("livez", "readyz", "metrics", "openapi.json"):
            assert httpx2.get(f"{root}/{path}").status_code == 200
        token = {"Authorization": f"Bearer {server.token}"}
        assert httpx2.get(f"{root}/admin/models", headers=token).status_code == 403
        server.service.keys.revoke(server.token)
        assert httpx2.get(f"{root}/v1/models", headers=token).status_code == 401


def test_a_keys_units_run_out_and_come_back() -> None:
    one_picture = 64 * 4
    limits = KeyLimits(quota_units=2 * one_picture, quota_window_s=4, requests_per_minute=50)
    painter = SteppedPainter()
    with (
        running_server(painter, key=limits) as server,
        OpenAI(base_url=server.base_url, api_key=server.token, max_retries=0) as client,
    ):
        client.images.generate(prompt="a red apple", n=2)
        with pytest.raises(openai.RateLimitError) as caught:
            client.images.generate(prompt="a red apple", n=2)
        assert caught.value.code == "quota_exceeded"
        assert 1 <= float(caught.value.response.headers["retry-after"]) <= 4
        with pytest.raises(openai.BadRequestError) as never:
            client.images.generate(prompt="a red apple", n=3)
        assert never.value.code == "cost_above_quota"
        painter.failure = RuntimeError("broken")
        patient = client.with_options(max_retries=3)
        with pytest.raises(openai.InternalServerError):
            patient.images.generate(prompt="a red apple", n=2)
        painter.failure = None
        # what the server broke was given back, so this is there at once
        assert patient.images.generate(prompt="a red apple", n=2).data


def test_the_content_folder_holds_nothing_that_was_not_asked_for(tmp_path: Path) -> None:
    with running_server(SteppedPainter(), storage=str(tmp_path)) as server:
        url = f"{server.base_url}/images/generations"
        httpx2.post(url, json={"prompt": "a red apple"})
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
        httpx2.post(url, json={"prompt": "a red apple", "response_format": "url", "n": 2})
        assert len(list(tmp_path.rglob("*.png"))) == 2
