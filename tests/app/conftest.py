"""A generator that moves only when a test lets it, and a real server around any generator."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import structlog
import uvicorn
from PIL import Image

from app.deps import Service
from app.generator import Generator
from app.main import create_app, take_port
from app.settings import Settings
from core.errors import GenerationCancelledError
from pipelines.region_defaults import RegionDefaults
from pipelines.spec import GenerationResult, GenerationSpec
from pipelines.store import ModelInfo

PATIENCE_S = 20.0


class SteppedGenerator:
    """Paints pictures of one colour; in its own time, or one step each time a test allows one."""

    def __init__(self) -> None:
        self.info = ModelInfo(
            name="stepped",
            variant="default",
            revision="0123456789ab",
            pipeline_class="PixArtAlphaPipeline",
            num_parameters=1,
            bits=32,
            default_steps=4,
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
        self.steps_done = 0
        self.finished: list[tuple[GenerationSpec, ...]] = []
        self.failure: Exception | None = None
        self.is_cancelled: Callable[[], bool] = lambda: False
        self._permits = threading.Semaphore(0)
        self._runs_freely = threading.Event()
        self._runs_freely.set()

    def stop_before_each_step(self) -> None:
        self._runs_freely.clear()
        self.steps_done = 0

    def allow(self, num_steps: int) -> None:
        self._permits.release(num_steps)

    def run_freely(self) -> None:
        self._runs_freely.set()
        self._permits.release(10_000)

    def check(self, spec: GenerationSpec) -> None:
        pass

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    def generate(
        self,
        specs: Sequence[GenerationSpec],
        *,
        on_step: Callable[[int, int], None] | None = None,
        is_cancelled: Callable[[], bool] | None = None,
    ) -> list[GenerationResult]:
        assert on_step is not None
        assert is_cancelled is not None
        self.is_cancelled = is_cancelled
        if self.failure is not None:
            raise self.failure
        for step in range(specs[0].num_steps):
            if not self._runs_freely.is_set():
                assert self._permits.acquire(timeout=PATIENCE_S)
            if is_cancelled():
                raise GenerationCancelledError("Nobody waits.")
            self.steps_done += 1
            on_step(step + 1, specs[0].num_steps)
        self.finished.append(tuple(specs))
        return [self._result(spec) for spec in specs]

    def _result(self, spec: GenerationSpec) -> GenerationResult:
        return GenerationResult(
            image=Image.new("RGB", (spec.width, spec.height), (spec.seed % 256, 0, 0)),
            spec=spec,
            model=self.info.name,
            revision=self.info.revision,
            timings_s={"encode": 0.0, "denoise": 0.0, "decode": 0.0},
        )


@dataclass(frozen=True)
class RunningServer:
    base_url: str
    port: int
    server: uvicorn.Server
    thread: threading.Thread
    app: Any

    @property
    def service(self) -> Service:
        return self.app.state.service

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(PATIENCE_S)
        assert not self.thread.is_alive()


@contextmanager
def running_server(
    generator: Generator, *, is_warm: bool = True, **changes: Any
) -> Iterator[RunningServer]:
    """A real server on a real socket, its event loop in a thread of this process."""
    settings = Settings(**({"port": 0, "drain_timeout_s": 5} | changes))
    with take_port(settings) as listener:
        app = create_app(settings, generator)
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                lifespan="on",
                timeout_graceful_shutdown=settings.drain_timeout_s,
            )
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        port = listener.getsockname()[1]
        running = RunningServer(f"http://127.0.0.1:{port}/v1", port, server, thread, app)
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


@pytest.fixture(autouse=True, scope="session")
def plain_log() -> None:
    # the library's default draws tracebacks with all local values, which takes seconds
    structlog.configure(processors=[structlog.processors.KeyValueRenderer()])


@pytest.fixture
def stepped() -> Iterator[SteppedGenerator]:
    generator = SteppedGenerator()
    yield generator
    generator.run_freely()
