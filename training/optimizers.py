"""Optimizers and learning-rate schedules, by name."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from core.devices import multiplies_bfloat16
from core.errors import InputError, UnknownNameError
from training.muon import FloatMuon

KINDS = ("adamw", "muon")
SCHEDULES = ("cosine", "constant")
POSITIONS = "relative_attention_bias"


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizerConfig:
    """How weights move.

    Attributes:
        kind: "adamw" for all weights; "muon" for matrices inside blocks, AdamW for the rest
            (embeddings, vectors, convolutions).
        learning_rate: AdamW's peak rate.
        muon_learning_rate: Muon's peak rate; its steps are scaled to AdamW's usual size.
        position_learning_rate: AdamW's peak rate for tables of relative positions. Their entries
            add to logits, so they must reach several units: at the rate of other weights a text
            encoder stays a bag of words for a very long time.
        weight_decay: Decoupled decay of matrices; vectors are not decayed.
        betas: AdamW's moment decays.
        warmup_steps: Steps of linear warm-up.
        schedule: "cosine" down to `final_share` of the peak at the last step, or "constant".
        final_share: Last rate over peak rate, 0..1.
    """

    kind: str = "adamw"
    learning_rate: float = 1e-3
    muon_learning_rate: float = 1e-3
    position_learning_rate: float = 1e-2
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.99)
    warmup_steps: int = 200
    schedule: str = "cosine"
    final_share: float = 0.02

    def __post_init__(self) -> None:
        """Refuse unknown names and impossible numbers.

        Raises:
            UnknownNameError: If kind or schedule is unknown.
            InputError: If a rate is not positive.
        """
        if self.kind not in KINDS:
            raise UnknownNameError("optimizer", self.kind, KINDS, param="optimizer.kind")
        if self.schedule not in SCHEDULES:
            raise UnknownNameError("schedule", self.schedule, SCHEDULES, param="optimizer.schedule")
        if not self.learning_rate > 0:
            raise InputError(
                f"The learning rate must be positive, not {self.learning_rate}.",
                param="optimizer.learning_rate",
            )


def build_optimizers(
    modules: Sequence[nn.Module], config: OptimizerConfig
) -> list[torch.optim.Optimizer]:
    """Return the optimizers that move all weights of some modules.

    Args:
        modules: Whose weights move.
        config: Kind and rates.

    Returns:
        One AdamW, and for kind "muon" one Muon beside it.

    Source: Raffel et al., arXiv 1910.10683, section 3.1.2: T5 learns at 1e-2, positions included.
    """
    named = [pair for module in modules for pair in module.named_parameters()]
    hidden = [w for name, w in named if config.kind == "muon" and _is_hidden_matrix(name, w)]
    positions = [w for name, w in named if POSITIONS in name]
    taken = {id(w) for w in [*hidden, *positions]}
    matrices = [w for _, w in named if id(w) not in taken and w.ndim >= 2]
    vectors = [w for _, w in named if w.ndim < 2]
    adamw = torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": config.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
            *_group(positions, lr=config.position_learning_rate),
        ],
        lr=config.learning_rate,
        betas=config.betas,
    )
    if not hidden:
        return [adamw]
    kind = torch.optim.Muon if multiplies_bfloat16(hidden[0].device) else FloatMuon
    muon = kind(
        hidden,
        lr=config.muon_learning_rate,
        weight_decay=config.weight_decay,
        adjust_lr_fn="match_rms_adamw",
    )
    return [adamw, muon]


def build_schedules(
    optimizers: Sequence[torch.optim.Optimizer], config: OptimizerConfig, num_steps: int
) -> list[LambdaLR]:
    """Return a learning-rate schedule per optimizer.

    Args:
        optimizers: What `build_optimizers` returned.
        config: Warm-up, shape and end.
        num_steps: Optimizer steps of the whole training.
    """

    def share(step: int) -> float:
        if step < config.warmup_steps:
            return (step + 1) / config.warmup_steps
        if config.schedule == "constant":
            return 1.0
        done = (step - config.warmup_steps) / max(1, num_steps - config.warmup_steps)
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
        return config.final_share + (1 - config.final_share) * cosine

    return [LambdaLR(optimizer, share) for optimizer in optimizers]


def _group(weights: list[nn.Parameter], *, lr: float) -> list[dict[str, Any]]:
    return [{"params": weights, "weight_decay": 0.0, "lr": lr}] if weights else []


def _is_hidden_matrix(name: str, weight: nn.Parameter) -> bool:
    # Muon is meant for matrices between hidden layers: not embeddings, not the way in or out.
    inside = ("transformer_blocks" in name) or (".block." in name and "relative" not in name)
    return weight.ndim == 2 and inside
