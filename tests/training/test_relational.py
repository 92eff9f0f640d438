import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import InputError, UnknownNameError
from core.seeding import torch_generator
from training.losses.relational import (
    PixelQueue,
    gathered,
    gathered_with_gradient,
    gram,
    pairwise_relations,
    pixels,
    row_kl,
)


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch_generator(seed), dtype=torch.float64)


def test_gram_of_unit_vectors_is_their_cosines_over_the_temperature():
    angle = math.radians(60)
    rows = torch.tensor([[2.0, 0.0], [0.0, 5.0]])
    columns = torch.tensor([[math.cos(angle), math.sin(angle)]])
    expected = torch.tensor([[0.5], [math.sin(angle)]]) / 0.1
    torch.testing.assert_close(gram(rows, columns, temperature=0.1), expected)


def test_gram_without_normalisation_is_the_plain_product():
    rows, columns = draw(3, 4), draw(5, 4, seed=1)
    torch.testing.assert_close(gram(rows, columns, normalise=False), rows @ columns.T)


@settings(max_examples=25, deadline=None)
@given(scale=st.floats(0.01, 100), seed=st.integers(0, 1000))
def test_cosines_do_not_depend_on_length(scale, seed):
    rows, columns = draw(3, 4, seed=seed), draw(5, 4, seed=seed + 1)
    torch.testing.assert_close(gram(scale * rows, columns), gram(rows, columns))


def test_kl_of_two_coins_is_the_closed_form():
    teacher = torch.tensor([[0.75, 0.25]]).log()
    student = torch.tensor([[0.5, 0.5]]).log()
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert float(row_kl(student, teacher, reduction="row_mean")) == pytest.approx(expected)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), shift=st.floats(-50, 50))
def test_kl_is_never_negative_zero_at_equality_and_blind_to_shifts(seed, shift):
    one, other = draw(4, 6, seed=seed), draw(4, 6, seed=seed + 1)
    assert float(row_kl(one, other, reduction="sum")) > 0
    assert float(row_kl(one + shift, one, reduction="sum")) == pytest.approx(0, abs=1e-4)


def test_reductions_differ_by_the_number_of_rows():
    one, other = draw(2, 3, 6), draw(2, 3, 6, seed=1)
    mean = row_kl(one, other, reduction="row_mean")
    torch.testing.assert_close(row_kl(one, other, reduction="sum"), 6 * mean)
    with pytest.raises(UnknownNameError, match="row_mean"):
        row_kl(one, other, reduction="mean")


def test_gradient_of_the_kl_is_the_difference_of_the_softmaxes():
    teacher, student = draw(3, 5).float(), draw(3, 5, seed=1).float().requires_grad_()
    row_kl(student, teacher, reduction="sum").backward()
    expected = student.softmax(-1) - teacher.softmax(-1)
    torch.testing.assert_close(student.grad, expected.detach())


def test_gradient_through_relations_agrees_with_finite_differences():
    teacher = draw(2, 3, 4)

    def loss(student):
        return torch.nn.functional.kl_div(
            pairwise_relations(student, student).log_softmax(-1),
            pairwise_relations(teacher, teacher).log_softmax(-1),
            log_target=True,
            reduction="sum",
        )

    student = draw(2, 3, 4, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(loss, (student,))


def test_a_pixel_keeps_all_its_channels():
    feature_map = draw(2, 3, 4, 5)
    flat = pixels(feature_map)
    assert flat.shape == (2, 20, 3)
    torch.testing.assert_close(flat[1, 2 * 5 + 3], feature_map[1, :, 2, 3])


def test_relations_of_a_pair_are_the_gram_of_its_samples():
    rows, columns = draw(2, 3, 4), draw(5, 6, 4, seed=1)
    table = pairwise_relations(rows, columns, temperature=0.5)
    assert table.shape == (2, 5, 3, 6)
    torch.testing.assert_close(table[1, 4], gram(rows[1], columns[4], temperature=0.5))


def test_one_process_gathers_its_own_rows():
    rows = draw(3, 2).requires_grad_()
    assert torch.equal(gathered(rows), rows.detach())
    assert gathered_with_gradient(rows) is rows


def test_queue_starts_with_unit_vectors_of_its_seed():
    queue = PixelQueue(50, 8, seed=3)
    torch.testing.assert_close(queue.rows.norm(dim=-1), torch.ones(50))
    assert torch.equal(queue.rows, PixelQueue(50, 8, seed=3).rows)
    assert not torch.equal(queue.rows, PixelQueue(50, 8, seed=4).rows)
    with pytest.raises(InputError, match="at least 1"):
        PixelQueue(0, 8)


def test_queue_overwrites_the_oldest_and_goes_round():
    queue = PixelQueue(5, 2)
    directions = torch.tensor([[math.cos(a), math.sin(a)] for a in range(8)])
    queue.push(3 * directions[:3])
    assert int(queue.num_filled) == 3
    queue.push(directions[3:7])
    assert int(queue.num_filled) == 5
    assert int(queue.pointer) == 2
    torch.testing.assert_close(queue.rows, directions[[5, 6, 2, 3, 4]])
    queue.push(directions)
    torch.testing.assert_close(queue.rows.sum(0), directions[3:].sum(0))


@settings(max_examples=25, deadline=None)
@given(sizes=st.lists(st.integers(1, 9), max_size=8))
def test_queue_holds_the_newest_pixels_however_they_came(sizes):
    queue, seen = PixelQueue(7, 3), []
    for index, size in enumerate(sizes):
        fresh = torch.nn.functional.normalize(draw(size, 3, seed=index).float(), dim=-1)
        queue.push(fresh)
        seen += list(fresh)
    assert int(queue.num_filled) == min(7, len(seen))
    for row in seen[-7:]:
        assert float((queue.rows - row).abs().amax(dim=1).min()) < 1e-5


def test_contrasts_are_different_rows_and_real_pixels_when_enough_are_there():
    queue = PixelQueue(10, 2)
    queue.push(torch.tensor([[1.0, 0.0]] * 4))
    drawn = queue.draw(4, torch_generator(0))
    torch.testing.assert_close(drawn, torch.tensor([[1.0, 0.0]] * 4))
    everything = queue.draw(20, torch_generator(0))
    assert len({tuple(row.tolist()) for row in everything}) == 7  # four equal pixels and six others
    assert not torch.equal(queue.draw(8, torch_generator(1)), queue.draw(8, torch_generator(2)))


def test_fixed_contrasts_are_equally_far_apart():
    queue = PixelQueue(20, 2)
    assert torch.equal(queue.evenly_spaced(5), queue.rows[[0, 4, 8, 12, 16]])
    assert torch.equal(queue.evenly_spaced(99), queue.rows)


def test_queue_travels_in_the_state():
    queue, other = PixelQueue(6, 2), PixelQueue(6, 2, seed=1)
    queue.push(draw(4, 2).float())
    other.load_state_dict(queue.state_dict())
    assert torch.equal(other.rows, queue.rows)
    assert int(other.pointer) == 4
