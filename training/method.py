"""What a trainer is made of: phases, a method, and a source of batches.

A method contains its paper and nothing else. The loop (`training/loop.py`) owns optimizers,
clipping, accumulation, precision, averages of weights, checkpoints and resuming.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

Batch = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Phase:
    """One kind of optimizer step.

    Attributes:
        name: What the method's `step` is told.
        trains: Roles whose weights move in this phase; all others are frozen.
        every: The phase runs at steps divisible by this, at least 1.
    """

    name: str
    trains: frozenset[str]
    every: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class StepOutput:
    """What one step found.

    Attributes:
        loss: The scalar to descend.
        metrics: Every term of the loss by name, detached scalars, for the log.
    """

    loss: Tensor
    metrics: Mapping[str, Tensor] = field(default_factory=dict)


class Method(ABC, nn.Module):
    """One way to learn. Its state (buffers, frozen roles) travels with the checkpoint.

    Args:
        roles: Networks by role name ("student", "teacher", "autoencoder").

    Attributes:
        phases: Run in this order at each step.
    """

    phases: tuple[Phase, ...]

    def __init__(self, roles: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.roles = nn.ModuleDict(dict(roles))

    @abstractmethod
    def step(self, phase: str, batch: Batch, generator: torch.Generator) -> StepOutput:
        """Return the loss of a batch in a phase.

        Args:
            phase: Name of the phase.
            batch: What the source gave, on the right device.
            generator: The only source of randomness; seeded from (seed, step).
        """

    def after_step(self, step: int) -> None:
        """Update what no gradient moves (queues, centres).

        Args:
            step: The step that was just made, from 0.
        """


@runtime_checkable
class Source(Protocol):
    """Where batches come from: a pure function of the step, so a resumed run sees the same."""

    def __call__(self, step: int) -> Batch:
        """Return the batch of a step, on the CPU.

        Args:
            step: From 0.
        """


@runtime_checkable
class Sampler(Protocol):
    """Draws what people look at while a model learns."""

    def __call__(self, method: Method, path: Any) -> Mapping[str, float]:  # noqa: ANN401
        """Write a picture and return figures worth logging.

        Args:
            method: The method, with averaged weights in place.
            path: PNG file to write.
        """
