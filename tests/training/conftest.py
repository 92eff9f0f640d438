from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from core.seeding import torch_generator
from scenes.sprites import SpriteSheet
from tests.world import SHEET
from training.loop import LoopConfig
from training.method import Batch, Method, Phase, StepOutput
from training.optimizers import OptimizerConfig


@pytest.fixture(autouse=True)
def _fresh_accelerator():
    # accelerate keeps one precision per process; each test is a process of its own in spirit
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="session")
def sheet() -> SpriteSheet:
    return SHEET


class LineMethod(Method):
    """Fits y = 2 x + 1 with noise from the handed generator, beside a frozen role."""

    phases = (Phase(name="fit", trains=frozenset({"student"})),)

    def __init__(self) -> None:
        student, teacher = nn.Linear(1, 1), nn.Linear(1, 1)
        with torch.no_grad():
            for module, slope in ((student, 0.0), (teacher, 2.0)):
                module.weight.fill_(slope)
                module.bias.fill_(slope / 2)
        super().__init__({"student": student, "teacher": teacher})
        self.register_buffer("num_seen", torch.zeros(()))

    def step(self, phase: str, batch: Batch, generator: torch.Generator) -> StepOutput:
        x: Tensor = batch["x"]
        noisy = x + 0.01 * torch.randn(x.shape, generator=generator)
        error = self.roles["student"](noisy) - self.roles["teacher"](x).detach()
        loss = error.square().mean()
        return StepOutput(loss=loss, metrics={"error": loss.detach()})

    def after_step(self, step: int) -> None:
        self.num_seen += 1


def line_batch(step: int) -> Batch:
    return {"x": torch.rand(8, 1, generator=torch_generator(5, step))}


def line_config(num_steps: int, **changes) -> LoopConfig:
    settings = {
        "optimizer": OptimizerConfig(learning_rate=0.05, warmup_steps=2),
        "precision": "no",
        "save_every": 1000,
        "log_every": 5,
        "sample_every": 10,
    }
    return LoopConfig(num_steps=num_steps, **{**settings, **changes})


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return tmp_path / "run"
