from copy import deepcopy

import pytest
import torch
from torch import nn

from core.errors import UnsupportedError
from quant.adapters import StudentLayer
from quant.calibrate import Heard
from quant.numerics import dequantize, quantize
from quant.plan import Storage, _Planner
from quant.precision import MAX_BITS
from quant.timesteps import Timesteps
from quant.twin import FloatTwin

TIMES = (900.0, 500.0, 100.0)


def heard_by(layer: nn.Module, *, changes: bool = True) -> tuple[Heard, torch.Tensor]:
    """What a layer heard at three timesteps, louder at each, and its last input."""
    is_conv = isinstance(layer, nn.Conv2d)
    heard = Heard(kind="conv" if is_conv else "linear", role="block", order=0)
    for index, time in enumerate(TIMES):
        generator = torch.Generator().manual_seed(index * changes)
        shape = (2, layer.in_channels, 5, 5) if is_conv else (2, 7, layer.in_features)
        x = torch.randn(shape, generator=generator) * (1 + index * changes)
        if is_conv:
            x[:, 0] *= 5
        else:
            x[..., 0] *= 5
        flat = x.transpose(1, -1).reshape(-1, shape[1]) if is_conv else x.flatten(0, 1)
        heard.low[time], heard.high[time] = flat.amin(0), flat.amax(0)
        rows = (
            nn.functional.unfold(x, layer.kernel_size).transpose(1, 2).flatten(0, 1)
            if is_conv
            else flat
        )
        heard.samples.append(rows)
    return heard, x


def student_of(
    layer: nn.Module, bits: int, activation_bits: int, **storage: object
) -> StudentLayer:
    heard, _ = heard_by(layer)
    planner = _Planner(layer, heard, Storage(**storage), TIMES, (bits, activation_bits))
    timesteps = Timesteps(TIMES)
    timesteps.set(torch.tensor([500.0]))
    return StudentLayer(layer, planner.plan(None), timesteps, None)


def linear(seed: int = 0, width: int = 24, rows: int = 20) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(width, rows)


STORAGES = [
    {"grid": "minmax", "whole_zero": True},
    {"smooth": "always", "allocation": "omq"},
    {"smooth": "always", "allocation": "omq", "plus": True},
    {"activations": "dynamic", "grid": "minmax", "group_size": 5},
    {"activations": "dynamic", "smooth": "always", "branch_rank": 3, "grid": "minmax"},
    {"activations": "float", "smooth": "always", "allocation": "omq"},
]


@pytest.fixture(params=["integers", "floats"])
def arithmetic(request, monkeypatch):
    """Products as on a CPU with int8 units, and as on one without."""
    monkeypatch.setattr("quant.layers.has_byte_units", lambda: request.param == "integers")
    return request.param


@pytest.mark.usefixtures("arithmetic")
@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("storage", STORAGES)
def test_packed_layer_equals_its_float_twin(bits, storage):
    layer = linear()
    packed = student_of(layer, bits, 8, **storage).to_packed()
    _, x = heard_by(layer)
    with torch.no_grad():
        expected = FloatTwin(packed)(x)
        found = packed(x)
    assert torch.allclose(found, expected, atol=2e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("activation_bits", [2, 4, 6, 8])
def test_integer_products_equal_float_products_of_codes(activation_bits, arithmetic):
    layer = linear(width=33, rows=17)
    for activations in ("static", "dynamic"):
        student = student_of(layer, 3, activation_bits, allocation="omq", activations=activations)
        packed = student.to_packed()
        _, x = heard_by(layer)
        assert packed.computes_in_integers(x) == (arithmetic == "integers")
        with torch.no_grad():
            expected = FloatTwin(packed)(x)
            assert torch.allclose(packed(x), expected, atol=2e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("storage", [s for s in STORAGES if "branch_rank" not in s])
@pytest.mark.parametrize("make", [linear, lambda: nn.Conv2d(4, 6, 3)])
def test_what_was_trained_is_what_is_packed(storage, make):
    torch.manual_seed(0)
    layer = make()
    student = student_of(layer, 3, 6, **storage)
    _, x = heard_by(layer)
    with torch.no_grad():
        assert torch.allclose(student(x), student.to_packed()(x), atol=1e-4)


def test_weights_stay_packed_in_memory():
    layer = linear(width=256, rows=256)
    packed = student_of(layer, 3, 8, allocation="omq", smooth="always").to_packed()
    assert packed.code_bits == 3 * 256 * 256
    assert packed.num_bytes * 8 <= 1.10 * packed.code_bits
    with torch.no_grad():
        packed(torch.randn(2, 256))
    assert packed.num_bytes * 8 <= 1.10 * packed.code_bits
    assert not any(b.is_floating_point() and b.numel() > 1024 for b in packed.buffers())


def test_weight_property_undoes_order_and_smoothing():
    layer = linear()
    student = student_of(layer, 4, 8, allocation="omq", smooth="always")
    plan = student.plan
    expected = dequantize(quantize(plan.rows, plan.grid), plan.grid) / plan.factors
    assert torch.allclose(student.to_packed().weight, expected, atol=1e-6)


@pytest.mark.usefixtures("arithmetic")
def test_rows_answer_the_same_alone_and_in_a_batch():
    layer = linear()
    for activations in ("static", "dynamic"):
        packed = student_of(layer, 3, 4, activations=activations).to_packed()
        # as many tokens as the shipped model has: of some smaller numbers, threads sum floats
        # in another order for one row than for six
        x = torch.randn(6, 64, 24)
        with torch.no_grad():
            together = packed(x)
            assert torch.equal(together, torch.cat([packed(row[None]) for row in x]))


@pytest.mark.usefixtures("arithmetic")
def test_rows_at_different_timesteps_have_their_own_ranges():
    layer = linear()
    packed = student_of(layer, 4, 4).to_packed()
    x = torch.randn(2, 7, 24)
    with torch.no_grad():
        packed.timesteps.set(torch.tensor([900.0, 100.0]))
        mixed = packed(x)
        for row, time in enumerate((900.0, 100.0)):
            packed.timesteps.set(torch.tensor([time]))
            assert torch.allclose(packed(x[row : row + 1])[0], mixed[row], atol=1e-4)
    assert packed.form.num_ranges == 3
    packed.timesteps.set(torch.tensor([900.0, 500.0, 100.0]))
    with pytest.raises(UnsupportedError, match="2 rows in a pass of 3 different"):
        packed(x)


def test_casting_a_network_leaves_what_is_stored():
    packed = student_of(linear(), 3, 8, allocation="omq", smooth="always").to_packed()
    before = deepcopy(packed)
    cast = packed.to(torch.float16).to(torch.float64).float()
    assert cast.checksum() == before.checksum()
    x = torch.randn(3, 24)
    with torch.no_grad():
        assert cast(x.to(torch.bfloat16)).dtype == torch.bfloat16
        assert torch.allclose(cast(x), before(x), atol=1e-2)


def test_convolutions_keep_stride_padding_and_groups():
    torch.manual_seed(0)
    for layer in (
        nn.Conv2d(4, 6, 3, stride=2, padding=1),
        nn.Conv2d(4, 8, 2, groups=2, bias=False),
        nn.Conv2d(4, 6, 1),
    ):
        x = torch.randn(2, 4, 6, 6)
        heard = Heard(kind="conv", role="block", order=0)
        for time in TIMES:
            heard.low[time], heard.high[time] = x.amin((0, 2, 3)), x.amax((0, 2, 3))
        heard.samples.append(torch.randn(16, layer.weight[0].numel()))
        planner = _Planner(
            layer, heard, Storage(smooth="always", allocation="omq"), TIMES, (8, MAX_BITS)
        )
        packed = StudentLayer(layer, planner.plan(None), Timesteps(TIMES), None).to_packed()
        with torch.no_grad():
            assert torch.allclose(packed(x), layer(x), atol=0.03)


def test_a_dead_channel_a_constant_row_and_a_single_channel_give_no_nan():
    layer = nn.Linear(1, 1)
    many = linear()
    with torch.no_grad():
        many.weight[:, 3] = 0
        many.weight[2] = 0.25
        many.weight[5] = 0
    for source, dead in ((layer, None), (many, 4)):
        heard, x = heard_by(source)
        if dead is not None:
            x[..., dead] = 0
            for time in TIMES:
                heard.low[time][dead] = heard.high[time][dead] = 0
        for bits in range(1, 9):
            storage = Storage(smooth="always", allocation="omq")
            plan = _Planner(source, heard, storage, TIMES, (bits, 4)).plan(None)
            timesteps = Timesteps(TIMES)
            timesteps.set(torch.tensor([100.0]))
            packed = StudentLayer(source, plan, timesteps, None).to_packed()
            with torch.no_grad():
                assert torch.isfinite(packed(x)).all()


@pytest.mark.parametrize(("bits", "heard_bits", "is_smoothed"), [(8, 3, True), (2, 8, False)])
def test_inputs_are_smoothed_where_that_brings_outputs_nearer(bits, heard_bits, is_smoothed):
    # a loud channel is a burden to inputs of few bits, and moved away one to weights of few bits
    layer = linear()
    heard, x = heard_by(layer)
    errors = {}
    for smooth in ("never", "always", "helpful"):
        storage = Storage(smooth=smooth)
        plan = _Planner(layer, heard, storage, TIMES, (bits, heard_bits)).plan(None)
        timesteps = Timesteps(TIMES)
        timesteps.set(torch.tensor([500.0]))
        packed = StudentLayer(layer, plan, timesteps, None).to_packed()
        with torch.no_grad():
            errors[smooth] = float((packed(x) - layer(x)).square().mean())
    assert plan.form.smoothed is is_smoothed
    assert errors["helpful"] == errors["always" if is_smoothed else "never"]
    assert errors["helpful"] <= min(errors.values())
