"""Classifier-feature distillation: what a classifier sees in the picture, not every pixel of it."""

import torch
from torch import nn

from distill.features import FeatureNetwork
from distill.noise import NoiseSchedule
from distill.stages import Stage
from distill.student import Drawn, StudentMethod
from distill.tasks import Task
from training.losses.relational import row_kl
from training.method import Batch, StepOutput


class ClassifierFeatureMethod(StudentMethod):
    """Divergence of softened feature vectors.

    Args:
        student: Learns.
        teacher: Never moves.
        task: What is denoised and what is heard.
        noise: The schedule of both.
        stage: How many steps each takes.
        features: Frozen; sees the pictures that student and teacher believe in.
        temperature: Of the teacher's softmax; the student's is 1. Below 1 it is sharper.

    Source:
        Sun et al., arXiv 2211.12039, equation 8. Differs: no entropy regulariser, as the authors
        recommend for dense features.
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
        temperature: float = 0.9,
    ) -> None:
        super().__init__(student, teacher, task, noise, stage, extra_roles={"features": features})
        self._features, self._temperature = features, temperature

    def learn(self, batch: Batch, drawn: Drawn, generator: torch.Generator) -> StepOutput:  # noqa: ARG002
        """Return the divergence of what the classifier sees."""
        pair = self.whole_steps(batch, drawn)
        with torch.no_grad():
            taught = self._features(pair.teacher).vector
        seen = self._features(pair.student).vector
        cfd = row_kl(seen, taught / self._temperature, reduction="row_mean")
        return self.judged(pair, {"cfd": (1.0, cfd)})
