"""Tiny random transformers of several families, and calls that stand in for a sampler."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from diffusers import FluxTransformer2DModel, PixArtTransformer2DModel, SD3Transformer2DModel
from torch import nn

from quant.adapters import pack_in_turn, to_student
from quant.calibrate import Calibration, calibrate
from quant.manifest import Manifest
from quant.plan import Storage, plan_layers
from quant.precision import Policy, Precision
from quant.timesteps import Timesteps

TIMESTEPS = (900.0, 500.0, 100.0)


@dataclass(frozen=True)
class Tiny:
    """A network and what it is called with.

    Attributes:
        network: The transformer.
        arguments: Keyword arguments of its forward, the timestep aside.
    """

    network: nn.Module
    arguments: dict[str, Any]

    def call(self, timestep: float | list[float], network: nn.Module | None = None) -> torch.Tensor:
        rows = self.arguments["hidden_states"].shape[0]
        times = torch.tensor(timestep if isinstance(timestep, list) else [timestep] * rows)
        with torch.no_grad():
            return (network or self.network)(timestep=times, **self.arguments, return_dict=False)[0]

    def run(self) -> None:
        for timestep in TIMESTEPS:
            self.call(timestep)

    def calibrated(self) -> Calibration:
        return calibrate(self.network, self.run, torch.Generator().manual_seed(0), num_rows=64)


def tiny_pixart(rows: int = 2) -> Tiny:
    torch.manual_seed(0)
    network = PixArtTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        cross_attention_dim=32,
        caption_channels=24,
        sample_size=8,
        patch_size=2,
    ).eval()
    arguments = {
        "hidden_states": torch.randn(rows, 4, 8, 8),
        "encoder_hidden_states": torch.randn(rows, 5, 24),
        "added_cond_kwargs": {"resolution": None, "aspect_ratio": None},
    }
    return Tiny(network, arguments)


def tiny_sd3() -> Tiny:
    torch.manual_seed(0)
    network = SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=24,
        caption_projection_dim=32,
        pooled_projection_dim=20,
        out_channels=4,
        pos_embed_max_size=8,
    ).eval()
    arguments = {
        "hidden_states": torch.randn(2, 4, 8, 8),
        "encoder_hidden_states": torch.randn(2, 5, 24),
        "pooled_projections": torch.randn(2, 20),
    }
    return Tiny(network, arguments)


def tiny_flux() -> Tiny:
    torch.manual_seed(0)
    network = FluxTransformer2DModel(
        patch_size=1,
        in_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=24,
        pooled_projection_dim=20,
        axes_dims_rope=(4, 4, 8),
    ).eval()
    arguments = {
        "hidden_states": torch.randn(2, 16, 4),
        "encoder_hidden_states": torch.randn(2, 5, 24),
        "pooled_projections": torch.randn(2, 20),
        "img_ids": torch.zeros(16, 3),
        "txt_ids": torch.zeros(5, 3),
    }
    return Tiny(network, arguments)


FAMILIES: dict[str, Callable[[], Tiny]] = {
    "pixart": tiny_pixart,
    "sd3": tiny_sd3,
    "flux": tiny_flux,
}


@pytest.fixture
def pixart() -> Tiny:
    return tiny_pixart()


def packed_copy(
    tiny: Tiny, precision: Precision, storage: Storage, policy: Policy | None = None
) -> tuple[nn.Module, Manifest]:
    """Quantize without learning, as the recipes do."""
    calibration = tiny.calibrated()
    network = deepcopy(tiny.network)
    plans = plan_layers(network, calibration, precision, policy or Policy(), storage)
    to_student(network, plans, Timesteps(calibration.timesteps), {})
    return network, pack_in_turn(network, method="mpq", precision=precision)
