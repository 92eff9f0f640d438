"""What every way to teach a student shares: its teacher's steps, its own step, and the log.

A method (`distill/methods/`) takes the `Pair` that is made here, says what it finds wrong with the
student's picture, and has the terms weighed, logged and summed by `judged`.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from core.classifier_free import guided
from core.devices import peak_bytes
from core.fusing import fused
from distill.noise import NoiseSchedule
from distill.stages import Stage
from distill.tasks import Heard, Task
from training.method import Batch, Method, Phase, StepOutput

GRADIENTS_EVERY = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawn:
    """What chance decided for a batch.

    Attributes:
        noise: Standard normal.
        places: Which of its steps the student makes, per picture, from 0 at pure noise.
        parts: Where inside that step a picture stands, in teacher steps from its start.
        is_own: Whether the step starts where the student itself arrives.
    """

    noise: Float[Tensor, "b c h w"]
    places: Int[Tensor, " b"]
    parts: Int[Tensor, " b"]
    is_own: Bool[Tensor, " b"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """One student step beside the teacher's steps that it stands for.

    Attributes:
        student: The picture that the student believes in, with gradient.
        teacher: The picture that it would have to believe in to arrive where the teacher arrived.
        times: Where the step starts.
    """

    student: Float[Tensor, "b c h w"]
    teacher: Float[Tensor, "b c h w"]
    times: Int[Tensor, " b"]


class StudentMethod(Method):
    """A student that takes one step where its teacher takes several.

    Args:
        student: Learns; starts with its teacher's weights.
        teacher: Never moves.
        task: What is denoised and what is heard.
        noise: The schedule of both.
        stage: How many steps each takes, and the teacher's guidance.
        extra_roles: Further networks by role name.
    """

    phases: tuple[Phase, ...] = (Phase(name="distill", trains=frozenset({"student"})),)
    painting: tuple[str, ...] = ("student", "teacher")
    num_taught: Tensor
    grid: Tensor

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        task: Task,
        noise: NoiseSchedule,
        stage: Stage,
        *,
        extra_roles: Mapping[str, nn.Module] | None = None,
    ) -> None:
        super().__init__(
            {"student": student, "teacher": teacher, **task.roles, **(extra_roles or {})}
        )
        self.noise = noise
        self.task, self.stage = task, stage
        self.register_buffer("num_taught", torch.zeros((), dtype=torch.long))
        self.register_buffer("grid", noise.grid(stage.teacher_steps), persistent=False)
        self._clock: float | None = None
        self._forward: dict[str, Callable[..., Any]] = dict(self.roles.items())
        # Frozen networks stand in their folders; a checkpoint need not hold them again.
        self.register_state_dict_post_hook(_drop_frozen)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_post_hook(_miss_no_frozen)  # type: ignore[no-untyped-call]

    def fuse(self) -> None:
        """Fuse the operations of the networks that paint: minutes first, then faster."""
        self._forward |= {role: fused(self.roles[role]) for role in self.painting}

    def step(self, phase: str, batch: Batch, generator: torch.Generator) -> StepOutput:  # noqa: ARG002
        """Return what the method finds wrong with the student on a batch."""
        return self.learn(batch, self.draw(batch, generator), generator)

    @abstractmethod
    def learn(self, batch: Batch, drawn: Drawn, generator: torch.Generator) -> StepOutput:
        """Return the loss of a batch whose noise and times are known.

        Args:
            batch: What the source gave.
            drawn: Noise and times.
            generator: For what else is left to chance.
        """

    def draw(self, batch: Batch, generator: torch.Generator) -> Drawn:
        """Draw noise and times for a batch.

        Args:
            batch: What the source gave.
            generator: On the CPU.
        """
        clean = self.task.clean(batch)
        count, device = len(clean), clean.device
        noise = torch.randn(clean.shape, generator=generator)
        places = torch.randint(self.stage.num_steps, (count,), generator=generator)
        parts = torch.randint(self.stage.ratio, (count,), generator=generator)
        is_own = torch.zeros(count, dtype=torch.bool)
        if self.stage.own_path:  # without it nothing more is drawn, so that older runs go on alike
            is_own = torch.rand(count, generator=generator) < self.stage.own_path
        return Drawn(
            noise=noise.to(device),
            places=places.to(device),
            parts=parts.to(device),
            is_own=is_own.to(device),
        )

    def whole_steps(self, batch: Batch, drawn: Drawn) -> Pair:
        """Return the student's whole steps beside all of the teacher's.

        Args:
            batch: What the source gave.
            drawn: Noise and places; parts are not looked at.

        Source:
            Salimans and Ho, arXiv 2202.00512, algorithm 2. At the end of the last step, where no
            noise is left, the target is the teacher's last belief, as in the authors' code. Differs
            with `own_path`: steps start where the student arrives, so that nothing of a training
            picture leaks into what it will have to do without (Kohler et al., Imagine Flash, arXiv
            2405.05224, section 3.1).
        """
        first = drawn.places * self.stage.ratio
        times, ends = self.grid[first], self.grid[first + self.stage.ratio]
        noisy = self.noise.mix(self.task.clean(batch), drawn.noise, times)
        words, nothing = self.task.heard(batch)
        if self.stage.own_path:
            own = self.own_path(drawn.noise, drawn.places, words)
            noisy = torch.where(drawn.is_own[:, None, None, None], own, noisy)
        arrived = self.walk(noisy, first, self.stage.ratio, words, nothing)
        return Pair(
            student=self.student_belief(noisy, times, words),
            teacher=self.noise.believed(noisy, arrived, times, ends),
            times=times,
        )

    @torch.no_grad()
    def own_path(
        self, noise: Float[Tensor, "b c h w"], places: Int[Tensor, " b"], words: Heard
    ) -> Float[Tensor, "b c h w"]:
        """Return where the student itself arrives, from pure noise, before one of its steps.

        Args:
            noise: Where it starts.
            places: How many steps it takes, per picture; at most one less than it has.
            words: What it listens to.
        """
        grid = self.noise.grid(self.stage.num_steps).to(noise.device)
        noisy, count = noise, len(noise)
        for index in range(int(places.max())):
            times, ends = grid[index].expand(count), grid[index + 1].expand(count)
            moved = self.noise.jump(noisy, self.student_belief(noisy, times, words), times, ends)
            noisy = torch.where((places > index)[:, None, None, None], moved, noisy)
        return noisy

    @torch.no_grad()
    def walk(
        self,
        noisy: Float[Tensor, "b c h w"],
        first: Int[Tensor, " b"],
        num_steps: int,
        words: Heard,
        nothing: Heard,
    ) -> Float[Tensor, "b c h w"]:
        """Return where the guided teacher arrives after some steps of its grid.

        Args:
            noisy: Where it starts.
            first: Its place on the grid, per picture.
            num_steps: How many steps it takes.
            words: What it listens to.
            nothing: What guidance leads away from.
        """
        for index in range(num_steps):
            times, ends = self.grid[first + index], self.grid[first + index + 1]
            velocity = self._teacher_velocity(noisy, times, words, nothing)
            belief = self.noise.clean(noisy, velocity, times)
            noisy = self.noise.jump(noisy, belief, times, ends)
        return noisy

    def student_belief(
        self, noisy: Float[Tensor, "b c h w"], times: Int[Tensor, " b"], words: Heard
    ) -> Float[Tensor, "b c h w"]:
        """Return the picture that the student sees in noise.

        Args:
            noisy: Noisy pictures.
            times: How noisy, per picture.
            words: What it listens to.
        """
        velocity = self.task.predict(self._forward["student"], noisy, times, words)
        return self.noise.clean(noisy, velocity, times)

    def squared_error(self, pair: Pair) -> Float[Tensor, ""]:
        """Return the mean over pictures of the larger of picture error and noise error.

        Args:
            pair: Student beside teacher.

        Source:
            Salimans and Ho, arXiv 2202.00512, equation 9.
        """
        errors = (pair.student - pair.teacher).square().mean(dim=(1, 2, 3))
        return (self.noise.truncated_snr(pair.times) * errors).mean()

    def judged(self, pair: Pair, terms: Mapping[str, tuple[float, Tensor]]) -> StepOutput:
        """Return the weighted sum of the terms, with everything that is worth a line in the log.

        Every tenth step the log also holds the length of each weighted term's gradient at the
        student's picture: terms whose gradients differ by orders of magnitude are not balanced by
        weights that look alike.

        Args:
            pair: What the terms were made of.
            terms: Weight and value by name.
        """
        metrics = {
            "teacher_picture": pair.teacher.square().mean(),
            "student_picture": pair.student.detach().square().mean(),
            **{name: value.detach() for name, (_, value) in terms.items()},
            "peak_gib": _peak_gib(pair.student.device),
        }
        if int(self.num_taught) % GRADIENTS_EVERY == 0 and pair.student.requires_grad:
            for name, (weight, value) in terms.items():
                (slope,) = torch.autograd.grad(weight * value, pair.student, retain_graph=True)
                metrics[f"gradient_{name}"] = slope.norm()
        now = monotonic()
        if self._clock is not None and now > self._clock:
            rate = len(pair.student) / (now - self._clock)
            metrics["images_per_s"] = torch.tensor(rate, device=pair.student.device)
        self._clock = now
        loss = torch.stack([weight * value for weight, value in terms.values()]).sum()
        return StepOutput(loss=loss, metrics=metrics)

    def after_step(self, step: int) -> None:
        """Count the step."""
        super().after_step(step)
        self.num_taught += 1

    def is_frozen(self, name: str) -> bool:
        """Return whether an entry of the state belongs to a network that never moves.

        Args:
            name: As in the state dictionary.
        """
        kind, _, rest = name.partition(".")
        trained = set().union(*(phase.trains for phase in self.phases))
        return kind == "roles" and rest.partition(".")[0] not in trained

    def _teacher_velocity(
        self, noisy: Tensor, times: Tensor, words: Heard, nothing: Heard
    ) -> Tensor:
        teacher = self._forward["teacher"]
        if self.stage.guidance == 1:
            return self.task.predict(teacher, noisy, times, words)
        both = {name: torch.cat([nothing[name], words[name]]) for name in words}
        velocity = self.task.predict(
            teacher, torch.cat([noisy, noisy]), torch.cat([times, times]), both
        )
        without, with_words = velocity.chunk(2)
        return guided(
            with_words,
            without,
            scale=self.stage.guidance,
            rescale=self.stage.guidance_rescale,
        )


def _drop_frozen(
    module: nn.Module, state: dict[str, Any], _prefix: str, _metadata: Mapping[str, Any]
) -> None:
    for name in [each for each in state if cast("StudentMethod", module).is_frozen(each)]:
        del state[name]


def _miss_no_frozen(module: nn.Module, found: Any) -> None:  # noqa: ANN401 - torch keeps the type private
    missing: list[str] = found.missing_keys
    missing[:] = [each for each in missing if not cast("StudentMethod", module).is_frozen(each)]


def _peak_gib(device: torch.device) -> Tensor:
    on_gpu = device.type == "cuda"
    peak = torch.cuda.max_memory_allocated(device) if on_gpu else peak_bytes()
    return torch.tensor(peak / 2**30, device=device)
