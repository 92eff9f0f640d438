"""Distribution matching: the student's pictures become as likely as the guided teacher's own."""

from copy import deepcopy

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from core.errors import InputError
from distill.noise import NoiseSchedule
from distill.stages import Stage
from distill.student import Drawn, Pair, StudentMethod
from distill.tasks import Heard, Task
from training.method import Batch, Phase, StepOutput

# Shares of all times between which pictures are made noisy again and compared.
TIMES = (0.02, 0.98)


class DistributionMatchingMethod(StudentMethod):
    """Moves what the student paints to where the teacher finds it likelier than a critic does.

    The critic learns all the while how the student's own pictures look under noise. Where it and
    the guided teacher see the same picture in the noise, the student paints what the teacher might
    have painted. No target is paired with a noise, so nothing is averaged over what two noises
    that look alike should have become; that is what blurs the other methods' pictures. In turn the
    student must start near: give it an earlier student's weights.

    Args:
        student: Learns.
        teacher: Never moves; the critic starts with its weights.
        task: What is denoised and what is heard.
        noise: The schedule of both.
        stage: The student's steps, and the teacher's guidance; the teacher walks no steps.
        critic_steps: Steps of the critic for one of the student, at least 1.

    Raises:
        InputError: If the critic takes no steps.

    Source:
        Yin et al., arXiv 2311.18828, equations 7 and 8; Yin et al., arXiv 2405.14867, sections 4.2
        (two time scales) and 4.4 (the student learns on its own path). Differs: DDIM in between
        steps, as it is sampled, instead of fresh noise; no adversarial loss.
    """

    painting = ("student", "teacher", "critic")

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        task: Task,
        noise: NoiseSchedule,
        stage: Stage,
        *,
        critic_steps: int = 2,
    ) -> None:
        if critic_steps < 1:
            raise InputError(f"critic_steps {critic_steps}: give at least 1.", param="critic_steps")
        critic = {"critic": deepcopy(teacher)}
        super().__init__(student, teacher, task, noise, stage, extra_roles=critic)
        self.phases = (
            Phase(name="criticise", trains=frozenset({"critic"})),
            Phase(name="distill", trains=frozenset({"student"}), every=critic_steps),
        )

    def step(self, phase: str, batch: Batch, generator: torch.Generator) -> StepOutput:
        """Return the critic's error on the student's pictures, or which way these should move."""
        drawn = self.draw(batch, generator)
        if phase == "criticise":
            return self._criticise(batch, drawn, generator)
        return self.learn(batch, drawn, generator)

    def learn(self, batch: Batch, drawn: Drawn, generator: torch.Generator) -> StepOutput:
        """Return a loss whose gradient at the student's picture is critic minus teacher."""
        words, nothing = self.task.heard(batch)
        picture = self._painted(drawn, words)
        noisy, _, times = self._noised(picture.detach(), generator)
        with torch.no_grad():
            likely = self._teacher_velocity(noisy, times, words, nothing)
            seen = self.task.predict(self._forward["critic"], noisy, times, words)
            teacher = self.noise.clean(noisy, likely, times)
            critic = self.noise.clean(noisy, seen, times)
            away = (picture - teacher).abs().mean(dim=(1, 2, 3), keepdim=True)
            target = picture - (critic - teacher) / away.clamp(min=1e-6)
        pair = Pair(student=picture, teacher=target, times=times)
        matching = 0.5 * (picture - target).square().mean()
        return self.judged(pair, {"matching": (1.0, matching)})

    def _criticise(self, batch: Batch, drawn: Drawn, generator: torch.Generator) -> StepOutput:
        words, _ = self.task.heard(batch)
        with torch.no_grad():
            picture = self._painted(drawn, words)
        noisy, noise, times = self._noised(picture, generator)
        velocity = self.task.predict(self._forward["critic"], noisy, times, words)
        signal, spread = self.noise.at(times)
        error = F.mse_loss(velocity, signal * noise - spread * picture)
        return StepOutput(loss=error, metrics={"critic": error.detach()})

    def _painted(self, drawn: Drawn, words: Heard) -> Float[Tensor, "b c h w"]:
        # One place for the whole batch: then only as many steps are walked as are needed.
        places = drawn.places[:1].expand(len(drawn.places))
        noisy = self.own_path(drawn.noise, places, words)
        grid = self.noise.grid(self.stage.num_steps).to(places.device)
        return self.student_belief(noisy, grid[places], words)

    def _noised(
        self, picture: Float[Tensor, "b c h w"], generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        low, high = (int(share * self.noise.num_times) for share in TIMES)
        times = torch.randint(low, high, (len(picture),), generator=generator).to(picture.device)
        noise = torch.randn(picture.shape, generator=generator).to(picture.device)
        return self.noise.mix(picture, noise, times), noise, times
