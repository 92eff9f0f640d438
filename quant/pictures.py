"""What people look at: pairs of float and low-bit pictures, and where the bits went."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from quant.adapters import held_weights
from quant.plan import LayerPlan
from quant.trajectory import Sampling, sample
from training.method import Method
from training.recorders import save_grid

MAX_PANELS = 24


def draw_allocation(plans: Mapping[str, LayerPlan], path: Path) -> None:
    """Draw kurtosis against bits for every channel of the layers whose bits moved.

    Args:
        plans: By layer name.
        path: PNG file to write; nothing is written where no bits moved.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    moved = {n: p for n, p in plans.items() if p.allocation is not None}
    if not moved:
        return
    names = list(moved)[:: -(-len(moved) // MAX_PANELS)]
    columns = 4
    figure = Figure(figsize=(3.2 * columns, 2.2 * -(-len(names) // columns)), layout="constrained")
    FigureCanvasAgg(figure)
    colors = {-1: "tab:blue", 0: "tab:gray", 1: "tab:red"}
    for index, name in enumerate(names):
        plan = moved[name]
        assert plan.allocation is not None
        axes = figure.add_subplot(-(-len(names) // columns), columns, index + 1)
        order = plan.allocation.kurtosis.argsort()
        tails, widths = plan.allocation.kurtosis[order], plan.grid.widths[order]
        usual = int(widths.mode().values)
        for bits in sorted({int(width) for width in widths}):
            chosen = (widths == bits).numpy()
            axes.scatter(
                np.flatnonzero(chosen),
                tails.numpy()[chosen],
                s=3,
                color=colors[max(-1, min(1, bits - usual))],
                label=f"{bits} bits",
            )
        axes.set_title(name.removeprefix("transformer_blocks."), fontsize=7)
        axes.tick_params(labelsize=6)
        axes.legend(fontsize=5, loc="upper left")
    figure.supxlabel("output channels, by kurtosis", fontsize=8)
    figure.supylabel("kurtosis of the scaled row", fontsize=8)
    figure.savefig(path, dpi=90)


class PairSampler:
    """Draws the same prompts and seeds with the float model and with the student.

    Args:
        pipeline: Samples with the float transformer.
        prompts: What is painted; picture i has seed i.
        sampling: Steps, guidance, batch size.
    """

    def __init__(self, pipeline: Any, prompts: Sequence[str], sampling: Sampling) -> None:  # noqa: ANN401
        self._pipeline, self._prompts, self._sampling = pipeline, prompts, sampling
        self._float: Float[np.ndarray, "n h w 3"] | None = None

    def __call__(self, method: Method, path: Path) -> Mapping[str, float]:
        """Write float pictures above low-bit ones, and return how far they are apart."""
        if self._float is None:
            self._float = self.draw()
        student = cast("Any", method).student
        with torch.no_grad(), held_weights(student), painting_with(self._pipeline, student):
            few_bits = self.draw()
        rows = [*self._float, *few_bits]
        save_grid([(x * 255).round().astype(np.uint8) for x in rows], len(self._prompts), path)
        return {"psnr_db": psnr_db(few_bits, self._float)}

    def draw(self) -> Float[np.ndarray, "n h w 3"]:
        """Return the pictures of the transformer that is in the pipeline now."""
        seeds = range(len(self._prompts))
        return np.concatenate(
            list(sample(self._pipeline, self._prompts, seeds, self._sampling, output_type="np"))
        )


@contextmanager
def painting_with(pipeline: Any, transformer: nn.Module) -> Iterator[None]:  # noqa: ANN401
    """Let a pipeline paint with another transformer inside the block.

    Args:
        pipeline: A diffusers pipeline.
        transformer: The one that paints.
    """
    own = pipeline.transformer
    pipeline.register_modules(transformer=transformer)
    try:
        yield
    finally:
        pipeline.register_modules(transformer=own)


def psnr_db(one: Float[np.ndarray, "*n"], other: Float[np.ndarray, "*n"]) -> float:
    """Return the peak signal-to-noise ratio of pictures in 0..1, in dB; 100 where they are equal.

    Args:
        one: Pictures.
        other: Pictures of the same shape.
    """
    error = float(np.square(one - other).mean())
    return 100.0 if error <= 1e-10 else -10 * float(np.log10(error))
