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


TINY_RUN = ["num_steps=2", "batch_size=2", "num_scenes=8", "teacher_steps=4", "precision=no"]
TINY_QUEUE = ["capacity=64", "num_contrasts=16", "num_fresh=8"]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A published teacher of two narrow blocks that has learned nothing."""
    from training.autoencoder import new_autoencoder
    from training.publish import publish_teacher
    from training.teacher import new_scheduler, new_transformer
    from training.text import new_text_encoder, new_tokenizer

    torch.manual_seed(0)
    tokenizer, autoencoder = new_tokenizer(), new_autoencoder()
    autoencoder.register_to_config(scaling_factor=1.0)
    folder = tmp_path_factory.mktemp("model") / "tiny"
    return publish_teacher(
        folder,
        tokenizer=tokenizer,
        text_encoder=new_text_encoder(tokenizer, width=32),
        autoencoder=autoencoder,
        transformer=new_transformer(width=32, depth=2, latent_channels=12, latent_size=16),
        scheduler=new_scheduler(),
        origin={"method": "none"},
    )


@pytest.fixture
def own_checkpoint(checkpoint, tmp_path):
    import shutil

    return shutil.copytree(checkpoint, tmp_path / "tiny")


@pytest.fixture
def two_sample_prompts(monkeypatch):
    """Sixteen pictures a grid are for people."""
    monkeypatch.setattr("distill.pictures.SAMPLE_PROMPTS", ("a red cat", "a blue star"))


@pytest.fixture(scope="session")
def scene_latents(tmp_path_factory):
    """Sixteen drawn scenes with made-up latents of unit spread, as `encode_scenes` leaves them."""
    import json

    import numpy as np

    folder = tmp_path_factory.mktemp("latents") / "made-up"
    folder.mkdir()
    rng = np.random.default_rng(0)
    np.save(folder / "0000.npy", rng.standard_normal((16, 12, 16, 16)).astype(np.float16))
    np.save(folder / "0000.layout.npy", rng.integers(0, 3, (16, 8, 8, 2)).astype(np.uint8))
    lines = [json.dumps(["a red cat"] * 5) for _ in range(16)]
    (folder / "0000.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """Sixty flat photos of three kinds that differ in colour, as a file of JPEGs."""
    from io import BytesIO

    import numpy as np
    from PIL import Image

    rng, files, labels = np.random.default_rng(0), [], []
    for index in range(60):
        picture = rng.integers(0, 60, (32, 32, 3))
        picture[..., index % 3] += 180
        buffer = BytesIO()
        Image.fromarray(picture.astype(np.uint8)).save(buffer, "JPEG", quality=90)
        files.append(buffer.getvalue())
        labels.append(index % 3)
    path = tmp_path_factory.mktemp("photos") / "photos.npz"
    np.savez(
        path,
        jpeg=np.frombuffer(b"".join(files), np.uint8),
        offset=np.cumsum([0, *map(len, files)]),
        label=np.array(labels, np.uint8),
        name=np.array(["red", "green", "blue"]),
    )
    return path


@pytest.fixture
def made_up_latents(scene_latents, monkeypatch):
    """Scenes take seconds to draw and encode; what is taught from them does not matter here."""
    monkeypatch.setattr("distill.captioned.encode_scenes", lambda *_, **__: scene_latents)
    return scene_latents
