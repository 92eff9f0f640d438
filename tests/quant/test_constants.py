"""Whole numbers for engines stand for the very weights of the packed layer."""

import pytest
import torch
from torch import nn

from quant.constants import integer_weights
from quant.layers import PackedLinear
from quant.manifest import LayerFormat
from quant.numerics import min_max_grid
from quant.store import packed_layer
from quant.timesteps import Timesteps

MIXES = [
    {1: 6},
    {2: 6},
    {1: 2, 2: 4},
    {3: 6},
    {2: 1, 3: 4, 4: 1},
    {4: 6},
    {3: 2, 4: 2, 5: 2},
    {8: 6},
]


def layer(
    widths: dict[int, int], *, num_inputs: int = 12, whole_zero: bool = False
) -> PackedLinear:
    torch.manual_seed(0)
    rows = sum(widths.values())
    source = nn.Linear(num_inputs, rows)
    bits = torch.cat([torch.full((count,), width) for width, count in widths.items()])
    bits = bits[torch.randperm(rows)]
    packed = packed_layer(source, LayerFormat(widths=widths), Timesteps(()))
    weight = source.weight.detach() + 0.1
    packed.store(weight, min_max_grid(weight, bits, whole_zero=whole_zero))
    assert isinstance(packed, PackedLinear)
    return packed


@pytest.mark.parametrize("signed_bits", [None, 7, 8])
@pytest.mark.parametrize("widths", MIXES, ids=str)
def test_codes_zeros_and_rests_are_the_weight(
    widths: dict[int, int], signed_bits: int | None
) -> None:
    packed = layer(widths)
    found = integer_weights(packed, signed_bits=signed_bits)
    if signed_bits == 7 and max(widths) > 6:
        assert found is None
        return
    assert found is not None
    rest = torch.zeros(1) if found.rest is None else found.rest[:, None]
    torch.testing.assert_close(found.weight + rest, packed.weight, rtol=1e-6, atol=1e-7)
    assert (found.zero is None) == (signed_bits is not None)
    if found.zero is not None:
        assert int(found.codes.max()) < 2**found.bits
        assert int(found.zero.max()) < 2**found.bits


def test_codes_take_as_few_bits_as_engines_know() -> None:
    found = {str(widths): integer_weights(layer(widths)) for widths in MIXES}
    assert [each.bits for each in found.values() if each] == [2, 2, 2, 4, 4, 4, 8, 8]
    odd = integer_weights(layer({4: 3}, num_inputs=5))
    assert odd is not None
    assert odd.bits == 8  # half a byte would be left over


def test_signed_codes_are_bytes_that_engines_multiply() -> None:
    for widths in MIXES:
        found = integer_weights(layer(widths), signed_bits=8)
        assert found is not None
        assert (found.bits, found.codes.dtype) == (8, torch.int8)
        assert (found.rest is None) == (8 not in widths)  # a difference of eight bits needs nine


def test_codes_of_seven_bits_do_not_overflow_sums_of_two_products() -> None:
    for widths in MIXES:
        found = integer_weights(layer(widths), signed_bits=7)
        if found is not None:
            assert 2 * 255 * int(found.codes.short().abs().max()) < 2**15


def test_whole_zero_points_leave_no_rest() -> None:
    found = integer_weights(layer({4: 6}, whole_zero=True))
    assert found is not None
    assert found.rest is None


def test_rows_of_several_scales_are_no_whole_numbers() -> None:
    source = nn.Linear(8, 4)
    packed = packed_layer(source, LayerFormat(widths={4: 4}, group_size=4), Timesteps(()))
    assert integer_weights(packed) is None
