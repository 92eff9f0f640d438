"""A model as the engine wants it: pictures as rows, each with its own words, noise and solver."""

import time
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from core.errors import DeviceMemoryError, NumericsError
from pipelines.accelerate.execution import Execution
from pipelines.guidance import Guide
from pipelines.heard import Heard
from pipelines.invariance import padded_length
from pipelines.model_info import ModelInfo
from pipelines.schedulers import make_scheduler
from pipelines.scheduling import step_cost_of
from pipelines.spec import GenerationSpec
from pipelines.step_cache import StepCache
from pipelines.text_to_image import TextToImage

CPU_SIZES = (1, 2, 4)
GPU_SIZES = (1, 2, 4, 8, 16, 32)
"""Rows of one pass that are tried when a model is new."""


class RowPainter:
    """Paints rows of any requests together, a step at a time.

    Args:
        model: The loaded model.
    """

    def __init__(self, model: TextToImage) -> None:
        self.model = model

    @property
    def info(self) -> ModelInfo:
        """What is loaded."""
        return self.model.info

    @property
    def execution(self) -> Execution:
        """What computes it."""
        return self.model.networks.execution

    def check(self, spec: GenerationSpec) -> None:
        """Refuse, before any work, a picture that this model cannot paint as asked.

        Args:
            spec: The picture. The InputError that is raised names its field at fault.
        """
        self.model.check(spec)

    def count_tokens(self, text: str) -> int:
        """Return how many tokens the model reads for a text, end mark included.

        Args:
            text: A prompt.
        """
        return self.model.words.count_tokens(text)

    def unknown_words(self, text: str) -> list[str]:
        """Return the words of a text that the model has no tokens for.

        Args:
            text: A prompt.
        """
        return self.model.words.unknown_words(text)

    def key(self, spec: GenerationSpec) -> Hashable:
        """Return what rows of one forward pass have in common.

        Size and length of the words give tensors their shapes; guidance doubles what a row costs;
        rows without regions need not pay for those with.

        Args:
            spec: A picture that was checked.
        """
        guided = spec.guidance_scale > 1
        num_tokens = self.count_tokens(spec.prompt)
        if guided:
            num_tokens = max(num_tokens, self.count_tokens(spec.negative_prompt))
        size = (spec.width, spec.height)
        return size, guided, padded_length(num_tokens), bool(spec.regions)

    def measure_budget(self, num_rows: int | None) -> float:
        """Return what one forward pass should cost at most, in pixels times passes.

        On the CPU only so many rows go together as keep every bit; that is tried, not assumed.

        Args:
            num_rows: Pictures of the model's own size and guidance that go together; None
                measures how many are worth it. A pass that does not fit is halved by the engine.
        """
        on_cpu = self.model.parts.device.type == "cpu"
        spec = self.info.own_spec("a red circle")
        if num_rows is None:
            sizes = CPU_SIZES if on_cpu else GPU_SIZES
            num_rows = best_num_rows(measure_rows(self, spec, sizes), exact=on_cpu)
        return num_rows * step_cost_of(spec)

    @torch.inference_mode()
    def begin(self, spec: GenerationSpec) -> "Row":
        """Encode a picture's words, draw its noise and set up its solver.

        Args:
            spec: The picture.

        Returns:
            The row before its first step.
        """
        with _memory_told(self.model):
            scheduler = make_scheduler(spec.scheduler, self.model.noise_schedule, spec.num_steps)
            return Row(
                spec=spec,
                heard=self.model.prepare(spec),
                scheduler=scheduler,
                latents=self.model.noise(spec) * scheduler.init_noise_sigma,
                guide=Guide(spec.guidance_every, spec.num_steps),
                cache=StepCache(spec.cache_threshold, spec.num_steps),
            )

    @torch.inference_mode()
    def predict(self, rows: Sequence["Row"]) -> list[Float[Tensor, "1 c h w"]]:
        """Ask the transformer once what these rows hide; no row is changed.

        Args:
            rows: Rows of one key, each at its own step.

        Returns:
            One prediction per row.
        """
        with _memory_told(self.model):
            outputs = self.model.predict(
                torch.cat([row.latents for row in rows]),
                torch.stack([row.scheduler.timesteps[row.num_done] for row in rows]),
                [row.heard for row in rows],
                [row.num_done / row.spec.num_steps for row in rows],
                [row.guide for row in rows],
                caches=[row.cache for row in rows],
            )
        return list(outputs.split(1))

    @torch.inference_mode()
    def apply(self, row: "Row", prediction: Float[Tensor, "1 c h w"]) -> None:
        """Advance one row by one step of its own solver.

        Args:
            row: The row.
            prediction: What `predict` returned for it.
        """
        timestep = row.scheduler.timesteps[row.num_done]
        row.latents = row.scheduler.step(prediction, timestep, row.latents, return_dict=False)[0]
        row.num_done += 1

    def preview(self, row: "Row") -> Image.Image:
        """Decode the clean picture that the solver expected at the row's last step.

        The solver keeps this estimate for its next step, so that a preview costs one decode and
        no forward pass.

        Args:
            row: A row after its first step.

        Returns:
            The preview, of the picture's size.
        """
        expected = row.scheduler.model_outputs[-1]
        assert expected is not None  # the solver keeps it from its first step on
        with _memory_told(self.model), torch.inference_mode():
            return self.model.decode(expected, preview=True)[0]

    def decode(self, rows: Sequence["Row"], *, tiled: bool = False) -> list[Image.Image]:
        """Turn finished rows of one size into pictures.

        Args:
            rows: Rows after their last step.
            tiled: Decode piece by piece; only pictures larger than a tile take less memory then.

        Returns:
            One picture per row.

        Raises:
            NumericsError: If the latents of a row hold a NaN or an infinity.
        """
        latents = torch.cat([row.latents for row in rows])
        if not torch.isfinite(latents).all():
            seeds = [row.spec.seed for row in rows]
            raise NumericsError(
                f"{self.info.name} left NaN or infinity in the latents of seeds {seeds} in "
                f"{self.model.parts.dtype}: try dtype float32."
            )
        with _memory_told(self.model), torch.inference_mode():
            if not tiled:
                return self.model.decode(latents)
            vae = self.model.parts.vae
            vae.enable_tiling()
            try:
                return self.model.decode(latents)
            finally:
                vae.disable_tiling()

    def free_memory(self) -> None:
        """Give memory back to the device that only waits to be used again."""
        if self.model.parts.device.type == "cuda":
            torch.cuda.empty_cache()


@dataclass(kw_only=True, slots=True, eq=False)
class Row:
    """One picture between two steps.

    Attributes:
        spec: What is asked for.
        heard: What it hears.
        scheduler: Its own solver, with its own memory of earlier steps.
        latents: The noisy picture.
        guide: What it remembers of its guidance.
        cache: What it keeps of its blocks.
        num_done: Steps done.
    """

    spec: GenerationSpec
    heard: Heard
    scheduler: DPMSolverMultistepScheduler
    latents: Float[Tensor, "1 c h w"]
    guide: Guide
    cache: StepCache
    num_done: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class RowTime:
    """How fast rows go together.

    Attributes:
        num_rows: Rows of one pass.
        seconds_per_row: Seconds of the pass over its rows.
        is_exact: Whether each row got the bits that it gets alone.
    """

    num_rows: int
    seconds_per_row: float
    is_exact: bool


def measure_rows(
    painter: RowPainter, spec: GenerationSpec, num_rows: Sequence[int], *, num_repeats: int = 2
) -> list[RowTime]:
    """Measure passes of several sizes, and whether rows keep their bits in them.

    Args:
        painter: The loaded model.
        spec: A picture; its rows differ in seed and, where it has several steps, in their step.
        num_rows: Sizes to measure, ascending; what does not fit into memory ends the list.
        num_repeats: Passes of each size; the fastest counts.

    Returns:
        One entry per size that fits.
    """
    rows = [painter.begin(replace(spec, seed=place)) for place in range(max(num_rows))]
    for place, row in enumerate(rows):
        row.num_done = place % spec.num_steps
    measured = []
    for count in num_rows:
        try:
            passes = [_timed_pass(painter, rows[:count]) for _ in range(num_repeats)]
        except DeviceMemoryError:
            painter.free_memory()
            break
        together = passes[0][0]
        is_exact = count == 1 or all(
            torch.equal(together[place], painter.predict([rows[place]])[0].cpu())
            for place in range(count)
        )
        fastest_s = min(seconds for _, seconds in passes)
        measured.append(
            RowTime(num_rows=count, seconds_per_row=fastest_s / count, is_exact=is_exact)
        )
    return measured


def best_num_rows(measured: Sequence[RowTime], *, exact: bool, slack: float = 0.05) -> int:
    """Return how many rows should go together: the fewest that are nearly as fast as any.

    Args:
        measured: What `measure_rows` returned; 1 row is taken if it is empty.
        exact: Whether only sizes that keep every bit may be taken.
        slack: How much slower than the fastest still counts as fast.
    """
    allowed = [time for time in measured if time.is_exact or not exact]
    if not allowed:
        return 1
    fastest = min(time.seconds_per_row for time in allowed)
    good = [time for time in allowed if time.seconds_per_row <= (1 + slack) * fastest]
    return min(time.num_rows for time in good)


def _timed_pass(painter: RowPainter, rows: Sequence[Row]) -> tuple[list[Tensor], float]:
    started = time.perf_counter()
    outputs = [output.cpu() for output in painter.predict(rows)]  # waits for the device
    return outputs, time.perf_counter() - started


@contextmanager
def _memory_told(model: TextToImage) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise DeviceMemoryError(_full(model), retry_after_s=5.0) from error
    except RuntimeError as error:
        # torch has no class of its own for the CPU's memory
        if "DefaultCPUAllocator" not in str(error):
            raise
        raise DeviceMemoryError(_full(model), retry_after_s=5.0) from error


def _full(model: TextToImage) -> str:
    return (
        f"{model.parts.device} has no memory for this picture beside what it holds: ask for a "
        "smaller one, or try again later."
    )
