"""Classifier-free guidance, the same in serving and in teaching."""

import torch
from jaxtyping import Float
from torch import Tensor


def guided(
    with_words: Float[Tensor, "*b c h w"],
    without: Float[Tensor, "*b c h w"],
    *,
    scale: float,
    rescale: float,
) -> Float[Tensor, "*b c h w"]:
    """Move a prediction away from what the model says without words, and bound how far.

    Guidance makes predictions larger than any that the model has learned to continue from. At the
    noisy end, where a whole step is its work, one large step can end in an empty picture.

    Args:
        with_words: The prediction with words.
        without: The prediction without words, or with the negative prompt's.
        scale: How far to move, at least 1; 1 leaves the prediction as it is.
        rescale: Share, 0..1, of the way back to the spread that `with_words` has, each picture by
            its own; 0 is plain guidance.

    Source: Ho and Salimans, arXiv 2207.12598, equation 6; Lin et al., arXiv 2305.08891, section
        3.4 (rescaling).
    """
    moved = without + scale * (with_words - without)
    if not rescale:
        return moved
    dims = (-3, -2, -1)
    # A prediction that is the same everywhere, such as an untrained network's, has no spread.
    found = moved.std(dim=dims, keepdim=True).clamp(min=torch.finfo(moved.dtype).tiny)
    spread = with_words.std(dim=dims, keepdim=True) / found
    return moved * (1 + rescale * (spread - 1))
