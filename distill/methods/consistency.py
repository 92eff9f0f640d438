"""Consistency distillation: every point of a student step's path leads to the same place."""

import torch

from distill.student import Drawn, Pair, StudentMethod
from training.method import Batch, StepOutput


class ConsistencyMethod(StudentMethod):
    """The student's jump from a noisier point lands where its jump from a cleaner one does.

    The cleaner point is one guided teacher step away; from the last one the teacher itself arrives,
    which anchors the chain. Between two of its steps the student so learns from itself, and no
    teacher path is ever walked to its end. It is sampled by plain DDIM, like the other students.

    Source:
        Heek et al., arXiv 2403.06807, algorithm 1 (several consistent segments, DDIM in between);
        Luo et al., arXiv 2310.04378, section 4.2 (a guided teacher's step). Differs: fixed guidance
        scale; no averaged target network, as in Heek et al.; squared error weighted by max(SNR, 1).
    """

    def learn(self, batch: Batch, drawn: Drawn, generator: torch.Generator) -> StepOutput:  # noqa: ARG002
        """Return how far apart the two jumps land, as an error of the student's picture."""
        pair = self._two_jumps(batch, drawn)
        return self.judged(pair, {"squared": (1.0, self.squared_error(pair))})

    def _two_jumps(self, batch: Batch, drawn: Drawn) -> Pair:
        first = drawn.places * self.stage.ratio + drawn.parts
        times, nearer = self.grid[first], self.grid[first + 1]
        ends = self.grid[(drawn.places + 1) * self.stage.ratio]
        noisy = self.noise.mix(self.task.clean(batch), drawn.noise, times)
        words, nothing = self.task.heard(batch)
        arrived = self.walk(noisy, first, 1, words, nothing)
        with torch.no_grad():
            belief = self.student_belief(arrived, nearer, words)
            jumped = self.noise.jump(arrived, belief, nearer.clamp(min=0), ends)
        is_there = (nearer == ends).view(-1, 1, 1, 1)
        arrived = torch.where(is_there, arrived, jumped)
        return Pair(
            student=self.student_belief(noisy, times, words),
            teacher=self.noise.believed(noisy, arrived, times, ends),
            times=times,
        )
