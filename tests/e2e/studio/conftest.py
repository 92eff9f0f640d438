"""A real browser on the page of a real server, and what it must never do."""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from app.main import load_painters
from app.settings import Settings
from tests.app.conftest import RunningServer, SteppedPainter, running_server, stepped

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed.")

__all__ = ["stepped"]

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PROMPT = "a red apple left of a blue cat, watercolor"
PATIENCE_MS = 60_000
WARM_WITHIN_S = 300.0

Open = Callable[..., "Studio"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.slow)


@dataclass
class Studio:
    """The page, with what it logged and whom it asked."""

    page: Any
    server: RunningServer
    errors: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    answers: list[Any] = field(default_factory=list)
    expected: tuple[str, ...] = ()

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.server.port}"

    @property
    def plan(self) -> dict[str, Any]:
        return json.loads(self.page.input_value("#json"))

    def visit(self, path: str = "/studio/") -> None:
        self.page.goto(self.origin + path)
        self.wait_until_interactive()

    def wait_until_interactive(self) -> None:
        # by selector: the page's policy forbids what wait_for_function evaluates
        self.page.wait_for_selector("html[data-interactive]", state="attached")

    def make_plan(self, prompt: str = PROMPT) -> dict[str, Any]:
        self.page.fill("#prompt", prompt)
        self.page.click("#plan")
        self.says("Planned")
        return self.plan

    def paint(self) -> None:
        self.page.click("#paint")
        self.says("Finished")

    def says(self, text: str, where: str = "#status") -> None:
        playwright.expect(self.page.locator(where)).to_contain_text(text, timeout=PATIENCE_MS)

    def set(self, name: str, value: str) -> None:
        self.unfold(f"#{name}")
        self.page.fill(f"#{name}", value)
        self.page.press(f"#{name}", "Tab")

    def unfold(self, selector: str) -> None:
        opened = "e => e.closest('details')?.setAttribute('open', '')"
        self.page.eval_on_selector(selector, opened)

    def grab(self, name: str) -> None:
        """Keep a small screenshot where STUDIO_SCREENSHOTS asks for it."""
        folder = os.environ.get("STUDIO_SCREENSHOTS")
        if folder:
            self.page.mouse.move(2, 2)
            image = Image.open(BytesIO(self.page.screenshot()))
            image.convert("RGB").save(Path(folder) / f"{name}.png", optimize=True)

    def drop(self, name: str, content: bytes) -> None:
        self.page.evaluate(
            """([name, bytes]) => {
                const held = new DataTransfer();
                held.items.add(new File([new Uint8Array(bytes)], name));
                dispatchEvent(new DragEvent("drop", { dataTransfer: held, cancelable: true }));
            }""",
            [name, list(content)],
        )

    @property
    def unexpected(self) -> list[str]:
        return [e for e in self.errors if not any(part in e for part in self.expected)]

    def check(self) -> None:
        assert not self.unexpected, "the page logged errors"
        assert not self.foreign, "the page asked another server"


@pytest.fixture(scope="package")
def browser() -> Iterator[Any]:
    # Ends with this folder's tests: until then its event loop runs in this thread.
    with playwright.sync_playwright() as driver:
        own = driver.chromium.executable_path
        found = next(filter(None, map(shutil.which, BROWSERS)), own if Path(own).exists() else None)
        if found is None:
            missing = "There is no Chromium: apt-get install chromium, or tools/setup.sh browser"
            # where nobody looks, a page that was never opened must not pass
            (pytest.fail if os.environ.get("CI") else pytest.skip)(missing)
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        launched = driver.chromium.launch(executable_path=found, args=arguments)
        yield launched
        launched.close()


@pytest.fixture
def open_studio(browser: Any, record_property: Callable[[str, object], None]) -> Iterator[Open]:
    opened: list[Studio] = []

    def open_at(
        server: RunningServer,
        *,
        path: str = "/studio/",
        expected: tuple[str, ...] = (),
        **options: Any,
    ) -> Studio:
        options.setdefault("viewport", {"width": 1280, "height": 900})
        context = browser.new_context(accept_downloads=True, **options)
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        studio = Studio(page, server, expected=expected)
        listen(studio)
        studio.visit(path)
        opened.append(studio)
        return studio

    yield open_at
    for studio in opened:
        studio.page.context.close()
    record_property("console_errors", sum(len(studio.unexpected) for studio in opened))
    record_property("foreign_requests", sum(len(studio.foreign) for studio in opened))
    for studio in opened:
        studio.check()


def listen(studio: Studio) -> None:
    def on_console(message: Any) -> None:
        if message.type in {"error", "warning"}:
            studio.errors.append(message.text)

    def on_request(request: Any) -> None:
        if not request.url.startswith((studio.origin + "/", "blob:", "data:")):
            studio.foreign.append(request.url)

    def on_answer(answer: Any) -> None:
        studio.answers.append(answer)

    studio.page.on("console", on_console)
    studio.page.on("pageerror", lambda error: studio.errors.append(str(error)))
    studio.page.on("request", on_request)
    studio.page.on("response", on_answer)


@pytest.fixture(scope="package")
def quick_server() -> Iterator[RunningServer]:
    """Paints stripes in no time: for all that is not about the model."""
    painters = (SteppedPainter(variant="default", steps=8), SteppedPainter(variant="few", steps=2))
    with running_server(*painters) as running:
        yield running


@pytest.fixture
def studio(quick_server: RunningServer, open_studio: Open) -> Studio:
    return open_studio(quick_server)


@pytest.fixture(scope="package")
def shipped_server() -> Iterator[RunningServer]:
    """The model of the repository, in all variants that are shipped."""
    painters = load_painters(Settings(device="cpu", serve_variants="all"))
    with running_server(*painters.values(), is_warm=False) as running:
        give_up_at = time.monotonic() + WARM_WITHIN_S
        while not running.service.readiness.is_ready:
            assert time.monotonic() < give_up_at, "the model never became warm"
            time.sleep(0.1)
        yield running
