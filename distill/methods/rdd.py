"""Relational diffusion distillation: what pixels are to each other, within and across batches."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from core.errors import InputError, UnknownNameError
from core.seeding import torch_generator
from distill.features import FeatureMap, FeatureNetwork
from distill.noise import NoiseSchedule
from distill.stages import Stage
from distill.student import Drawn, StudentMethod
from distill.tasks import Task
from training.losses.relational import (
    PixelQueue,
    gathered,
    gathered_with_gradient,
    gram,
    pairwise_relations,
    pixels,
    row_kl,
)
from training.method import Batch, Phase, StepOutput

QUEUES = ("paper", "release")


@dataclass(frozen=True, kw_only=True, slots=True)
class RelationalSettings:
    """Weights, temperatures and the queue; a term of weight 0 is not computed.

    Attributes:
        squared: Weight of the squared picture error; the paper's recipe has none.
        cfd: Weight of the classifier-feature term.
        intra: Weight of relations between all pixels of all samples in the batch.
        memory: Weight of relations with pixels of earlier batches.
        cfd_temperature: Of the teacher's softmax in the classifier-feature term.
        temperature: Of cosines between pixels of the batch.
        contrast_temperature: Of cosines with the queue.
        capacity: Pixels in the queue.
        num_contrasts: Pixels of the queue that each pixel is compared with.
        num_fresh: New pixels that a step puts into the queue, over all processes.
        queue: "paper": a pixel is a pixel, contrasts are drawn anew at each step, relations and
            queue reach over all processes. "release": as the published code does it, where a stored
            "pixel" mixes the channels of many pictures, contrasts are fixed and equally spaced, and
            relations stay within a process.
    """

    squared: float = 0.0
    cfd: float = 1.0
    intra: float = 1.0
    memory: float = 0.1
    cfd_temperature: float = 0.9
    temperature: float = 1.0
    contrast_temperature: float = 0.1
    capacity: int = 20_000
    num_contrasts: int = 4096
    num_fresh: int = 128
    queue: str = "paper"

    def __post_init__(self) -> None:
        """Refuse what cannot be computed.

        Raises:
            UnknownNameError: If there is no such queue.
            InputError: If a weight is negative, all are 0, or a temperature is not above 0.
        """
        if self.queue not in QUEUES:
            raise UnknownNameError("queue", self.queue, QUEUES, param="queue")
        weights = (self.squared, self.cfd, self.intra, self.memory)
        if min(weights) < 0 or not any(weights):
            raise InputError(
                f"Weights {weights} of squared, cfd, intra, memory: give none below 0 and one "
                "above.",
                param="weights",
            )
        if not min(self.cfd_temperature, self.temperature, self.contrast_temperature) > 0:
            raise InputError("Temperatures must be above 0.", param="temperature")


class RelationalMethod(StudentMethod):
    """Classifier features, relations within the batch, and relations with a memory.

    Args:
        student: Learns.
        teacher: Never moves.
        task: What is denoised and what is heard.
        noise: The schedule of both.
        stage: How many steps each takes.
        features: Frozen; sees the pictures that student and teacher believe in.
        settings: Weights, temperatures and the queue.
        seed: Of the queue's first contents.

    Source:
        Feng et al., arXiv 2410.07679, intra-sample and memory-based pixel-to-pixel distillation.
        Differs: group instead of synchronised batch normalisation in the projector, and one
        optimizer for student and projector.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        task: Task,
        noise: NoiseSchedule,
        stage: Stage,
        *,
        features: FeatureNetwork,
        settings: RelationalSettings,
        seed: int = 0,
    ) -> None:
        extra: dict[str, nn.Module] = {"features": features}
        if settings.memory:
            extra["projector"] = new_projector(features.width, seed=seed)
        super().__init__(student, teacher, task, noise, stage, extra_roles=extra)
        trains = {"student", "projector"} & set(self.roles)
        self.phases = (Phase(name="distill", trains=frozenset(trains)),)
        self._features, self._settings = features, settings
        if settings.memory:
            self.queue = PixelQueue(settings.capacity, features.width, seed=seed)
        self._fresh: list[Tensor] = []

    def learn(self, batch: Batch, drawn: Drawn, generator: torch.Generator) -> StepOutput:
        """Return the weighted sum of the terms."""
        settings = self._settings
        pair = self.whole_steps(batch, drawn)
        with torch.no_grad():
            taught = self._features(pair.teacher)
        seen = self._features(pair.student)
        terms: dict[str, tuple[float, Tensor]] = {}
        if settings.squared:
            terms["squared"] = (settings.squared, self.squared_error(pair))
        if settings.cfd:
            softened = taught.vector / settings.cfd_temperature
            terms["cfd"] = (settings.cfd, row_kl(seen.vector, softened, reduction="row_mean"))
        if settings.intra:
            terms["intra"] = (settings.intra, self._intra(seen.map, taught.map))
        if settings.memory:
            terms["memory"] = (settings.memory, self._memory(seen, taught, generator))
        output = self.judged(pair, terms)
        if not settings.memory:
            return output
        fill = self.queue.num_filled / settings.capacity
        return StepOutput(loss=output.loss, metrics={**output.metrics, "queue_fill": fill})

    def after_step(self, step: int) -> None:
        """Put the newest teacher pixels of all processes into the queue."""
        super().after_step(step)
        for fresh in self._fresh:
            self.queue.push(fresh)
        self._fresh.clear()

    def _intra(
        self, seen: Float[Tensor, "b c h w"], taught: Float[Tensor, "b c h w"]
    ) -> Float[Tensor, ""]:
        students, teachers = pixels(seen), pixels(taught)
        all_students, all_teachers = students, teachers
        if self._settings.queue == "paper":
            all_students, all_teachers = gathered_with_gradient(students), gathered(teachers)
        temperature = self._settings.temperature
        return row_kl(
            pairwise_relations(students, all_students, temperature=temperature),
            pairwise_relations(teachers, all_teachers, temperature=temperature),
            reduction="row_mean",
        )

    def _memory(
        self, seen: FeatureMap, taught: FeatureMap, generator: torch.Generator
    ) -> Float[Tensor, ""]:
        settings = self._settings
        if settings.queue == "paper":
            contrasts = self.queue.draw(settings.num_contrasts, generator)
        else:
            contrasts = self.queue.evenly_spaced(settings.num_contrasts)
        projected = pixels(self.roles["projector"](seen.map)).flatten(0, 1)
        teachers = pixels(taught.map).flatten(0, 1)
        self._fresh.append(self._newest(taught.map, generator))
        temperature = settings.contrast_temperature
        return row_kl(
            gram(projected, contrasts, temperature=temperature),
            gram(teachers, contrasts, temperature=temperature),
            reduction="row_mean",
        )

    def _newest(
        self, taught: Float[Tensor, "b c h w"], generator: torch.Generator
    ) -> Float[Tensor, "n c"]:
        if self._settings.queue == "release":
            # The release views (b, c, h, w) as (c, b h w) without moving the axes: every column
            # holds channels of many pictures. All processes choose alike.
            maps = gathered(F.normalize(taught, dim=1))
            mixed = maps.reshape(maps.shape[1], -1).T
            chooser = torch_generator(0, "release", int(self.num_taught), len(self._fresh))
            chosen = torch.randperm(len(mixed), generator=chooser)[: self._settings.num_fresh]
            return mixed[chosen.to(mixed.device)]
        own = pixels(taught).flatten(0, 1)
        share = len(gathered(own[:1]))
        count = max(1, self._settings.num_fresh // share)
        chosen = torch.randperm(len(own), generator=generator)[:count]
        return gathered(own[chosen.to(own.device)])


def new_projector(width: int, *, seed: int = 0) -> nn.Module:
    """Return the untrained head that student pixels go through before they meet the queue.

    Args:
        width: Channels in and out.
        seed: Of the weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # layers draw their weights globally
        return nn.Sequential(
            nn.Conv2d(width, width, 1, bias=False),
            nn.GroupNorm(1, width),
            nn.ReLU(),
            nn.Conv2d(width, width, 1),
        )
