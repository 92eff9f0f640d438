"""The networks compiled by OpenVINO."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from core.devices import byte_product_bits, usable_cores
from pipelines.accelerate.compared import ComparedNetworks, Computed, Inputs, Task
from pipelines.accelerate.execution import Execution
from pipelines.accelerate.graphs import (
    Decoder,
    RowDecoder,
    RowEncoder,
    RowTransformer,
    RowWords,
)
from pipelines.accelerate.openvino_graphs import attend_in_bfloat16, in_eight_bits, to_graph
from pipelines.accelerate.openvino_runtime import CompiledNetwork, abilities, core, machine_key
from pipelines.accelerate.packed_graphs import plain_layer
from pipelines.accelerate.shelf import Shelf
from pipelines.attention import hears_words
from pipelines.components import Components
from quant.constants import IntegerWeights
from quant.store import packed_layers, storage

FORMAT = 4
"""Changes whenever graphs are made in another way, so that kept ones are made anew."""

GROUPS = (128, 64, *range(256, 0, -1))
"""Inputs that share one scale when inputs are rounded while running, the fastest first: the first
that divides the network's width is taken."""

SMALL_NETWORK = 100_000_000
"""Weights up to which rows run side by side: larger networks keep all threads busy with one,
and weights are held once for each number of lanes."""

BFLOAT16 = "BF16"
"""What OpenVINO calls a processor's ability to multiply bfloat16."""

_HALVED: Mapping[str, str] = {"INFERENCE_PRECISION_HINT": "bf16"}
_FLOAT_INPUTS: Mapping[str, str] = {"DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rounding:
    """How far compiled networks may leave float, and how low-bit codes are multiplied.

    Attributes:
        weights: Whether float weights inside the blocks are rounded to eight bits.
        decoder: Whether the decoder computes in bfloat16 where the processor does.
        codes: Whether low-bit codes are expanded to eight bits and multiplied as whole numbers,
            instead of kept in as few bits as they fit in. What lies between the products is then
            computed in bfloat16 where the network is large and the processor can. (Where inputs are
            rounded while running, whatever this says, attention alone is.)
    """

    weights: bool = False
    decoder: bool = False
    codes: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class _Plan:
    """How a network is made, and how it runs."""

    make: Callable[[], Any]
    num_lanes: int = 1
    settings: Mapping[str, str] = field(default_factory=dict)


class OpenvinoNetworks(ComparedNetworks):
    """The networks as compiled graphs, several rows side by side.

    Only what came out like plain torch is kept for the next start, on the same processor, so that
    what is found need not be compared again.

    Args:
        parts: The model's networks, on the CPU in float32.
        latent_factor: Pixels along an edge for one latent cell.
        execution: Name and tolerance.
        revision: Content hash of the model's files.
        shelf: Where compiled networks are kept; None keeps none.
        rounding: How far it may leave float.
        num_threads: CPU threads; None takes as many as torch does.
    """

    def __init__(
        self,
        parts: Components,
        latent_factor: int,
        *,
        execution: Execution,
        revision: str,
        shelf: Shelf | None,
        rounding: Rounding,
        num_threads: int | None = None,
    ) -> None:
        super().__init__(parts, latent_factor, execution=execution, revision=revision)
        self._shelf = shelf
        self._rounding = rounding
        self._threads = num_threads or min(torch.get_num_threads(), usable_cores())
        num_floats = sum(weight.numel() for weight in parts.transformer.parameters())
        num_weights = num_floats + storage(parts.transformer)["num_weights"]
        is_small = num_weights <= SMALL_NETWORK
        self._num_lanes = self._threads if is_small else 1
        # Large networks wait for memory between products, where small ones gain nothing.
        self._halves_between = not is_small and BFLOAT16 in abilities()
        self._code_bits = byte_product_bits() if rounding.codes else None
        self._exchange = partial(plain_layer, code_bits=self._code_bits)
        self._inputs_rounded = self._find_inputs_rounded()
        self._ready: dict[Task, CompiledNetwork] = {}
        # compiled here and not yet compared with plain torch, with what the shelf finds them by
        self._fresh: dict[Task, list[tuple[Mapping[str, object], Any]]] = {}

    @property
    def num_rows(self) -> int:
        """As many as run side by side, twice: one row may wait while others are computed."""
        return 2 * self._num_lanes

    def compute(self, task: Task, rows: Sequence[Inputs]) -> Computed:
        """Run rows side by side, each by itself."""
        if task not in self._ready:
            plan = self._plan(task)
            self._ready[task] = CompiledNetwork(partial(self._compile, task, plan), plan.num_lanes)
        arrays = self._ready[task]([[part.numpy() for part in row] for row in rows])
        # In numpy: threads that torch wakes keep spinning, and take the cores from the next call.
        output = torch.from_numpy(np.concatenate(arrays) if len(arrays) > 1 else arrays[0])
        return Computed(output=output, new=[0] if self._fresh.get(task) else [])

    def trust(self, task: Task) -> None:
        """Keep it for the next start."""
        for key, compiled in self._fresh.pop(task, []):
            if self._shelf:
                self._shelf.keep(key, compiled.export_model().getvalue())

    def forget(self, task: Task) -> None:
        """Let it go."""
        self._ready.pop(task, None)
        self._fresh.pop(task, None)

    def _plan(self, task: Task) -> _Plan:
        if task.name == "text_encoder":
            return _Plan(make=self._make_encoder)
        if task.name == "words":
            return _Plan(make=self._make_words, settings=self._inputs_rounded)
        if task.name in {"transformer", "regional_transformer"}:
            return _Plan(
                make=partial(self._make_transformer, *task.size, mixes=task.name != "transformer"),
                num_lanes=self._num_lanes,
                settings={**self._inputs_rounded, **self._between()},
            )
        vae = self._parts.preview if task.name == "preview" else self._parts.vae
        assert vae is not None  # nobody asks for previews of a small decoder that is not there
        norms_pictures = any(isinstance(each, nn.GroupNorm) for each in vae.modules())
        return _Plan(
            make=partial(self._make_decoder, vae, *task.size),
            # Threads share the sums of a norm over a whole picture, in an order of their own.
            num_lanes=1 if norms_pictures else self._num_lanes,
            settings=_HALVED if self._rounding.decoder and BFLOAT16 in abilities() else {},
        )

    def _compile(self, task: Task, plan: _Plan, num_lanes: int) -> Any:  # noqa: ANN401 - openvino's own
        settings = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": str(self._threads),
            "NUM_STREAMS": str(num_lanes),
            "ENABLE_CPU_PINNING": "NO",  # other processes have the same cores
            **plan.settings,
        }
        key: Mapping[str, object] = {
            "format": FORMAT,
            "revision": self._revision,
            "tolerance": self.execution.tolerance,
            "network": task.name,
            "size": task.size,
            "rounding": asdict(self._rounding),
            "code_bits": self._code_bits,
            "settings": settings,
            **machine_key(),
        }
        kept = self._shelf.find(key) if self._shelf else None
        if kept is not None:
            try:
                return core().import_model(kept, "CPU", settings)
            except RuntimeError as error:
                log.warning("A compiled %s was kept that cannot be read: %s", task.name, error)
        compiled = core().compile_model(plan.make(), "CPU", settings)
        self._fresh.setdefault(task, []).append((key, compiled))
        return compiled

    def _make_transformer(self, height: int, width: int, *, mixes: bool) -> Any:  # noqa: ANN401 - openvino's own
        network = self._parts.transformer
        row = RowTransformer(network, self._factor, exchange=self._exchange)
        channels, depth = network.config["in_channels"], network.inner_dim
        num_tokens = height * width // network.config["patch_size"] ** 2
        num_layers, num_words = len(network.transformer_blocks), 3
        num_texts = 2 if mixes else 1
        example = [
            torch.randn(1, channels, height, width),
            torch.tensor([500.0]),
            torch.randn(1, 2 * num_layers, num_texts, num_words, depth),
            # One text has a mask, too: attention without one comes out wrong in OpenVINO 2026.4
            # where a text of a single word went before a long one.
            torch.ones(num_texts, num_words),
        ]
        shapes = [
            [1, channels, height, width],
            [1],
            [1, 2 * num_layers, -1 if mixes else 1, -1, depth],
            [-1 if mixes else 1, -1],
        ]
        if mixes:
            example.append(torch.full((num_layers, num_texts, num_tokens), 1 / num_texts))
            shapes.append([num_layers, -1, num_tokens])
        graph = to_graph(row, example, shapes, self._codes_of(row))
        if self._halves_between and self._inputs_rounded != _FLOAT_INPUTS:
            attend_in_bfloat16(graph)
        return graph

    def _make_words(self) -> Any:  # noqa: ANN401 - openvino's own
        row = RowWords(self._parts.transformer, exchange=self._exchange)
        width = self._word_width()
        return to_graph(row, [torch.randn(2, 3, width)], [[-1, -1, width]], self._codes_of(row))

    def _codes_of(self, row: RowTransformer | RowWords) -> dict[str, IntegerWeights]:
        return {**_rounded_weights(row), **row.codes} if self._rounding.weights else row.codes

    def _make_encoder(self) -> Any:  # noqa: ANN401 - openvino's own
        encoder = RowEncoder(self._parts.text_encoder)
        return to_graph(encoder, [torch.ones(1, 4, dtype=torch.long)], [[1, -1]], {})

    def _make_decoder(self, vae: Decoder, height: int, width: int) -> Any:  # noqa: ANN401 - openvino's own
        shape = [1, int(vae.config["latent_channels"]), height, width]
        return to_graph(RowDecoder(vae), [torch.randn(shape)], [shape], {})

    def _word_width(self) -> int:
        network = self._parts.transformer
        has_projection = network.caption_projection is not None
        return int(network.config["caption_channels" if has_projection else "cross_attention_dim"])

    def _between(self) -> Mapping[str, str]:
        """Return how what lies between products of bytes is computed: norms, attention, sums."""
        layers = packed_layers(self._parts.transformer).values()
        are_bytes = self._rounding.codes and any(layer.form.num_ranges for layer in layers)
        # Asked for bfloat16, the engine would round no inputs while running.
        is_free = self._halves_between and self._inputs_rounded == _FLOAT_INPUTS
        return _HALVED if are_bytes and is_free else {}

    def _find_inputs_rounded(self) -> Mapping[str, str]:
        """Return how inputs are rounded while running: to eight bits, or not at all."""
        layers = packed_layers(self._parts.transformer).values()
        asks = any(
            layer.form.activation_bits and not (self._rounding.codes and layer.form.num_ranges)
            for layer in layers
        )
        if not self._rounding.weights and not asks:
            return _FLOAT_INPUTS
        width = self._parts.transformer.inner_dim
        group = next(n for n in GROUPS if width % n == 0)
        return {"DYNAMIC_QUANTIZATION_GROUP_SIZE": str(group)}


def _rounded_weights(row: RowTransformer | RowWords) -> dict[str, IntegerWeights]:
    """Round every float linear layer inside the blocks that the row computes to eight bits."""
    hears = isinstance(row, RowWords)
    return {
        name: in_eight_bits(layer.weight.detach())
        for name, layer in row.named_modules()
        if isinstance(layer, nn.Linear)
        and ".transformer_blocks." in name
        and hears == hears_words(name)
    }
