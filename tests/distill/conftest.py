"""Tiny networks that speak like diffusers' own, and a world simple enough to know the truth of."""

from types import SimpleNamespace

import pytest
import torch
from accelerate.state import AcceleratorState
from torch import nn

from core.seeding import torch_generator
from distill.features import FeatureMap, FeatureNetwork
from distill.noise import NoiseSchedule
from distill.tasks import LabelledPixels
from training.loop import LoopConfig
from training.optimizers import OptimizerConfig

SCHEDULE = {
    "_class_name": "DDIMScheduler",
    "num_train_timesteps": 1000,
    "beta_schedule": "squaredcos_cap_v2",
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
    "set_alpha_to_one": True,
    "clip_sample": False,
}
SHAPE = (2, 4, 4)


@pytest.fixture(autouse=True)
def _fresh_accelerator():
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def noise():
    return NoiseSchedule(SCHEDULE)


class TinyNetwork(nn.Module):
    """A pointwise network that hears a class and a time."""

    def __init__(self, seed=0, channels=SHAPE[0], width=16, num_classes=3):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.heard = nn.Embedding(num_classes + 1, width)
            self.time = nn.Linear(1, width)
            self.inward = nn.Conv2d(channels, width, 1)
            self.outward = nn.Conv2d(width, channels, 1)

    def forward(self, noisy, timestep, class_labels):
        told = self.heard(class_labels) + self.time(timestep[:, None] / 1000.0)
        hidden = torch.tanh(self.inward(noisy) + told[:, :, None, None])
        return SimpleNamespace(sample=self.outward(hidden))


class GaussianOracle(nn.Module):
    """The perfect velocity where all pictures are one: DDIM then jumps without any error."""

    def __init__(self, picture, noise):
        super().__init__()
        self.register_buffer("picture", picture)
        self.noise = noise
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, noisy, timestep, class_labels):
        signal, spread = self.noise.at(timestep)
        # v = (a z - x) / s, from x = a z - s v
        return SimpleNamespace(sample=(signal * noisy - self.picture) / spread + 0 * self.weight)


class TinyFeatures(FeatureNetwork):
    input_range = "pixels"
    channels = SHAPE[0]

    def __init__(self, seed=0, width=6):
        super().__init__()
        self.width = width
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.layer = nn.Conv2d(self.channels, width, 3, padding=1)

    def look(self, pictures):
        seen = torch.tanh(self.layer(pictures))
        return FeatureMap(map=seen, vector=seen.mean(dim=(2, 3)))


def pixel_batch(step, count=6):
    generator = torch_generator(11, step)
    return {
        "pixels": torch.randn((count, *SHAPE), generator=generator).clamp(-1, 1),
        "labels": torch.randint(3, (count,), generator=generator),
    }


def tiny_task():
    return LabelledPixels(3)


def loop_config(num_steps, **changes):
    settings = {
        "optimizer": OptimizerConfig(learning_rate=3e-3, warmup_steps=2, weight_decay=0.0),
        "precision": "no",
        "save_every": 1000,
        "log_every": 1,
        "sample_every": 1000,
    }
    return LoopConfig(num_steps=num_steps, **{**settings, **changes})
