"""Low-bit weights go to OpenVINO as the codes they are, and come out as from the packed network."""

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from core.devices import byte_product_bits
from core.errors import UnsupportedError
from pipelines.accelerate import openvino_networks
from pipelines.accelerate.choose import EXACT, ROUNDED, make_networks
from pipelines.accelerate.execution import Execution
from pipelines.accelerate.graphs import RowTransformer, RowWords
from pipelines.accelerate.networks import TorchNetworks
from pipelines.accelerate.openvino_graphs import _interleaved
from pipelines.accelerate.openvino_networks import BFLOAT16, OpenvinoNetworks, Rounding
from pipelines.accelerate.openvino_runtime import abilities, core, why_not
from pipelines.store import open_checkpoint
from pipelines.text_to_image import TextToImage
from quant.adapters import pack_in_turn, to_student
from quant.calibrate import calibrate
from quant.constants import integer_weights
from quant.plan import Storage, plan_layers
from quant.precision import Policy, parse_precision
from quant.store import packed_layers
from quant.timesteps import Timesteps

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))

TIMESTEPS = (900.0, 500.0, 100.0)
MIXED = Storage(allocation="omq", smooth="always")
CASES = {
    "float inputs": ("w4a16", replace(MIXED, activations="float")),
    "float inputs, five bits": ("w4a16", replace(MIXED, activations="float", plus=True)),
    "float branch": ("w3a16", Storage(activations="float", branch_rank=2)),
    "groups": ("w4a16", Storage(activations="float", group_size=16)),
    "eight bits": ("w8a8", Storage()),
    "per token": ("w4a8", replace(MIXED, activations="dynamic")),
    "per timestep": ("w3a6", MIXED),
    "per timestep, eight bits": ("w4a8", MIXED),
    "four bits per token": ("w3a4", Storage(activations="dynamic")),
    "fewest": ("w2a4", MIXED),
}
STORED = ("per timestep", "per timestep, eight bits")


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def rows(model: TextToImage) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    width = model.parts.transformer.config["caption_channels"]
    return {
        "latents": torch.randn(2, 8, 16, 16, generator=generator),
        "words": [torch.randn(length, width, generator=generator) for length in (4, 7)],
        "regions": [None, None],
    }


@pytest.fixture(scope="module")
def quantized(model: TextToImage, rows: dict[str, Any]) -> Callable[[str], Any]:
    """Makes the tiny network of a case, with packed layers and ranges at three timesteps."""

    @cache
    def make(case: str) -> Any:
        network = deepcopy(model.parts.transformer)

        def run() -> None:
            for timestep in TIMESTEPS:
                network(
                    rows["latents"],
                    encoder_hidden_states=torch.stack([words[:3] for words in rows["words"]]),
                    timestep=torch.full((2,), timestep),
                    added_cond_kwargs={"resolution": None, "aspect_ratio": None},
                )

        bits, storage = CASES[case]
        precision = parse_precision(bits)
        found = calibrate(network, run, torch.Generator().manual_seed(0), num_rows=64)
        plans = plan_layers(network, found, precision, Policy(), storage)
        to_student(network, plans, Timesteps(found.timesteps), {})
        pack_in_turn(network, method="test", precision=precision)
        return network

    return make


def networks(model: TextToImage, network: Any, *, codes: bool) -> OpenvinoNetworks:
    return OpenvinoNetworks(
        replace(model.parts, transformer=network),
        model.info.latent_factor,
        execution=Execution("openvino", tolerance=ROUNDED),
        revision="low-bit",
        shelf=None,
        rounding=Rounding(codes=codes),
    )


def distance(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / other.norm())


@pytest.mark.parametrize(
    ("case", "codes"),
    [(case, False) for case in CASES]
    + [(case, True) for case in ("float inputs", "eight bits", *STORED)],
)
def test_a_compiled_low_bit_network_says_what_the_packed_one_says(
    model: TextToImage,
    rows: dict[str, Any],
    quantized: Callable[[str], Any],
    case: str,
    *,
    codes: bool,
) -> None:
    limit = EXACT if CASES[case][0].endswith("a16") else ROUNDED
    ours = networks(model, quantized(case), codes=codes)
    plain = ours._twin
    for timestep in (950, 700, 100):
        times = torch.tensor([timestep, timestep])
        found = ours.denoise(timesteps=times, **rows)
        assert distance(found, plain.denoise(timesteps=times, **rows)) < limit
        alone = ours.denoise(rows["latents"][1:], times[1:], rows["words"][1:], [None])
        assert torch.equal(found[1:], alone)
    assert ours.execution.fallbacks == {}


def test_stored_ranges_let_bytes_be_multiplied(
    model: TextToImage, quantized: Callable[[str], Any]
) -> None:
    network = quantized("per timestep, eight bits")
    ours = networks(model, network, codes=True)
    graphs = ours._make_transformer(16, 16, mixes=False), ours._make_words()
    products = [
        node.get_rt_info()["primitiveType"].astype(str)
        for graph in graphs
        for node in core().compile_model(graph, "CPU").get_runtime_model().get_ops()
        if node.get_rt_info()["layerType"].astype(str) == "FullyConnected"
    ]
    linears = [layer for layer in packed_layers(network).values() if layer.channel_dim == -1]
    fit = [integer_weights(layer, signed_bits=byte_product_bits()) for layer in linears]
    assert sum(kind.endswith("_I8") for kind in products) == sum(map(bool, fit)) > 0


@pytest.mark.parametrize(
    ("case", "codes"), [*((case, True) for case in STORED), ("eight bits", False)]
)
def test_large_networks_stay_near_their_twin_in_bfloat16_between_products(
    model: TextToImage,
    rows: dict[str, Any],
    quantized: Callable[[str], Any],
    monkeypatch: pytest.MonkeyPatch,
    *,
    case: str,
    codes: bool,
) -> None:
    small = networks(model, quantized(case), codes=codes)
    monkeypatch.setattr(openvino_networks, "SMALL_NETWORK", 0)
    large = networks(model, quantized(case), codes=codes)
    times = torch.tensor([700, 700])
    found = large.denoise(timesteps=times, **rows)
    assert large.execution.fallbacks == {}
    assert distance(found, large._twin.denoise(timesteps=times, **rows)) < ROUNDED
    is_half = BFLOAT16 in abilities()
    assert torch.equal(found, small.denoise(timesteps=times, **rows)) != is_half
    alone = large.denoise(rows["latents"][1:], times[1:], rows["words"][1:], [None])
    assert torch.equal(found[1:], alone)


@pytest.mark.parametrize(("case", "rounds"), [("float inputs", False), ("per token", True)])
def test_the_decoder_is_as_exact_as_the_rest(
    model: TextToImage, folder: Path, quantized: Callable[[str], Any], *, case: str, rounds: bool
) -> None:
    parts = replace(model.parts, transformer=quantized(case))
    ours = make_networks("openvino", open_checkpoint(folder).info, parts)
    latents = torch.randn(1, 8, 16, 16, generator=torch.Generator().manual_seed(2))
    found = distance(ours.decode(latents), TorchNetworks(parts, 8).decode(latents))
    assert ours.execution.tolerance == (ROUNDED if rounds else EXACT)
    assert found < ours.execution.tolerance
    assert ours.execution.fallbacks == {}


def test_packed_weights_count_where_a_network_is_called_small(
    model: TextToImage, quantized: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = quantized("per timestep")
    num_floats = sum(weight.numel() for weight in network.parameters())
    monkeypatch.setattr(openvino_networks, "SMALL_NETWORK", num_floats)
    assert networks(model, network, codes=True)._num_lanes == 1


def test_words_that_are_heard_otherwise_at_every_timestep_are_not_kept(
    model: TextToImage, quantized: Callable[[str], Any]
) -> None:
    network = deepcopy(quantized("per timestep"))
    assert TorchNetworks(replace(model.parts, transformer=network), 8)._keeps_words
    layer = network.transformer_blocks[0].attn2.to_k
    layer.form = replace(layer.form, num_ranges=len(TIMESTEPS))
    assert not TorchNetworks(replace(model.parts, transformer=network), 8)._keeps_words
    with pytest.raises(UnsupportedError, match="otherwise at every timestep"):
        networks(model, network, codes=True)


def test_rows_at_different_timesteps_each_get_their_own_ranges(
    model: TextToImage, rows: dict[str, Any], quantized: Callable[[str], Any]
) -> None:
    ours = networks(model, quantized("per timestep"), codes=True)
    together = ours.denoise(timesteps=torch.tensor([900, 300]), **rows)
    alone = ours.denoise(rows["latents"][1:], torch.tensor([300]), rows["words"][1:], [None])
    assert torch.equal(together[1:], alone)


def test_packed_weights_stay_packed_in_the_graph(
    model: TextToImage, quantized: Callable[[str], Any]
) -> None:
    network = quantized("fewest")
    ours = networks(model, network, codes=False)
    graphs = ours._make_transformer(16, 16, mixes=False), ours._make_words()
    nodes = (node for graph in graphs for node in graph.get_ops())
    constants = (node for node in nodes if node.get_type_name() == "Constant")
    kinds = [node.get_element_type().get_type_name() for node in constants]
    layers = packed_layers(network)
    row = RowTransformer(network, model.info.latent_factor, exchange=ours._exchange)
    codes = row.codes | RowWords(network, exchange=ours._exchange).codes
    assert len(codes) == sum(layer.channel_dim == -1 for layer in layers.values())
    for bits in (2, 4, 8):
        wanted = sum(weights.bits == bits for weights in codes.values())
        assert kinds.count(f"u{bits}") >= 2 * wanted  # codes and zero points
    assert any(weights.bits < 8 for weights in codes.values())


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_neighbouring_codes_share_a_byte_the_first_lowest(bits: int) -> None:
    codes = torch.randint(0, 2**bits, (3, 8), dtype=torch.uint8)
    packed = _interleaved(codes, bits)
    assert len(packed) == codes.numel() * bits // 8
    numbers = int.from_bytes(packed.numpy().tobytes(), "little")
    for place, code in enumerate(codes.flatten().tolist()):
        assert numbers >> (bits * place) & (2**bits - 1) == code
