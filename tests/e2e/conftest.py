"""The real model on a tiny random checkpoint, served on a real socket, called by real clients."""

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest
from openai import OpenAI

from pipelines.rows import RowPainter
from pipelines.text_to_image import TextToImage
from tests.app.conftest import RunningServer, running_server, stepped
from tests.pipelines.conftest import folder, make_folder, pytest_configure

__all__ = ["folder", "make_folder", "pytest_configure", "stepped"]

Post = Callable[..., httpx2.Response]


@pytest.fixture(scope="session")
def painter(folder: Path) -> TextToImage:
    return TextToImage.load(folder, device="cpu")


@pytest.fixture(scope="session")
def server(painter: TextToImage) -> Iterator[RunningServer]:
    with running_server(RowPainter(painter), max_body_bytes=65_536) as running:
        yield running


@pytest.fixture(scope="session")
def client(server: RunningServer) -> Iterator[OpenAI]:
    with OpenAI(base_url=server.base_url, api_key="none", max_retries=0) as openai_client:
        yield openai_client


@pytest.fixture(scope="session")
def http(server: RunningServer) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=f"http://127.0.0.1:{server.port}") as plain_client:
        yield plain_client
