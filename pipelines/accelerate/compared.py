"""Networks that somebody compiles, each compared with plain torch before it is trusted."""

import logging
import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from core.errors import UnsupportedError
from pipelines.accelerate.execution import Execution
from pipelines.accelerate.graphs import regional_words, words_of_layers
from pipelines.accelerate.memory import Memory
from pipelines.accelerate.networks import Networks, TorchNetworks
from pipelines.attention import RegionalRow, is_plain, words_stand_still
from pipelines.components import Components
from pipelines.conditioning import stack_words
from pipelines.step_cache import CachedPass

log = logging.getLogger(__name__)

Inputs = Sequence[Tensor]


class _RefusedError(Exception):
    """A compiled network that must not be used."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """A network for one size of picture.

    Attributes:
        name: "text_encoder", "words", "transformer", "regional_transformer", "vae" or "preview".
        size: Latent cells; none for texts.
    """

    name: str
    size: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Computed:
    """What came out.

    Attributes:
        output: One row for each that went in.
        new: Rows that went through something that was not compared yet.
    """

    output: Tensor
    new: Sequence[int]


@dataclass(frozen=True, kw_only=True, slots=True)
class HeardRow:
    """What one row hears at each of its steps.

    Attributes:
        words: What each layer made of the texts.
        mask: 1 where a word stands.
        loudness: How much each token hears each text in each layer; None without regions: one text
            is heard by every token.
    """

    words: Float[Tensor, "1 pairs t l d"]
    mask: Float[Tensor, "t l"]
    loudness: Float[Tensor, "layers t n"] | None = None

    @property
    def network(self) -> str:
        """Which network can hear it."""
        return "transformer" if self.loudness is None else "regional_transformer"

    @property
    def inputs(self) -> list[Tensor]:
        """What the transformer takes of it."""
        return [part for part in (self.words, self.mask, self.loudness) if part is not None]

    @property
    def num_bytes(self) -> int:
        """Bytes of its tensors."""
        return sum(part.nbytes for part in self.inputs)


class ComparedNetworks(Networks):
    """The networks as somebody compiles them, a row by itself, each beside its slow twin.

    Whatever cannot be compiled, or comes out otherwise than from plain torch, is computed by
    plain torch: logged once, counted always.

    Args:
        parts: The model's networks.
        latent_factor: Pixels along an edge for one latent cell.
        execution: Name and tolerance.
        revision: Content hash of the model's files.

    Raises:
        UnsupportedError: If the model's cross-attention is of another kind than PixArt's, or hears
            words otherwise at every timestep.
    """

    def __init__(
        self, parts: Components, latent_factor: int, *, execution: Execution, revision: str
    ) -> None:
        super().__init__(execution)
        if not all(is_plain(block.attn2) for block in parts.transformer.transformer_blocks):
            raise UnsupportedError("Its cross-attention is of another kind than PixArt's.")
        if not words_stand_still(parts.transformer):
            raise UnsupportedError("Its layers hear words otherwise at every timestep.")
        self._twin = TorchNetworks(parts, latent_factor)
        self._parts = parts
        self._factor = latent_factor
        self._revision = revision
        self._memory: Memory[HeardRow] = Memory()
        self._refused: dict[Task, str] = {}

    @abstractmethod
    def compute(self, task: Task, rows: Sequence[Inputs]) -> Computed:
        """Run rows through a compiled network, which is made when it is first asked for.

        Args:
            task: Which network.
            rows: Inputs of each row, in the order of the network's parameters.
        """

    def trust(self, task: Task) -> None:
        """Hear that what is new came out like plain torch.

        Args:
            task: Which network.
        """

    def forget(self, task: Task) -> None:
        """Hear that a network is used no longer.

        Args:
            task: Which network.
        """

    def encode(self, ids: Int[Tensor, "1 l"]) -> Float[Tensor, "l d"]:
        """One unpadded text."""
        task = Task(name="text_encoder")
        return self._run(task, [[ids]], lambda _: self._twin.encode(ids)[None])[0]

    @torch.no_grad()  # what is kept is read in later passes, whatever records gradients there
    def denoise(
        self,
        latents: Float[Tensor, "b c h w"],
        timesteps: Int[Tensor, " b"],
        words: Sequence[Float[Tensor, "_ d"]],
        regions: Sequence[RegionalRow | None],
    ) -> Float[Tensor, "b o h w"]:
        """Each row by itself; a row with regions runs through a network that mixes texts."""

        def plain(places: Sequence[int], at: slice = slice(None)) -> Tensor:
            own = places[at]
            return self._twin.denoise(
                latents[own],
                timesteps[own],
                [words[place] for place in own],
                [regions[place] for place in own],
            )

        if any(row is not None and not isinstance(row.form, str) for row in regions):
            self.execution.fall_back(
                "form", "another mixture than weighted attention was asked for"
            )
            return torch.cat([plain([place]) for place in range(len(latents))])
        size = tuple(latents.shape[-2:])
        heard = [
            self._hear(text) if row is None else self._hear_regions(row, size)
            for text, row in zip(words, regions, strict=True)
        ]
        rows = [
            [latent, timestep, *each.inputs]
            for latent, timestep, each in zip(
                latents.split(1), timesteps.float().split(1), heard, strict=True
            )
        ]
        by_network: dict[str, list[int]] = {}
        for place, each in enumerate(heard):
            by_network.setdefault(each.network, []).append(place)
        outputs: dict[int, Tensor] = {}
        for name, places in by_network.items():
            alike = [rows[place] for place in places]
            found = self._run(Task(name=name, size=size), alike, partial(plain, places))
            outputs.update(zip(places, found, strict=True))
        # Copied one by one: what torch joins wakes its threads, which keep the cores.
        output = outputs[0].new_empty((len(rows), *outputs[0].shape))
        for place, row in outputs.items():
            output[place] = row
        return output

    def denoise_cached(
        self,
        latents: Float[Tensor, "1 c h w"],
        timesteps: Int[Tensor, " 1"],
        words: Sequence[Float[Tensor, "_ d"]],
        regions: Sequence[RegionalRow | None],
        cached: CachedPass,
    ) -> Float[Tensor, "1 o h w"]:
        """By plain torch: a compiled network has no blocks to skip."""
        self.execution.fall_back("cache", "cache_threshold was asked for, which skips blocks")
        return self._twin.denoise_cached(latents, timesteps, words, regions, cached)

    def decode(self, latents: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 x y"]:
        """Each picture by itself; in tiles by plain torch."""

        def plain(rows: slice) -> Tensor:
            return self._twin.decode(latents[rows])

        if self._parts.vae.use_tiling:
            self.execution.fall_back("tiles", "pictures are decoded piece by piece to save memory")
            return _in_turn(plain, len(latents))
        task = Task(name="vae", size=tuple(latents.shape[-2:]))
        return self._run(task, [[row] for row in latents.split(1)], plain)

    def preview(self, latents: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 x y"]:
        """Each picture by itself."""
        task = Task(name="preview", size=tuple(latents.shape[-2:]))
        rows = [[row] for row in latents.split(1)]
        return self._run(task, rows, lambda rows: self._twin.preview(latents[rows]))

    def _hear(self, text: Float[Tensor, "_ d"]) -> HeardRow:
        def hear() -> HeardRow:
            stacked = stack_words([text])
            return HeardRow(words=self._words(stacked.vectors), mask=stacked.mask.float())

        return self._memory.recall((text,), hear)

    def _hear_regions(self, regions: RegionalRow, size: tuple[int, ...]) -> HeardRow:
        transformer = self._parts.transformer
        num_layers = len(transformer.transformer_blocks)
        num_tokens = math.prod(edge // transformer.config["patch_size"] for edge in size)

        def hear() -> HeardRow:
            texts, mask, loudness = regional_words(
                regions, num_layers=num_layers, num_tokens=num_tokens
            )
            return HeardRow(words=self._words(texts), mask=mask, loudness=loudness)

        return self._memory.recall((regions,), hear, kind=num_tokens)

    def _words(self, texts: Float[Tensor, "t l k"]) -> Float[Tensor, "1 pairs t l d"]:
        own = texts.to(self._parts.dtype)
        return self._run(
            Task(name="words"), [[own]], lambda _: words_of_layers(self._parts.transformer, own)
        )

    def _run(self, task: Task, rows: Sequence[Inputs], plain: Callable[[slice], Tensor]) -> Tensor:
        why = self._refused.get(task)
        if why is None:
            try:
                return self._computed(task, rows, plain)
            except Exception as error:  # noqa: BLE001  (whatever a compiler raises, torch computes)
                why = str(error) or type(error).__name__
                self.forget(task)
                self._refused[task] = why
        self.execution.fall_back(task.name, why)
        return _in_turn(plain, len(rows))

    def _computed(
        self, task: Task, rows: Sequence[Inputs], plain: Callable[[slice], Tensor]
    ) -> Tensor:
        found = self.compute(task, rows)
        for place in found.new:
            row = slice(place, place + 1)
            self._compare(task, found.output[row], plain(row))
        if found.new:
            self.trust(task)
        return found.output

    def _compare(self, task: Task, ours: Tensor, expected: Tensor) -> None:
        found = float((ours - expected).norm() / expected.norm())
        if not found <= self.execution.tolerance:  # not a number is no distance
            raise _RefusedError(f"it is {found:.1e} away from plain torch")
        log.info("%s of %s is %.1e away from plain torch", task.name, self._revision, found)


def _in_turn(plain: Callable[[slice], Tensor], num_rows: int) -> Tensor:
    # one at a time, as plain torch does on the CPU: a picture does not depend on its company
    return torch.cat([plain(slice(place, place + 1)) for place in range(num_rows)])
