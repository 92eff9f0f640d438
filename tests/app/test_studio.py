"""The studio's files over HTTP, without a browser: headers, caching, what is not served."""

import gzip
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from app.routes.studio import FOLDER, load_assets
from tests.app.conftest import SteppedPainter, running_server

MAX_LINES = 400


@pytest.fixture(scope="module")
def http() -> Iterator[httpx2.Client]:
    with (
        running_server(SteppedPainter()) as server,
        httpx2.Client(base_url=f"http://127.0.0.1:{server.port}") as client,
    ):
        yield client


def test_the_page_may_load_nothing_from_elsewhere_and_run_no_text(http: httpx2.Client) -> None:
    answer = http.get("/studio", follow_redirects=True)
    assert answer.url.path == "/studio/"
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "require-trusted-types-for 'script'" in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert not re.search(r"<script(?![^>]*\ssrc=)|\son\w+=|\sstyle=|https?://", answer.text)


def test_every_file_that_the_page_names_is_served_with_its_type(http: httpx2.Client) -> None:
    page = http.get("/studio/").text
    names = re.findall(r'(?:src|href)="([^"#]+)"', page)
    assert len(names) > 20
    for name in names:
        answer = http.get(f"/studio/{name}")
        assert answer.status_code == 200, name
        assert "charset=utf-8" in answer.headers["content-type"] or name.endswith(".svg")
    imported = {
        found
        for path in FOLDER.glob("*.js")
        for found in re.findall(r'from "\./([\w./]+)"', path.read_text("ascii"))
    }
    assert imported <= set(load_assets())


def test_what_the_browser_has_is_not_sent_again(http: httpx2.Client) -> None:
    first = http.get("/studio/main.js")
    again = http.get("/studio/main.js", headers={"If-None-Match": first.headers["etag"]})
    assert again.status_code == 304
    assert again.content == b""
    assert first.headers["cache-control"] == "no-cache"


def test_files_travel_compressed_where_the_browser_reads_that(http: httpx2.Client) -> None:
    name = "vendor/konva.min.js"
    plain = http.get(f"/studio/{name}", headers={"Accept-Encoding": "identity"})
    assert plain.content == (FOLDER / name).read_bytes()
    asset = load_assets()[name]
    assert gzip.decompress(asset.packed) == asset.content
    packed = http.get(f"/studio/{name}", headers={"Accept-Encoding": "gzip"})
    assert packed.headers["content-encoding"] == "gzip"


@pytest.mark.parametrize("name", ["nothing.js", "../main.py", "%2e%2e/main.py", "vendor", "a\\b"])
def test_nothing_but_the_page_is_served(name: str, http: httpx2.Client) -> None:
    answer = http.get(f"/studio/{name}")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "not_found"


def test_the_state_names_the_queue_and_the_limits(http: httpx2.Client) -> None:
    state = http.get("/studio/state").json()
    assert state["ready"] is True
    assert state["needs_key"] is False
    assert (state["num_waiting"], state["num_running"]) == (0, 0)
    assert state["planners"] == ["grammar"]
    assert state["token_px"] == 16


def test_vendored_scripts_are_what_their_packages_hold(repository: Path) -> None:
    command = [sys.executable, "tools/vendor.py", "--check"]
    subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True)
    packages = json.loads((repository / "tools" / "vendor.json").read_text("ascii"))
    assert all(package["license"] and package["version"] for package in packages)


def test_no_file_of_the_page_is_longer_than_a_sitting() -> None:
    own = [path for path in FOLDER.iterdir() if path.is_file()]
    long = [path.name for path in own if len(path.read_text("ascii").splitlines()) > MAX_LINES]
    assert not long


def test_the_page_can_be_asked_for_without_its_body(http: httpx2.Client) -> None:
    answer = http.head("/studio/")
    assert answer.status_code == 200
    assert answer.content == b""
    assert http.head("/studio", follow_redirects=True).url.path == "/studio/"
