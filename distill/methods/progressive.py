"""Progressive distillation: one student step lands where the teacher's steps land."""

import torch

from distill.student import Drawn, StudentMethod
from training.method import Batch, StepOutput


class ProgressiveMethod(StudentMethod):
    """Squared error of the student's picture, weighted by max(SNR, 1).

    Source:
        Salimans and Ho, arXiv 2202.00512, algorithm 2 and equation 9. Differs: one student step may
        stand for more than two teacher steps; guidance of the first teacher is part of the target
        (Meng et al., arXiv 2210.03142, section 3, with a fixed scale).
    """

    def learn(self, batch: Batch, drawn: Drawn, generator: torch.Generator) -> StepOutput:  # noqa: ARG002
        """Return the weighted squared error."""
        pair = self.whole_steps(batch, drawn)
        return self.judged(pair, {"squared": (1.0, self.squared_error(pair))})
