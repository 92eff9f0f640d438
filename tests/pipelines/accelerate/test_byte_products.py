"""What torch compiles in a packed layer's place computes what the layer computes."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pipelines.accelerate import byte_products
from pipelines.accelerate.byte_products import byte_layer
from pipelines.accelerate.packed_graphs import Clock
from pipelines.components import load_components
from pipelines.store import open_checkpoint
from quant.layers import PackedLinear
from quant.manifest import LayerFormat
from quant.numerics import min_max_grid
from quant.store import packed_layer, packed_layers
from quant.timesteps import Timesteps

ROOT = Path(__file__).parents[3]
PER_TOKEN = LayerFormat(widths={2: 8, 3: 8, 4: 16}, activation_bits=8)
FORMS = {
    "ranges per token": PER_TOKEN,
    "inputs of four bits": replace(PER_TOKEN, activation_bits=4),
    "weights of eight bits": replace(PER_TOKEN, widths={8: 32}),
    "smoothed": replace(PER_TOKEN, smoothed=True),
    "float branch": replace(PER_TOKEN, rank=2),
}
IN_FLOATS = {
    "float inputs": (replace(PER_TOKEN, activation_bits=0), 24),
    "several scales a row": (replace(PER_TOKEN, widths={4: 32}, group_size=8), 24),
    "a width that suits no kernel": (PER_TOKEN, 20),
}


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(autouse=True)
def byte_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """Right on every processor, if fast on some alone."""
    monkeypatch.setattr(byte_products, "has_byte_units", lambda: True)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def made(form: LayerFormat, in_features: int = 24) -> PackedLinear:
    source = nn.Linear(in_features, 32)
    weight = drawn(32, in_features, seed=1)
    layer = packed_layer(source, form, Timesteps(()))
    widths = torch.cat([torch.full((count,), bits) for bits, count in form.widths.items()])
    layer.store(weight, min_max_grid(weight, widths, group_size=form.group_size))
    layer.bias = nn.Parameter(drawn(32, seed=2))
    if form.smoothed:
        layer.set_smoothing(drawn(in_features, seed=3).exp())
    if form.rank:
        layer.down, layer.up = (
            drawn(form.rank, in_features).bfloat16(),
            drawn(32, form.rank).bfloat16(),
        )
    return layer


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", [(2, 20, 24), (1, 1, 24), (3, 24)])
def test_it_computes_what_the_packed_layer_computes(form: str, shape: tuple[int, ...]) -> None:
    layer = made(FORMS[form])
    plain, codes = byte_layer(layer, Clock())
    x = drawn(*shape)
    torch.testing.assert_close(plain(x), layer(x), atol=1e-4, rtol=1e-5)
    assert codes is None
    assert plain.weight.dtype == torch.int8


@pytest.mark.parametrize("case", IN_FLOATS)
def test_what_no_kernel_multiplies_is_multiplied_as_floats(case: str) -> None:
    form, in_features = IN_FLOATS[case]
    layer = made(form, in_features)
    plain, _ = byte_layer(layer, Clock())
    assert plain.weight.dtype == torch.float32
    x = drawn(5, in_features)
    # Inputs of eight bits per token stay as they are where weights are floats.
    assert (plain(x) - layer(x)).norm() < 0.01 * layer(x).norm()


def test_processors_without_byte_units_multiply_floats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(byte_products, "has_byte_units", lambda: False)
    assert byte_layer(made(PER_TOKEN), Clock())[0].weight.dtype == torch.float32


@pytest.mark.parametrize(
    ("form", "in_features"),
    [
        *((form, 24) for form in FORMS.values()),
        *IN_FLOATS.values(),
        (FORMS["inputs of four bits"], 20),
    ],
)
def test_bfloat16_inputs_come_out_in_bfloat16(form: LayerFormat, in_features: int) -> None:
    layer = made(form, in_features)
    wide, narrow = byte_layer(layer, Clock())[0], byte_layer(layer, Clock())[0].to(torch.bfloat16)
    x = drawn(20, in_features).bfloat16()
    found = narrow(x)
    assert found.dtype == torch.bfloat16
    assert (found.float() - wide(x.float())).norm() < 0.02 * found.float().norm()


@pytest.mark.parametrize("variant", ["low-bit", "low-bit-3"])
@pytest.mark.parametrize("timestep", [999.0, 640.0, 0.0])
def test_every_layer_of_a_shipped_variant_follows_its_stored_ranges(
    shipped: Callable[[str], nn.Module], variant: str, timestep: float
) -> None:
    clock, pairs = Clock(), []
    for name, layer in packed_layers(shipped(variant)).items():
        if isinstance(layer, PackedLinear):
            pairs.append((name, layer, byte_layer(layer, clock)[0]))
    now = torch.tensor([timestep])
    clock.start(now)
    for name, layer, plain in pairs:
        layer.timesteps.set(now)
        x = drawn(1, 30, layer.in_features)
        found, expected = plain(x), layer(x)
        # A sum in another order may move an input to the next code; no more than that.
        assert (found - expected).norm() < 1e-3 * expected.norm(), name
        assert plain.weight.dtype == torch.int8


@pytest.fixture(scope="module")
def shipped() -> Callable[[str], nn.Module]:
    def load(variant: str) -> nn.Module:
        checkpoint = open_checkpoint(ROOT / "checkpoints" / "emoji-scenes", variant=variant)
        return load_components(checkpoint, device="cpu").transformer

    return load
