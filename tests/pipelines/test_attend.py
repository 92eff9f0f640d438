"""Attention gives the same by every way, and the way is chosen by shape and number format."""

import pytest
import torch
from torch.nn import functional as F

from pipelines.attend import BLOCK_SCORES, FEWEST_QUERIES, attend, attend_in_blocks, blocks_win

LENGTHS = [(1, 1), (7, 5), (130, 3), (300, 2048)]
"""Queries and keys; the last take several blocks."""


def drawn(num_queries: int, num_keys: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(num_queries)
    query, key, value = (
        torch.randn(2, 3, length, 8, generator=generator)
        for length in (num_queries, num_keys, num_keys)
    )
    return query, key, value


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("masked", ["no", "keys", "queries", "all"])
def test_blocks_give_what_torchs_own_attention_gives(lengths: tuple[int, int], masked: str) -> None:
    query, key, value = drawn(*lengths)
    shape = {"keys": (2, 1, 1, -1), "queries": (1, 1, -1, -1), "all": (2, 3, -1, -1)}.get(masked)
    mask = None
    if shape is not None:
        size = (*shape[:2], lengths[0] if shape[2] < 0 else 1, lengths[1])
        mask = 3 * torch.randn(size, generator=torch.Generator().manual_seed(9))
    found = attend_in_blocks(query, key, value, mask)
    expected = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_a_long_picture_takes_several_blocks() -> None:
    num_queries, num_keys = LENGTHS[-1]
    assert num_queries > BLOCK_SCORES // num_keys


@pytest.mark.parametrize("num_keys", [64, 512])
def test_bfloat16_stays_as_near_to_float32_as_torchs_own(num_keys: int) -> None:
    query, key, value = drawn(FEWEST_QUERIES, num_keys)
    exact = F.scaled_dot_product_attention(query, key, value)
    halves = [part.bfloat16() for part in (query, key, value)]
    assert blocks_win(halves[0])
    ours, torchs = attend(*halves).float(), F.scaled_dot_product_attention(*halves).float()
    assert float((ours - exact).norm() / exact.norm()) < 0.01
    assert float((ours - exact).norm()) < 3 * float((torchs - exact).norm())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_hears_the_same_bits_alone_and_in_company(dtype: torch.dtype) -> None:
    parts = [part.to(dtype) for part in drawn(FEWEST_QUERIES, 512)]
    together = attend(*parts)
    for place in range(2):
        alone = attend(*(part[place : place + 1] for part in parts))
        assert torch.equal(together[place : place + 1], alone)


def test_few_queries_and_float32_are_left_to_torch() -> None:
    assert not blocks_win(torch.zeros(1, 1, FEWEST_QUERIES - 1, 8, dtype=torch.bfloat16))
    assert not blocks_win(torch.zeros(1, 1, 4 * FEWEST_QUERIES, 8))
