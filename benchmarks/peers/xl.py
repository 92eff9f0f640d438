"""One step of a network of PixArt-XL/2's shape, weights at random, by stock diffusers and by peers.

    .venv-peers/bin/python -m benchmarks.peers.xl sdnq_uint4 28 16 32 2

Nothing of Fewstroke is imported here: peers run it in an environment of their own. Each line of
stdin asks for a step, each line of stdout answers with its seconds and its output; the first says
that everything is ready, or why it cannot be.
"""

import base64
import ctypes
import gc
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from diffusers import PixArtTransformer2DModel
from torch import Tensor

from benchmarks.peers.low_bit_pipelines import (
    PEERS,
    answers,
    compiled_graph,
    dynamic_graph,
    ort_session,
    static_graph,
    weights_mb,
)

HEAD_WIDTH = 72
CAPTION_WIDTH = 4096
NUM_WORDS = 120
NUM_CALIBRATION = 2
"""Inputs that static ranges are measured on: of weights at random, more would tell no more."""

Step = Callable[[], Tensor]
Call = Mapping[str, Tensor]


def random_xl(num_layers: int, num_heads: int, edge: int) -> PixArtTransformer2DModel:
    """Return a network of PixArt-XL/2's shape, the same wherever it is made.

    Args:
        num_layers: Blocks; 28 is XL.
        num_heads: Heads, of 72 channels each; 16 is XL.
        edge: Latent cells along an edge; 32 is 256 tokens.
    """
    torch.manual_seed(0)
    return PixArtTransformer2DModel(
        num_attention_heads=num_heads,
        attention_head_dim=HEAD_WIDTH,
        in_channels=4,
        out_channels=8,
        num_layers=num_layers,
        cross_attention_dim=HEAD_WIDTH * num_heads,
        caption_channels=CAPTION_WIDTH,
        sample_size=edge,
        patch_size=2,
    ).eval()


def drawn_call(edge: int, seed: int = 0) -> Call:
    """Return inputs of one step.

    Args:
        edge: Latent cells along an edge.
        seed: Of noise and words.

    Returns:
        Latent, words, their mask and the timestep, as `low_bit_pipelines` names them.
    """
    generator = torch.Generator().manual_seed(seed)
    return {
        "latent": torch.randn(1, 4, edge, edge, generator=generator),
        "words": torch.randn(1, NUM_WORDS, CAPTION_WIDTH, generator=generator),
        "mask": torch.ones(1, NUM_WORDS),
        "timestep": torch.tensor([500.0]),
    }


def eager_step(network: Any, call: Call, dtype: torch.dtype) -> Step:  # noqa: ANN401
    """Return a step as diffusers computes it.

    Args:
        network: The transformer, in that number format.
        call: Its inputs.
        dtype: The number format.
    """
    latent, words, mask = (call[name].to(dtype) for name in ("latent", "words", "mask"))

    @torch.inference_mode()
    def step() -> Tensor:
        found = network(
            latent,
            encoder_hidden_states=words,
            encoder_attention_mask=mask,
            timestep=call["timestep"],
            added_cond_kwargs={"resolution": None, "aspect_ratio": None},
            return_dict=False,
        )
        return found[0].float()

    return step


def _in_torch(name: str, network: PixArtTransformer2DModel, call: Call) -> tuple[Step, float]:
    prepare, dtype = PEERS[name]
    pipe = SimpleNamespace(transformer=network.to(dtype))
    size = prepare(pipe)
    return eager_step(pipe.transformer, call, dtype), size


def _by_openvino(name: str, network: PixArtTransformer2DModel, call: Call) -> tuple[Step, float]:
    edge = call["latent"].shape[-1]
    if name == "openvino_int8_static":
        calls = [drawn_call(edge, seed) for seed in range(NUM_CALIBRATION)]
        graph = static_graph(network, calls)
    else:
        graph = dynamic_graph(network, call)
    run = compiled_graph(graph)
    return lambda: run(*call.values()), weights_mb(graph)


def _by_ort(_: str, network: PixArtTransformer2DModel, call: Call) -> tuple[Step, float]:
    run, size = ort_session(network, call)
    return lambda: run(call), size


def release_memory() -> None:
    """Give back what preparing took: many peers must fit beside each other."""
    gc.collect()
    with suppress(OSError, AttributeError):  # another C library than glibc
        ctypes.CDLL("libc.so.6").malloc_trim(0)


PREPARERS: Mapping[str, Callable[..., tuple[Step, float]]] = {
    "openvino_int8_static": _by_openvino,
    "openvino_int8_dynamic": _by_openvino,
    "ort_int8": _by_ort,
    "torchao_int8": _in_torch,
    "quanto_int8": _in_torch,
    "sdnq_uint4": _in_torch,
}


def main(name: str, num_layers: str, num_heads: str, edge: str, threads: str) -> None:
    """Prepare a peer, then run a step for each line of stdin until it ends."""
    torch.set_num_threads(int(threads))
    with answers() as answer, torch.no_grad():
        try:
            # no name for the float network: whoever needs it no longer must be able to let it go
            size_of_network = int(num_layers), int(num_heads), int(edge)
            step, size = PREPARERS[name](name, random_xl(*size_of_network), drawn_call(int(edge)))
            release_memory()
            step()
            release_memory()
        except Exception as error:  # noqa: BLE001  (whatever is wrong with a peer is said and ends it)
            answer({"error": f"{type(error).__name__}: {error}"})
            return
        answer({"weights_mb": size})
        for _ in sys.stdin:
            started = time.perf_counter()
            output = step()
            seconds = time.perf_counter() - started
            values = np.ascontiguousarray(output.float().numpy())
            answer({"seconds": seconds, "output": base64.b64encode(values.tobytes()).decode()})


if __name__ == "__main__":
    main(*sys.argv[1:])
