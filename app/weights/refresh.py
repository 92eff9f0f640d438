"""New weights while the service runs: checked, tried on a few pictures, swapped in, or refused.

Requests that were taken before a swap are painted to their end by the old weights; whatever goes
wrong on the way leaves the old ones in place.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog
from PIL import ImageStat

from app.engine_host import EngineHost
from app.schemas.images import PROMPT_EXAMPLE
from app.weights.releases import Release, ReleaseShelf
from core.errors import CapacityError, FewstrokeError, InputError
from pipelines.engine import Engine
from pipelines.events import Done, Event, Failed
from pipelines.intake import Intake
from pipelines.orders import Limits, Order
from pipelines.painter import Painter

CANARY_PROMPTS = (
    PROMPT_EXAMPLE,
    "a green tree on a white background",
    "two yellow stars above a brown dog",
)

MIN_CONTRAST = 1.0
"""Standard deviation of a picture's brightness, 0..255; less is one flat colour."""

Load = Callable[[Path, str], Painter]

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class CanaryError(FewstrokeError):
    """New weights that load, but do not paint; the old ones serve on."""

    code = "canary_failed"


class RefreshInProgressError(CapacityError):
    """Another change of what is served has not ended."""

    code = "refresh_in_progress"


class NothingToRollBackError(InputError):
    """A variant whose earlier weights this server does not hold."""

    code = "nothing_to_roll_back"


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """What stood in a variant's place before.

    Attributes:
        painter: The model.
        release: Its release; None for what the settings name.
    """

    painter: Painter
    release: str | None


class Refresher:
    """Changes what a running service serves, one change at a time.

    Args:
        host: The engine.
        shelf: The releases.
        load: Loads a variant from a checkpoint folder.
    """

    def __init__(self, host: EngineHost, shelf: ReleaseShelf, load: Load) -> None:
        self.shelf = shelf
        self._host = host
        self._load = load
        self._before: dict[str, Place] = {}
        self._is_busy = False

    @property
    def can_roll_back(self) -> set[str]:
        """Variants whose earlier weights are held."""
        return set(self._before)

    async def activate(self, name: str) -> Release:
        """Serve a release in the place of its variant.

        Args:
            name: Name of the release.

        Returns:
            The release. What is wrong with it is raised, and nothing has changed then.
        """
        with self._alone():
            release, painter, seconds = await asyncio.to_thread(self._stage, name)
            earlier = self.shelf.active().get(release.variant)
            # what can fail comes first: a change that is refused has changed nothing
            await asyncio.to_thread(self.shelf.set_active, release.variant, name)
            before = self._host.intake.swap(release.variant, painter)
            if before is not None:
                self._before[release.variant] = Place(painter=before, release=earlier)
        log.info(
            "refreshed",
            release=name,
            variant=release.variant,
            revision=release.revision,
            before=before.info.revision if before is not None else None,
            staged_s=round(seconds, 2),
        )
        return release

    async def roll_back(self, variant: str) -> str:
        """Serve again what a variant was before its last change.

        Args:
            variant: The variant.

        Returns:
            The revision that is served now.

        Raises:
            NothingToRollBackError: If this server did not change it since it started.
        """
        with self._alone():
            place = self._before.get(variant)
            if place is None:
                raise NothingToRollBackError(
                    f"{variant[:80]!r} was not changed since this server started: activate an "
                    "earlier release instead.",
                    param="variant",
                )
            earlier = self.shelf.active().get(variant)
            await asyncio.to_thread(self.shelf.set_active, variant, place.release)
            current = self._host.intake.swap(variant, place.painter)
            assert current is not None  # what was swapped in once stays
            self._before[variant] = Place(painter=current, release=earlier)
        revision = place.painter.info.revision
        log.info("rolled_back", variant=variant, revision=revision)
        return revision

    def _stage(self, name: str) -> tuple[Release, Painter, float]:
        started = time.perf_counter()
        release = self.shelf.find(name)
        serving = next(iter(self._host.intake.variants().values())).info.name
        if release.model != serving:
            raise InputError(
                f"{name} is a release of {release.model}, and this server serves {serving}: "
                f"publish it with --as {serving}.",
                param="release",
            )
        painter = self._load(self.shelf.verify(release), release.variant)
        try_out(painter)
        return release, painter, time.perf_counter() - started

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if self._is_busy:
            raise RefreshInProgressError(
                "Another change of what is served has not ended: try again when it has.",
                retry_after_s=5.0,
            )
        self._is_busy = True
        try:
            yield
        finally:
            self._is_busy = False


def try_out(painter: Painter) -> None:
    """Paint the canary's prompts with a model, apart from all requests.

    Args:
        painter: The model.

    Raises:
        CanaryError: If it fails, or paints one flat colour.
    """
    info = painter.info
    specs = [info.own_spec(prompt, seed=seed) for seed, prompt in enumerate(CANARY_PROMPTS)]
    events: list[Event] = []
    engine = Engine(Intake({info.variant: painter}, Limits()))
    engine.intake.submit(specs, Order(), events.append)
    while engine.tick():
        pass
    end = events[-1]
    if isinstance(end, Failed):
        raise CanaryError(f"The canary failed: {end.error}") from end.error
    assert isinstance(end, Done)
    for result in end.results:
        [contrast] = ImageStat.Stat(result.image.convert("L")).stddev
        if contrast < MIN_CONTRAST:
            raise CanaryError(f"The canary is one flat colour for {result.spec.prompt!r}.")
