from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import InputError
from quant.kurtosis import Choice, allocate, kurtosis, move, smoothing, spend
from quant.numerics import byte_to_smoothing, dequantize, quantize, search_grid, smoothing_to_byte


def test_kurtosis_in_closed_form():
    # -1, -1, 1, 1: mean 0, unbiased variance 4/3, fourth moment 1 -> 9/16
    # 0, 0, 0, 4: mean 1, unbiased variance 4, fourth moments 1, 1, 1, 81 -> 84 / 4 / 16
    rows = torch.tensor([[-1.0, -1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 4.0]])
    assert torch.allclose(kurtosis(rows), torch.tensor([9 / 16, 21 / 16]))


def test_kurtosis_of_normal_rows_is_three():
    rows = torch.randn(4, 100_000, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(kurtosis(rows), torch.full((4,), 3.0), atol=0.1)


@given(shift=st.floats(-10, 10), scale=st.floats(0.01, 100))
def test_kurtosis_knows_no_place_and_no_size(shift, scale):
    row = torch.tensor([[1.0, 2.0, 4.0, 8.0, 16.0]])
    assert torch.allclose(kurtosis(row * scale + shift), kurtosis(row), rtol=1e-2)


@pytest.mark.parametrize("rows", [[[0.0] * 4], [[0.1] * 7], [[-1e30] * 3], [[5.0]], [[1e-30] * 2]])
def test_rows_that_do_not_vary_have_no_tails(rows):
    assert kurtosis(torch.tensor(rows)).tolist() == [0.0]


def test_allocation_in_closed_form():
    tails = torch.tensor([3.0, 9.0, 1.0, 4.0, 2.0, 5.0, 6.0, 8.0, 7.0, 0.0])
    assert move(tails, 3, 0).tolist() == [3] * 10
    assert move(tails, 3, 1).tolist() == [3, 4, 3, 3, 3, 3, 3, 3, 3, 2]
    assert move(tails, 3, 2).tolist() == [3, 4, 2, 3, 3, 3, 3, 4, 3, 2]
    # plus: the next tenth goes up, and nothing comes down for it
    assert move(tails, 3, 1, plus=True).tolist() == [3, 4, 3, 3, 3, 3, 3, 4, 3, 2]


@given(
    count=st.integers(0, 20),
    rows=st.integers(1, 40),
    bits=st.integers(1, 8),
    plus=st.booleans(),
)
def test_the_average_stays_unless_plus_adds_a_tenth(count, rows, bits, plus):
    count = min(count, rows // 2)
    tails = torch.rand(rows, generator=torch.Generator().manual_seed(rows))
    widths = move(tails, bits, count, plus=plus)
    assert widths.min() >= max(1, bits - 1)
    assert widths.max() <= min(8, bits + 1)
    extra = int(0.1 * rows) if plus and bits < 8 else 0
    assert 0 <= int(widths.sum()) - bits * rows <= extra


def test_the_search_takes_the_share_of_least_output_error():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(20, 32, generator=generator) * 0.1
    weight[:4] *= torch.where(torch.rand(4, 32, generator=generator) < 0.1, 12.0, 1.0)
    inputs = torch.randn(64, 32, generator=generator)
    found = allocate(weight, inputs, 3)

    def error(share: float) -> float:
        widths = move(kurtosis(weight), 3, int(share * 20))
        grid = search_grid(weight, widths, coarse=True)
        return float(
            (inputs @ (dequantize(quantize(weight, grid), grid) - weight).T).square().mean()
        )

    errors = {share: error(share) for share in (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)}
    assert found.share == min(errors, key=errors.get)
    assert found.error == pytest.approx(min(errors.values()), rel=1e-4)
    assert found.share > 0
    assert found.widths[:4].tolist() == [4] * 4 or found.share < 0.2


def test_rounded_inputs_are_part_of_the_error():
    generator = torch.Generator().manual_seed(1)
    weight, inputs = (
        torch.randn(10, 16, generator=generator),
        torch.randn(50, 16, generator=generator),
    )
    in_float = allocate(weight, inputs, 4)
    assert allocate(weight, inputs, 4, activation_bits=4).error > 2 * in_float.error
    released = allocate(weight, inputs, 4, activation_bits=4, released=True, shares=(0.0, 0.1))
    assert released.share in {0.0, 0.1}


def test_shares_out_of_range_are_refused():
    with pytest.raises(InputError, match=r"0 to 0\.5"):
        allocate(torch.randn(4, 4), torch.randn(4, 4), 3, shares=(0.6,))


def test_smoothing_in_closed_form():
    peaks, weight = torch.tensor([16.0, 1.0, 4.0]), torch.tensor([[1.0, 0.5, 0.2], [0.5, 1, 4]])
    assert smoothing(peaks, weight, quiet_share=0.0).tolist() == [4.0, 1.0, 1.0]
    # the second channel counts as half of the median, 4 / 2
    assert smoothing(peaks, weight).tolist() == pytest.approx([4.0, 2**0.5, 1.0])


def test_a_channel_that_was_hardly_heard_does_not_blow_up_what_comes_later():
    peaks, weight = torch.tensor([1.0, 1.0, 1e-4, 1.0]), torch.ones(3, 4)
    later = torch.ones(4)  # now the quiet channel is as loud as the others
    assert (later / smoothing(peaks, weight)).max() <= 2**0.5 + 1e-6
    assert (later / smoothing(peaks, weight, quiet_share=0.0)).max() > 90


def test_dead_channels_are_left_alone():
    factors = smoothing(torch.tensor([0.0, 3.0, 0.0]), torch.tensor([[1.0, 0.0, 0.0]]))
    assert factors.tolist() == [1.0, 1.0, 1.0]
    assert torch.isfinite(1 / factors).all()


@given(peak=st.floats(0, 1e30), weight=st.floats(0, 1e30))
@settings(deadline=None)
def test_smoothing_is_finite_and_stored_exactly(peak, weight):
    factors = smoothing(torch.tensor([peak]), torch.tensor([[weight]]))
    assert torch.isfinite(factors).all()
    assert (factors > 0).all()
    assert torch.equal(byte_to_smoothing(smoothing_to_byte(factors)), factors)


def test_smoothing_leaves_the_product_alone():
    generator = torch.Generator().manual_seed(2)
    weight, inputs = torch.randn(5, 7, generator=generator), torch.randn(9, 7, generator=generator)
    factors = smoothing(inputs.abs().amax(dim=0), weight)
    assert torch.allclose((inputs / factors) @ (weight * factors).T, inputs @ weight.T, atol=1e-5)


def test_a_budget_goes_where_it_helps_most():
    choices = {
        "sensitive": [Choice(bits=20, error=9.0), Choice(bits=30, error=1.0)],
        "robust": [Choice(bits=20, error=1.1), Choice(bits=30, error=1.0)],
    }
    taken = spend(choices, 50)
    assert {name: choice.bits for name, choice in taken.items()} == {"sensitive": 30, "robust": 20}
    with pytest.raises(InputError, match="takes 40 bits, the budget is 39"):
        spend(choices, 39)


@given(data=st.data())
@settings(deadline=None, max_examples=60)
def test_a_budget_is_kept_and_nearly_best_spent(data):
    layers = data.draw(st.integers(1, 4))
    number = st.floats(0, 10)
    choices = {
        str(layer): [Choice(bits=bits, error=data.draw(number)) for bits in (10, 20, 30)]
        for layer in range(layers)
    }
    budget = data.draw(st.integers(10 * layers, 30 * layers))
    taken = spend(choices, budget)
    assert sum(choice.bits for choice in taken.values()) <= budget
    fits = [
        sum(choice.error for choice in combination)
        for combination in product(*choices.values())
        if sum(choice.bits for choice in combination) <= budget
    ]
    # greedy on the hull misses the exact best by less than one layer's largest step
    largest = max(
        max(c.error for c in part) - min(c.error for c in part) for part in choices.values()
    )
    assert sum(choice.error for choice in taken.values()) <= min(fits) + largest + 1e-9
