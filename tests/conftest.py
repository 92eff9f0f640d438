"""What every test stands on: no network, no hub, nothing left behind in the repository."""

import atexit
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import settings

os.environ["HF_HUB_OFFLINE"] = "1"  # read when the hub client is first imported

# servers of tests keep their database and their files here, and never in the home folder
os.environ["FEWSTROKE_DATA_DIR"] = tempfile.mkdtemp(prefix="fewstroke-tests-")
os.environ["FEWSTROKE_CACHE_DIR"] = tempfile.mkdtemp(prefix="fewstroke-compiled-")
for folder in ("FEWSTROKE_DATA_DIR", "FEWSTROKE_CACHE_DIR"):
    atexit.register(shutil.rmtree, os.environ[folder], ignore_errors=True)

# No test is timed: on a busy machine any example may take long.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

LOOPBACK = {"127.0.0.1", "::1", "localhost"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take long: nobody is left alone with one at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse every connection that would leave this machine."""
    connect = socket.socket.connect

    def connect_on_loopback(self: socket.socket, address: object) -> None:
        if isinstance(address, tuple) and address[0] not in LOOPBACK:
            raise AssertionError(f"A test reached for the network: {address}.")
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", connect_on_loopback)


@pytest.fixture(autouse=True)
def plain_log() -> None:
    """Log beside the output of commands, and whatever the test before has set up for itself."""
    structlog.configure(
        # the library's default draws tracebacks with all local values, which takes seconds
        processors=[structlog.stdlib.add_log_level, structlog.processors.KeyValueRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(0),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    """Undo what commands tell torch: a sum over other threads is another sum in its last bit."""
    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch else None
    yield
    if torch and before:
        torch.set_num_threads(before)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The folder that holds pyproject.toml."""
    return Path(__file__).parents[1]
