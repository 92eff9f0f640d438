"""Queries, keys and values of a layer, and their product by whatever computes a shape fastest."""

import torch
from diffusers.models.attention_processor import Attention
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

FEWEST_QUERIES = 256
"""Queries from which a plain product wins: on the CPU, in bfloat16.

Source: `python -m benchmarks.bench_attention`, and its verdict in docs/log.md.
"""

BLOCK_SCORES = 2**17
"""Scores of one head that are held at once: they stay in the core's own cache."""

FEWEST_ROWS = 128
"""Queries of a block at least, or its products become too thin."""


def attend(
    query: Float[Tensor, "*b heads n d"],
    key: Float[Tensor, "*b heads l d"],
    value: Float[Tensor, "*b heads l d"],
    mask: Float[Tensor, "..."] | None = None,
) -> Float[Tensor, "*b heads n d"]:
    """Let every query hear all values, weighed by the softmax of its products with the keys.

    Torch's own attention everywhere but on the CPU in bfloat16: from `FEWEST_QUERIES` queries up
    its kernel loses there to two plain products with a softmax between, a block of queries at a
    time. Scores are then rounded to bfloat16, as inputs and outputs are anyway.

    Args:
        query: Who asks.
        key: What is compared.
        value: What is heard.
        mask: Added to the scores; broadcasts to heads, queries and keys. None adds nothing.

    Returns:
        What each query heard, in its own number format.
    """
    if blocks_win(query):
        return attend_in_blocks(query, key, value, mask)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)


def blocks_win(query: Float[Tensor, "*b heads n d"]) -> bool:
    """Return whether `attend_in_blocks` is the faster way for these queries.

    Args:
        query: Who asks.
    """
    is_half_on_cpu = query.device.type == "cpu" and query.dtype == torch.bfloat16
    return is_half_on_cpu and query.shape[-2] >= FEWEST_QUERIES


def attend_in_blocks(
    query: Float[Tensor, "*b heads n d"],
    key: Float[Tensor, "*b heads l d"],
    value: Float[Tensor, "*b heads l d"],
    mask: Float[Tensor, "..."] | None = None,
) -> Float[Tensor, "*b heads n d"]:
    """Attend by plain products, so many queries at a time that their scores stay in cache.

    Args:
        query: Who asks.
        key: What is compared.
        value: What is heard.
        mask: Added to the scores, as in `attend`.

    Returns:
        What each query heard.
    """
    num_queries, num_keys = query.shape[-2], key.shape[-2]
    num_rows = min(num_queries, max(FEWEST_ROWS, BLOCK_SCORES // num_keys))
    scaled, turned = query * query.shape[-1] ** -0.5, key.transpose(-1, -2)
    is_per_query = mask is not None and mask.shape[-2] > 1
    heard = []
    for start in range(0, num_queries, num_rows):
        rows = slice(start, start + num_rows)
        scores = scaled[..., rows, :] @ turned
        if mask is not None:
            scores += mask[..., rows, :] if is_per_query else mask
        heard.append(scores.softmax(-1) @ value)
    return heard[0] if len(heard) == 1 else torch.cat(heard, dim=-2)


def keys_values(
    attn: Attention, words: Float[Tensor, "b l k"]
) -> tuple[Float[Tensor, "b heads l d"], Float[Tensor, "b heads l d"]]:
    """Return what a layer compares with its queries, and what it hears.

    Args:
        attn: The layer.
        words: Words, or the tokens themselves.
    """
    return split_heads(attn.to_k(words), attn.heads), split_heads(attn.to_v(words), attn.heads)


def split_heads(x: Float[Tensor, "b n k"], num_heads: int) -> Float[Tensor, "b heads n d"]:
    """Give each head its share of the channels.

    Args:
        x: Vectors of all heads.
        num_heads: Heads.
    """
    return x.unflatten(-1, (num_heads, -1)).transpose(1, 2)
