"""The transformer compiled by torch: one block, which serves all layers, sizes and regions."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pipelines.accelerate.byte_products import byte_layer
from pipelines.accelerate.compared import ComparedNetworks, Computed, Inputs, Task
from pipelines.accelerate.execution import Execution
from pipelines.accelerate.graphs import RowTransformer, words_of_layers
from pipelines.components import Components

CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"


class TorchCompiledNetworks(ComparedNetworks):
    """The transformer's blocks as torch's own compiler makes them; the rest as it is.

    The blocks of a transformer are alike, so one is compiled and serves them all: seconds instead
    of minutes. Numbers of words, regions and tokens are left open, so that only two forms are
    compiled, for one text and for several.

    Args:
        parts: The model's networks, on any device, in any number format.
        latent_factor: Pixels along an edge for one latent cell.
        execution: Name and tolerance.
        revision: Content hash of the model's files.
        cache_dir: Where what was compiled is kept for the next start; None leaves it to torch.

    Raises:
        UnsupportedError: If the transformer is no PixArt.
    """

    def __init__(
        self,
        parts: Components,
        latent_factor: int,
        *,
        execution: Execution,
        revision: str,
        cache_dir: Path | None,
    ) -> None:
        super().__init__(parts, latent_factor, execution=execution, revision=revision)
        if cache_dir is not None:  # read when something is compiled
            os.environ.setdefault(CACHE_VARIABLE, str(cache_dir / "torch"))
        row = RowTransformer(parts.transformer, latent_factor, exchange=byte_layer)
        self._row = row.to(parts.dtype)  # low-bit weights that were expanded to floats
        # The first block's input would be strided otherwise than the others', and compiled apart.
        self._row.network.pos_embed.register_forward_hook(lambda *call: call[-1].contiguous())
        for block in self._row.network.transformer_blocks:
            block.compile(dynamic=True, fullgraph=True)
        self._compared: set[Task] = set()
        self._fresh: set[Task] = set()

    @property
    def num_rows(self) -> int:
        """As many as plain torch takes: rows go through one by one."""
        return self._twin.num_rows

    def encode(self, ids: Int[Tensor, "1 l"]) -> Float[Tensor, "l d"]:
        """By plain torch."""
        return self._twin.encode(ids)

    def decode(self, latents: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 x y"]:
        """By plain torch."""
        return self._twin.decode(latents)

    def preview(self, latents: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 x y"]:
        """By plain torch."""
        return self._twin.preview(latents)

    def compute(self, task: Task, rows: Sequence[Inputs]) -> Computed:
        """Run rows one by one; words by plain torch."""
        if task.name == "words":
            found = [words_of_layers(self._parts.transformer, texts) for [texts] in rows]
            return Computed(output=torch.cat(found), new=[])
        outputs, new = [], []
        for place, (latent, timestep, *heard) in enumerate(rows):
            if task not in self._compared | self._fresh:
                self._fresh.add(task)
                new.append(place)
            device, dtype = latent.device, self._parts.dtype
            words = (part.to(device, dtype) for part in heard)
            outputs.append(self._row(latent.to(dtype), timestep, *words).float())
        return Computed(output=torch.cat(outputs), new=new)

    def trust(self, task: Task) -> None:
        """Compare it no more."""
        self._compared.add(task)
        self._fresh.discard(task)


def why_not() -> str | None:
    """Return why torch cannot compile on this machine; None if it can."""
    compiler = os.environ.get("CXX") or "g++"
    if any(shutil.which(name) for name in (compiler, "clang++")):
        return None
    return "torch compiles with a C++ compiler, and there is none: apt-get install g++."
