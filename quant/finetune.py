"""Learning at few bits, data-free, along the float model's own trajectories. Read `FewBits.step`.

Source: Feng et al., "MPQ-DM", arXiv 2412.11549; data-free tuning of He et al., "EfficientDM", arXiv
2310.03270. The published code detaches the features of its relation loss, which then moves nothing;
`relation="release"` does the same, for comparison.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from core.errors import InputError, UnknownNameError, UnsupportedError
from quant.adapters import Adapter, held_weights
from quant.trajectory import (
    Call,
    Sampling,
    first_tensor,
    guided,
    record_calls,
    sample,
    watched_feature,
)
from training.losses.relational import gram, pixels, row_kl
from training.method import Batch, Method, Phase, StepOutput

Relation = Literal["none", "joint", "current", "release"]
RELATIONS = ("none", "joint", "current", "release")
RELEASED_WEIGHT = 100.0


@dataclass(frozen=True, kw_only=True, slots=True)
class RelationConfig:
    """Temporal relation distillation.

    Attributes:
        kind: "joint" sends gradients through every step of a window, "current" through its last
            step only, "release" through none, as published; "none" leaves the loss out.
        window: Consecutive steps whose features are averaged.
        share: Strength beside the task: 1 gives both losses gradients of one norm where they enter
            the last block.
        max_tokens: Tokens of a map, evenly spaced; memory grows with its square.
    """

    kind: str = "joint"
    window: int = 2
    share: float = 0.1
    max_tokens: int = 256

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            UnknownNameError: If there is no such kind.
            InputError: If the window or the tokens are too few.
        """
        if self.kind not in RELATIONS:
            raise UnknownNameError("relation", self.kind, RELATIONS, param="set.relation")
        if self.window < 1 or self.max_tokens < 2:
            raise InputError(
                f"A window of {self.window} steps and {self.max_tokens} tokens: at least 1 and 2.",
                param="set.window",
            )


class FewBits(Method):
    """Lets adapters learn what rounding lost, on windows of consecutive sampling steps.

    Args:
        student: The network with rounding layers; on its device, and no role of its own, because
            all of it but the adapters is frozen.
        adapters: What learns, by layer name.
        output_layer: Name of the output projection.
        guidance: Guidance scale of the trajectories.
        relation: The relation loss.
    """

    phases = (Phase(name="tune", trains=frozenset({"adapters"})),)

    def __init__(
        self,
        student: nn.Module,
        adapters: Mapping[str, Adapter],
        output_layer: str,
        *,
        guidance: float,
        relation: RelationConfig,
    ) -> None:
        named = nn.ModuleDict({name.replace(".", "/"): part for name, part in adapters.items()})
        super().__init__({"adapters": named})
        self._student = [student]
        self.output_layer, self._guidance, self._relation = output_layer, guidance, relation

    @property
    def student(self) -> nn.Module:
        """The network with rounding layers."""
        return self._student[0]

    def step(self, phase: str, batch: Batch, generator: torch.Generator) -> StepOutput:  # noqa: ARG002
        """Return the error of guided predictions and of relations over a window.

        Both losses meet in the features, so comparing their gradients there costs one pass through
        the output projection and not one through the network.
        """
        task, relation, features = self.losses(batch["calls"], is_doubled=batch["is_doubled"])
        metrics = {"task": task.detach()}
        if relation is None:
            return StepOutput(loss=task, metrics=metrics)
        live = [feature for feature in features if feature.requires_grad]
        task_norm = _norm(torch.autograd.grad(task, live, retain_graph=True))
        weight = torch.tensor(RELEASED_WEIGHT, device=task.device)
        relation_norm = torch.zeros_like(task)
        if relation.requires_grad:
            relation_norm = _norm(torch.autograd.grad(relation, live, retain_graph=True))
            weight = self._relation.share * task_norm / relation_norm.clamp(min=1e-20)
        metrics |= {
            "relation": relation.detach(),
            "relation_weight": weight,
            "task_gradient": task_norm,
            "relation_gradient": weight * relation_norm,
        }
        return StepOutput(loss=task + weight * relation, metrics=metrics)

    def losses(
        self, calls: Sequence[Call], *, is_doubled: bool
    ) -> tuple[Tensor, Tensor | None, list[Tensor]]:
        """Return task loss, relation loss and the student's features over a window.

        Args:
            calls: What the float model did, in order.
            is_doubled: Whether the first half of all rows is without words.

        Returns:
            The relation loss is None where there is none.
        """
        terms, features = [], []
        watched = watched_feature(self.student, self.output_layer)
        with held_weights(self.student), watched as newest:
            for index, call in enumerate(calls):
                is_live = self._relation.kind != "current" or index == len(calls) - 1
                with torch.set_grad_enabled(is_live):
                    output = first_tensor(self.student(**call.arguments))
                    features.append(newest())
                if is_live:
                    terms.append(self._task(output, call.output, is_doubled=is_doubled))
        task = torch.stack(terms).mean()
        if self._relation.kind == "none":
            return task, None, features
        return task, self._relate(features, [call.feature for call in calls]), features

    def gradient_norms(self, batch: Batch) -> tuple[float, float]:
        """Return what task and weighted relation loss each send to the adapters.

        Args:
            batch: A window.

        Returns:
            Norms over all adapters; the second is 0 where nothing is sent.
        """
        moving = [w for w in self.roles.parameters() if w.requires_grad]
        task, relation, features = self.losses(batch["calls"], is_doubled=batch["is_doubled"])
        first = torch.autograd.grad(task, moving, retain_graph=True, allow_unused=True)
        if relation is None or not relation.requires_grad:
            return float(_norm(first)), 0.0
        live = [feature for feature in features if feature.requires_grad]
        at_task = _norm(torch.autograd.grad(task, live, retain_graph=True))
        at_relation = _norm(torch.autograd.grad(relation, live, retain_graph=True))
        weight = self._relation.share * at_task / at_relation.clamp(min=1e-20)
        second = torch.autograd.grad(weight * relation, moving, allow_unused=True)
        return float(_norm(first)), float(_norm(second))

    def _task(self, output: Tensor, target: Tensor, *, is_doubled: bool) -> Tensor:
        one = guided(output.float(), self._guidance, is_doubled=is_doubled)
        other = guided(target.float(), self._guidance, is_doubled=is_doubled)
        return F.mse_loss(one, other)

    def _relate(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        if self._relation.kind == "release":
            student = [feature.detach() for feature in student]
        maps = [
            self._map(torch.stack([part.float() for part in side]).mean(dim=0))
            for side in (student, teacher)
        ]
        return row_kl(maps[0], maps[1], reduction="sum")

    def _map(self, feature: Tensor) -> Float[Tensor, "b n n"]:
        tokens = pixels(feature) if feature.ndim == 4 else feature
        count = min(self._relation.max_tokens, tokens.shape[1])
        places = torch.arange(count, device=tokens.device) * tokens.shape[1] // count
        chosen = tokens[:, places]
        return gram(chosen, chosen)


class TrajectorySource:
    """Windows of consecutive steps of the float model's own sampling, a function of the step.

    Args:
        pipeline: Samples with the float transformer.
        output_layer: Name of the transformer's output projection.
        prompts: Returns the prompts of a trajectory by its number.
        sampling: Steps, guidance, pictures a trajectory.
        window: Steps a batch.
        seed: Seed of the noise.
    """

    def __init__(
        self,
        pipeline: Any,  # noqa: ANN401 - any diffusers pipeline
        output_layer: str,
        prompts: Callable[[int], Sequence[str]],
        sampling: Sampling,
        *,
        window: int,
        seed: int,
    ) -> None:
        self._pipeline, self._output_layer, self._prompts = pipeline, output_layer, prompts
        self._sampling, self._window, self._seed = sampling, window, seed
        self._number, self._calls = -1, list[Call]()

    @property
    def windows_per_trajectory(self) -> int:
        """Batches that one trajectory gives; the last may be shorter."""
        return -(-self._sampling.num_steps // self._window)

    def __call__(self, step: int) -> Batch:
        """Return a window of calls, walking down one trajectory after the other.

        Raises:
            UnsupportedError: If the sampler calls the network more or less than once a step.
        """
        number, place = divmod(step, self.windows_per_trajectory)
        if number != self._number:
            self._calls, self._number = self._record(number), number
        if len(self._calls) != self._sampling.num_steps:
            raise UnsupportedError(
                f"The sampler called its transformer {len(self._calls)} times in "
                f"{self._sampling.num_steps} steps: choose a scheduler with one call a step."
            )
        calls = self._calls[place * self._window : (place + 1) * self._window]
        rows = len(calls[0].output)
        return {
            "calls": calls,
            "is_doubled": rows == 2 * self._sampling.batch_size,
            "rows": torch.zeros(rows),  # what the loop counts samples by
        }

    def _record(self, number: int) -> list[Call]:
        prompts = self._prompts(number)
        size = self._sampling.batch_size
        seeds = [self._seed + number * size + index for index in range(len(prompts))]
        return record_calls(
            self._pipeline.transformer,
            self._output_layer,
            lambda: list(sample(self._pipeline, prompts, seeds, self._sampling)),
        )


def _norm(gradients: Sequence[Tensor | None]) -> Tensor:
    found = [g.float().square().sum() for g in gradients if g is not None]
    return torch.stack(found).sum().sqrt() if found else torch.zeros(())
