"""Regions to weights: how much each token of the picture hears each text."""

from collections.abc import Sequence
from math import ceil

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from core.errors import InputError
from pipelines.region_spec import Region, check_regions

# Below this a text is not heard at all, so that rounding in an edge costs no forward.
INAUDIBLE = 1e-6


def token_weights(
    regions: Sequence[Region],
    *,
    width: int,
    height: int,
    token_px: int,
    base_share: float = 0.0,
    param: str = "regions",
) -> Float[Tensor, "texts tokens"]:
    """Weigh the base prompt and each region on every token; each token's weights sum to 1.

    A region covers a token by area. What is in front hides what is behind; equal z share. The base
    prompt gets what no region covers, and of what is covered `base_share`, against which a
    region's weight counts.

    Args:
        regions: Any number, in any order.
        width: Picture width in pixels, a multiple of token_px.
        height: Picture height in pixels, a multiple of token_px.
        token_px: Edge of a token in pixels.
        base_share: How much of a region still hears the base prompt, 0..1.
        param: Name of the request field that holds the regions.

    Returns:
        Weights in float32, row by row from the top left; the base prompt's stand first.

    Raises:
        InputError: If base_share is out of range, or a mask holds NaN. What else is wrong with a
            region is raised as `check_regions` says.
    """
    check_regions(regions, width=width, height=height, param=param)
    if not 0 <= base_share <= 1:
        raise InputError(f"base_share is {base_share}: 0..1.", param="base_share")
    grid = (height // token_px, width // token_px)
    covers = []
    for place, region in enumerate(regions):
        cover = _cover(region, grid)
        if not cover.isfinite().all():
            path = f"{param}[{place}].mask"
            raise InputError(f"{path} holds NaN or infinity: 0..1 only.", param=path)
        covers.append(_feathered(cover, region.feather * min(grid)))
    if not covers:
        return torch.ones(1, grid[0] * grid[1])
    shares = _stacked([region.z for region in regions], torch.stack(covers).flatten(1))
    loudness = torch.tensor([region.weight for region in regions], dtype=torch.float64)
    heard = (1 - base_share) * loudness[:, None] * shares
    covered = shares.sum(0)
    total = (heard.sum(0) + base_share * covered).clamp_min(torch.finfo(torch.float64).tiny)
    heard = heard * (covered / total)
    heard = torch.where(heard < INAUDIBLE, 0.0, heard)
    base = 1 - heard.sum(0, keepdim=True)
    weights = torch.cat([torch.where(base < INAUDIBLE, 0.0, base), heard])
    return (weights / weights.sum(0)).float()


def _cover(region: Region, grid: tuple[int, int]) -> Float[Tensor, "h w"]:
    if region.mask is not None:
        pixels = torch.from_numpy(np.array(region.mask, dtype=np.float64))
        pixels = pixels / (255 if region.mask.mode == "L" else 1)
        return F.adaptive_avg_pool2d(pixels[None], grid)[0]
    assert region.box is not None  # check_regions saw to it
    x0, y0, x1, y1 = region.box
    return _overlap(y0, y1, grid[0])[:, None] * _overlap(x0, x1, grid[1])


def _overlap(low: float, high: float, num_cells: int) -> Float[Tensor, " cells"]:
    """Return the share of each cell of the unit interval that lies between low and high."""
    edges = torch.arange(num_cells + 1, dtype=torch.float64)
    starts = edges[:-1].clamp_min(low * num_cells)
    return (edges[1:].clamp_max(high * num_cells) - starts).clamp(0, 1)


def _feathered(cover: Float[Tensor, "h w"], sigma: float) -> Float[Tensor, "h w"]:
    """Blur along both axes; beyond the picture its edge goes on, so a full cover stays full."""
    if sigma == 0:
        return cover
    radius = ceil(3 * sigma)
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
    # Divided before it is squared: a tiny sigma squared would be 0, and 0/0 is NaN.
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = kernel / kernel.sum()
    padded = F.pad(cover[None, None], (radius,) * 4, mode="replicate")
    blurred = F.conv2d(F.conv2d(padded, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1))
    return blurred[0, 0].clamp(0, 1)


def _stacked(
    depths: Sequence[int], covers: Float[Tensor, "regions tokens"]
) -> Float[Tensor, "regions tokens"]:
    """Return what is visible of each region: the front hides the back, equals share."""
    shares = torch.zeros_like(covers)
    visible = torch.ones_like(covers[0])
    for z in sorted(set(depths), reverse=True):
        rows = [row for row, depth in enumerate(depths) if depth == z]
        crowd = covers[rows].sum(0)
        shares[rows] = visible * covers[rows] / crowd.clamp_min(1)
        visible = visible * (1 - crowd.clamp_max(1))
    return shares
