"""A painter without a network: what is left of a service's time when the model takes none.

    python -m benchmarks.quick_painter serve|work

is a real server, or a real worker, that paints with it. Settings come from the environment, as for
`fewstroke serve` and `fewstroke worker`. Nothing in the service itself knows this painter.
"""

import sys
import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from PIL import Image

import app.main
import app.worker
from app.settings import Settings
from pipelines.accelerate.execution import Execution
from pipelines.model_info import ModelInfo
from pipelines.painter import Painter
from pipelines.region_defaults import RegionDefaults
from pipelines.spec import GenerationSpec

LOADER = "load_painters"
"""What both modules call to get their painters."""


@dataclass(eq=False)
class QuickRow:
    """One picture on its way.

    Attributes:
        spec: What is asked for.
        num_done: Steps done.
    """

    spec: GenerationSpec
    num_done: int = 0


class QuickPainter:
    """Paints stripes that are a pure function of seed, size and prompt.

    Args:
        step_s: How long a forward pass takes, in seconds.
    """

    def __init__(self, step_s: float = 0.01) -> None:
        self._step_s = step_s
        self.execution = Execution("stripes")
        self.info = ModelInfo(
            name="quick",
            variant="default",
            revision="000000000000",
            pipeline_class="PixArtAlphaPipeline",
            num_parameters=1,
            bits=32,
            default_steps=2,
            default_guidance=4.0,
            sizes=((64, 64), (128, 64)),
            latent_channels=8,
            latent_factor=8,
            max_tokens=64,
            num_layers=2,
            region_defaults=RegionDefaults(),
            variants=("default",),
            origin={},
        )

    def check(self, spec: GenerationSpec) -> None:
        """Take any picture.

        Args:
            spec: The picture.
        """

    def key(self, spec: GenerationSpec) -> Hashable:
        """Return what pictures must share to be painted together.

        Args:
            spec: The picture.
        """
        return spec.width, spec.height, spec.guidance_scale > 1

    def count_tokens(self, text: str) -> int:
        """Return the number of words.

        Args:
            text: A prompt.
        """
        return len(text.split())

    def unknown_words(self, text: str) -> list[str]:  # noqa: ARG002 - it knows every word
        """Return nothing.

        Args:
            text: A prompt.
        """
        return []

    def measure_budget(self, num_rows: int | None) -> float:
        """Return room for many pictures.

        Args:
            num_rows: Not used.
        """
        del num_rows
        return 1e12

    def begin(self, spec: GenerationSpec) -> QuickRow:
        """Return a row.

        Args:
            spec: The picture.
        """
        return QuickRow(spec)

    def predict(self, rows: Sequence[QuickRow]) -> list[int]:
        """Take the time of a forward pass.

        Args:
            rows: The pictures.
        """
        time.sleep(self._step_s)
        return [0] * len(rows)

    def apply(self, row: QuickRow, prediction: int) -> None:
        """Advance by a step.

        Args:
            row: The picture.
            prediction: Nothing.
        """
        del prediction
        row.num_done += 1

    def preview(self, row: QuickRow) -> Image.Image:
        """Return the picture.

        Args:
            row: The picture.
        """
        return _paint(row.spec)

    def decode(self, rows: Sequence[QuickRow], *, tiled: bool = False) -> list[Image.Image]:
        """Return the pictures.

        Args:
            rows: The pictures.
            tiled: Not used.
        """
        del tiled
        return [_paint(row.spec) for row in rows]

    def free_memory(self) -> None:
        """Hold none."""


def _paint(spec: GenerationSpec) -> Image.Image:
    shift = spec.seed + sum(spec.prompt.encode())
    stripes = Image.linear_gradient("L").resize((spec.width, spec.height))
    return Image.merge("RGB", [stripes, stripes.point(lambda v: (v + shift) % 256), stripes])


def _load_painters(_settings: Settings) -> dict[str, Painter]:
    return {"default": QuickPainter()}


if __name__ == "__main__":
    for module in (app.main, app.worker):
        setattr(module, LOADER, _load_painters)
    if sys.argv[1] == "serve":
        app.main.serve()
    else:
        app.worker.work()
