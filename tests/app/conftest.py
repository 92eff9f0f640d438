"""Databases, an object store, a painter that waits for the test, and a real server around any."""

import os
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import boto3
import pytest
import uvicorn
from moto.server import ThreadedMotoServer
from PIL import Image

from app.access.auth import KeyLimits, KeyRing
from app.deps import Service
from app.main import create_app, make_server, open_database, take_port
from app.settings import Settings
from app.storage.database import Database
from benchmarks.postgres_cluster import new_database, postgres_cluster
from core.errors import MissingAssetError
from pipelines.accelerate.execution import Execution
from pipelines.model_info import ModelInfo
from pipelines.orders import Counters
from pipelines.painter import Painter
from pipelines.region_defaults import RegionDefaults
from pipelines.spec import GenerationSpec

PATIENCE_S = 20.0


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """A cluster of its own, gone afterwards."""
    with ExitStack() as stack:
        try:
            server = stack.enter_context(postgres_cluster())
        except MissingAssetError as error:
            pytest.skip(error.message)
        yield server


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database, once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'fewstroke.db'}"
    return new_database(request.getfixturevalue("postgres"))


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    opened = Database(database_url)
    opened.migrate()
    yield opened
    opened.close()


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadedMotoServer]:
    """An object store that speaks S3, on loopback."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    yield server
    server.stop()


@pytest.fixture
def bucket(s3: ThreadedMotoServer) -> str:
    name = f"pictures-{uuid4().hex}"
    assert s3.get_host_and_port()
    client = boto3.client(
        "s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"], region_name=os.environ["AWS_REGION"]
    )
    client.create_bucket(Bucket=name)
    return name


@dataclass(eq=False)
class SteppedRow:
    spec: GenerationSpec
    num_done: int = 0


class SteppedPainter:
    """Paints stripes in the seed's colour; in its own time, or one step each time it is allowed."""

    def __init__(self, name: str = "stepped", variant: str = "default", steps: int = 4) -> None:
        self.info = ModelInfo(
            name=name,
            variant=variant,
            revision="0123456789ab",
            pipeline_class="PixArtAlphaPipeline",
            num_parameters=1,
            bits=32,
            default_steps=steps,
            default_guidance=4.0,
            sizes=((128, 128), (256, 128)),
            latent_channels=8,
            latent_factor=8,
            max_tokens=64,
            num_layers=2,
            region_defaults=RegionDefaults(),
            variants=("default",),
            origin={},
        )
        self.execution = Execution("stripes")
        self.steps_done = 0
        self.passes_begun = 0
        self.passes_ended = 0
        self.finished: list[GenerationSpec] = []
        self.failure: Exception | None = None
        self._permits = threading.Semaphore(0)
        self._runs_freely = threading.Event()
        self._runs_freely.set()

    def stop_before_each_step(self) -> None:
        self._runs_freely.clear()
        self.steps_done = self.passes_begun = self.passes_ended = 0

    def allow(self, num_steps: int) -> None:
        if num_steps:
            self._permits.release(num_steps)

    def run_freely(self) -> None:
        self._runs_freely.set()
        self._permits.release(10_000)

    def check(self, spec: GenerationSpec) -> None:
        pass

    def key(self, spec: GenerationSpec) -> Hashable:
        return spec.width, spec.height, spec.guidance_scale > 1

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    def unknown_words(self, text: str) -> list[str]:
        return [word for word in text.split() if word == "zebra"]

    def measure_budget(self, num_rows: int | None) -> float:
        return 1.0  # one picture at a time, so that tests can count

    def begin(self, spec: GenerationSpec) -> SteppedRow:
        if self.failure is not None:
            raise self.failure
        return SteppedRow(spec)

    def predict(self, rows: Sequence[SteppedRow]) -> list[int]:
        self.passes_begun += 1
        if not self._runs_freely.is_set():
            assert self._permits.acquire(timeout=PATIENCE_S)
        self.passes_ended += 1
        return [0] * len(rows)

    def apply(self, row: SteppedRow, prediction: int) -> None:
        row.num_done += 1
        self.steps_done += 1

    def preview(self, row: SteppedRow) -> Image.Image:
        return self._image(row)

    def decode(self, rows: Sequence[SteppedRow], *, tiled: bool = False) -> list[Image.Image]:
        self.finished += [row.spec for row in rows]
        return [self._image(row) for row in rows]

    def free_memory(self) -> None:
        pass

    def _image(self, row: SteppedRow) -> Image.Image:
        image = Image.linear_gradient("L").resize((row.spec.width, row.spec.height))
        seed = row.spec.seed
        return Image.merge("RGB", [image, image.point(lambda v: (v + seed) % 256), image])


@dataclass(frozen=True)
class RunningServer:
    base_url: str
    port: int
    server: uvicorn.Server
    thread: threading.Thread
    app: Any
    token: str

    @property
    def counters(self) -> Counters:
        return self.service.host.intake.counters

    @property
    def service(self) -> Service:
        return self.app.state.service

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(PATIENCE_S)
        assert not self.thread.is_alive()


@contextmanager
def running_server(
    *painters: Painter, is_warm: bool = True, key: KeyLimits | None = None, **changes: Any
) -> Iterator[RunningServer]:
    """A real server on a real socket, its event loop in a thread of this process."""
    with TemporaryDirectory() as data_dir:
        given = {"port": 0, "drain_timeout_s": 5, "data_dir": data_dir} | changes
        settings = Settings(**given)
        database = open_database(settings)
        token = KeyRing(database).create("test", key) if key is not None else "none"
        with take_port(settings) as listener:
            by_name = {painter.info.variant: painter for painter in painters}
            app = create_app(settings, by_name, database)
            server = make_server(app, settings)
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
            thread.start()
            port = listener.getsockname()[1]
            running = RunningServer(f"http://127.0.0.1:{port}/v1", port, server, thread, app, token)
            try:
                until(lambda: server.started)
                if is_warm:
                    until(lambda: running.service.readiness.is_ready)
                yield running
            finally:
                running.stop()


def until(condition: Callable[[], bool]) -> None:
    """Wait for what another thread will bring about."""
    give_up_at = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < give_up_at, "waited in vain"
        time.sleep(0.005)


@pytest.fixture
def stepped() -> Iterator[SteppedPainter]:
    generator = SteppedPainter()
    yield generator
    generator.run_freely()
