import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quant.numerics import (
    Grid,
    byte_to_zero,
    dequantize,
    fake_quantize,
    min_max_grid,
    quantize,
    range_grid,
    round_through,
    search_grid,
    spread,
    stored_scale,
    stored_zero,
    zero_to_byte,
)

BITS = st.integers(1, 8)


def widths_of(bits: int, rows: int) -> torch.Tensor:
    return torch.full((rows,), bits)


@given(
    bits=BITS,
    rows=st.integers(1, 5),
    columns=st.integers(1, 40),
    group=st.integers(0, 41),
    seed=st.integers(0, 10**6),
)
@settings(deadline=None)
def test_what_was_rounded_once_stays(bits, rows, columns, group, seed):
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    grid = min_max_grid(weight, widths_of(bits, rows), group_size=group)
    codes = quantize(weight, grid)
    values = dequantize(codes, grid)
    assert int(codes.max()) < 2**bits
    assert torch.equal(quantize(values, grid), codes)
    assert torch.equal(dequantize(quantize(values, grid), grid), values)


@given(bits=BITS, seed=st.integers(0, 10**6))
@settings(deadline=None)
def test_the_error_is_at_most_half_a_level_inside_the_range(bits, seed):
    weight = torch.randn(3, 50, generator=torch.Generator().manual_seed(seed))
    grid = min_max_grid(weight, widths_of(bits, 3))
    error = (dequantize(quantize(weight, grid), grid) - weight).abs()
    # the stored scale is bfloat16 and the zero point a byte: together under one level at the ends
    slack = 0.5 + 2.0**bits / 512 + 2.0**bits * 2**-8
    assert (error <= grid.scale * slack).all()


@pytest.mark.parametrize("bits", range(1, 9))
def test_the_search_is_never_worse_than_the_whole_range(bits):
    weight = torch.randn(16, 64, generator=torch.Generator().manual_seed(bits))

    def loss(grid: Grid) -> torch.Tensor:
        return (dequantize(quantize(weight, grid), grid) - weight).abs().pow(2.4).mean(dim=1)

    widths = widths_of(bits, 16)
    found, whole = loss(search_grid(weight, widths)), loss(min_max_grid(weight, widths))
    assert (found <= whole * (1 + 1e-6)).all()
    if bits <= 3:
        assert found.sum() < 0.8 * whole.sum()


def test_one_bit_has_two_levels_around_zero():
    weight = torch.tensor([[-1.0, 1.0, -1.0, 1.0]])
    grid = search_grid(weight, widths_of(1, 1))
    assert torch.allclose(dequantize(quantize(weight, grid), grid), weight)


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("search", [min_max_grid, search_grid])
@pytest.mark.parametrize(
    "rows", [[[0.0] * 5], [[3.0] * 5], [[-3.0] * 5], [[7.0]], [[0.0]], [[1e-20, -1e-20]]]
)
def test_dead_constant_and_single_channels_are_kept_without_nan(bits, search, rows):
    weight = torch.tensor(rows)
    grid = search(weight, widths_of(bits, len(weight)))
    values = dequantize(quantize(weight, grid), grid)
    assert torch.isfinite(values).all()
    assert torch.allclose(values, weight, rtol=2**-8, atol=1e-19)


def test_mixed_widths_stand_in_one_matrix():
    weight = torch.randn(8, 33, generator=torch.Generator().manual_seed(0))
    widths = torch.arange(1, 9)
    codes = quantize(weight, min_max_grid(weight, widths))
    assert (codes.amax(dim=1) == 2**widths - 1).all()


@given(bits=BITS, zero=st.floats(0, 255), scale=st.floats(1e-20, 1e20))
def test_stored_numbers_read_back_as_they_were_used(bits, zero, scale):
    width = torch.tensor(bits)
    kept = stored_zero(torch.tensor(zero), width)
    assert 0 <= kept <= 2**bits - 1
    assert torch.equal(byte_to_zero(zero_to_byte(kept, width), bits), kept)
    assert torch.equal(stored_zero(kept, width), kept)
    rounded = stored_scale(torch.tensor(scale))
    assert torch.equal(rounded.bfloat16().float(), rounded)


@given(bits=BITS)
def test_whole_zero_points_can_be_stored(bits):
    whole = torch.arange(2.0**bits)
    assert torch.equal(stored_zero(whole, torch.tensor(bits)), whole)


def test_published_quantizer_in_closed_form():
    # range -1..2 at two bits: scale 1, zero point 1, codes round(x) + 1
    weight = torch.tensor([[-1.0, -0.4, 0.6, 2.0]])
    grid = min_max_grid(weight, widths_of(2, 1), whole_zero=True)
    assert grid.scale.item() == 1
    assert grid.zero.item() == 1
    assert quantize(weight, grid).tolist() == [[0, 1, 2, 3]]


def test_groups_have_scales_of_their_own():
    weight = torch.tensor([[0.0, 1.0, 0.0, 100.0, 0.0, 5.0, 2.0]])
    grid = min_max_grid(weight, widths_of(1, 1), group_size=2)
    assert spread(grid.scale, 7).tolist() == [[1, 1, 100, 100, 5, 5, 2]]
    assert torch.equal(dequantize(quantize(weight, grid), grid), weight)


def test_gradients_pass_the_rounding_and_stop_at_the_ends():
    x = torch.tensor([-9.0, 0.2, 0.9, 9.0], requires_grad=True)
    scale = torch.tensor(1.0, requires_grad=True)
    zero = torch.tensor(1.0, requires_grad=True)
    values = fake_quantize(x, scale, zero, torch.tensor(3.0))
    assert values.tolist() == [-1, 0, 1, 2]
    values.sum().backward()
    assert x.grad.tolist() == [0, 1, 1, 0]
    assert zero.grad == -2  # only the clipped ones feel the zero point
    # clipped: their code; inside: rounding error
    assert scale.grad == pytest.approx(-1 - 0.2 + 0.1 + 2)


@pytest.mark.parametrize("shape", [(6, 1), (1, 5), (1, 1)])
def test_written_gradients_are_those_of_the_formula(shape):
    draw = torch.Generator().manual_seed(3)
    x = torch.randn(6, 5, generator=draw).double().requires_grad_()
    scale = (0.3 + torch.rand(shape, generator=draw)).double().requires_grad_()
    zero = (3 * torch.rand(shape, generator=draw)).double().requires_grad_()
    levels = torch.full(shape, 3.0, dtype=torch.double)
    weights = torch.randn(6, 5, generator=draw).double()

    codes = torch.clamp(round_through(x / scale + zero), torch.zeros_like(levels), levels)
    formula = (codes - zero) * scale
    mine = fake_quantize(x, scale, zero, levels)
    assert torch.equal(mine, formula)
    expected = torch.autograd.grad((weights * formula).sum(), (x, scale, zero))
    found = torch.autograd.grad((weights * mine).sum(), (x, scale, zero))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_an_empty_range_has_scale_one():
    scale, zero = range_grid(torch.tensor(0.0), torch.tensor(0.0), torch.tensor(8))
    assert (scale, zero) == (1, 0)
