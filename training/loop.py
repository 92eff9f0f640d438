"""The one training loop. Read `run` first.

Everything a resumed run needs is in the checkpoint or is a function of the step: batches come from
`source(step)`, randomness from (seed, step). So half a run, saved and resumed, equals a whole run.

Started by `accelerate launch` or `torchrun`, every process runs this same loop on its own share of
the batches and gradients are averaged: processes count as accumulation, so two processes equal one
process that accumulates twice as many batches.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from time import monotonic

import torch
from accelerate import Accelerator
from accelerate.utils import GradientAccumulationPlugin
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

from core.devices import best_device, training_attention, training_precision
from core.errors import NumericsError
from core.progress import Report, progress
from core.seeding import torch_generator
from training.method import Batch, Method, Phase, Sampler, Source, StepOutput
from training.optimizers import OptimizerConfig, build_optimizers, build_schedules
from training.recorders import MetricsLog, draw_curves
from training.state import Checkpoints, Progress

_WAY_OUT = "Lower the learning rate and resume from the last checkpoint."


@dataclass(frozen=True, kw_only=True, slots=True)
class LoopConfig:
    """How long, how precise, and what is kept.

    Attributes:
        num_steps: Optimizer steps in all, earlier runs included.
        optimizer: Kind, learning rate and schedule.
        accumulation: Batches per optimizer step and process.
        clip_norm: Largest gradient norm; larger ones are scaled down.
        precision: "bf16" (autocast), "no", or "auto": bf16 where the device multiplies it.
        ema_decay: Decay of the averaged weights that are sampled and published.
        save_every: Steps between checkpoints; the last step is always saved.
        log_every: Steps between lines in metrics.jsonl; metrics in between are averaged.
        sample_every: Steps between sample pictures.
        seed: Seed of all randomness inside steps.
        time_limit_s: Stop after this many seconds, with a checkpoint; None for no limit.
    """

    num_steps: int
    optimizer: OptimizerConfig
    accumulation: int = 1
    clip_norm: float = 1.0
    precision: str = "auto"
    ema_decay: float = 0.999
    save_every: int = 500
    log_every: int = 25
    sample_every: int = 1000
    seed: int = 0
    time_limit_s: float | None = None


def run(
    method: Method,
    source: Source,
    config: LoopConfig,
    run_dir: Path,
    *,
    sampler: Sampler | None = None,
) -> Progress:
    """Train until the configured step, resuming from the run's folder where it left off.

    Args:
        method: What is learned.
        source: From what.
        config: How.
        run_dir: Folder for checkpoints, metrics.jsonl, curves and samples; made if missing.
        sampler: Draws pictures with the averaged weights now and then.

    Returns:
        How far training came; the averaged weights are left in the method's trained roles. A loss
        or gradient that is not finite is a NumericsError that names it, and leaves the last
        checkpoint as it was; a checkpoint of another configuration is a CheckpointError.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    accelerator = _accelerator(config)
    trainer = _Trainer(method, config, accelerator)
    checkpoints = Checkpoints(run_dir / "checkpoint", accelerator, trainer.progress)
    checkpoints.resume()
    log = MetricsLog(run_dir / "metrics.jsonl", every=config.log_every)
    started = monotonic()
    with progress(
        "Training",
        total=config.num_steps,
        done=trainer.progress.step,
        unit="steps",
        stream=None if accelerator.is_main_process else StringIO(),  # one process speaks for all
    ) as report:
        while trainer.progress.step < config.num_steps:
            begun = monotonic()
            trainer.optimizer_step(source, log, report)
            step = trainer.progress.step
            trainer.progress.hours += (monotonic() - begun) / 3600
            if config.time_limit_s is not None and monotonic() - started > config.time_limit_s:
                accelerator.set_trigger()  # any process may call the end for all
            expired = config.time_limit_s is not None and accelerator.check_trigger()
            is_last = step == config.num_steps or expired
            if is_last and accelerator.is_main_process:
                log.flush(step)
            if is_last or step % config.save_every == 0:
                trainer.check_weights()
                checkpoints.save()
            if is_last or step % config.sample_every == 0:
                trainer.draw(sampler, log, run_dir)
            if expired:
                break
    trainer.leave_averaged()
    return trainer.progress


def _accelerator(config: LoopConfig) -> Accelerator:
    device = best_device()
    return Accelerator(
        cpu=device.type == "cpu",
        mixed_precision=training_precision(config.precision, device),
        gradient_accumulation_plugin=GradientAccumulationPlugin(
            num_steps=config.accumulation, sync_with_dataloader=False
        ),
    )


class _Trainer:
    """The moving parts of a run: method, optimizers, schedules, averages."""

    def __init__(self, method: Method, config: LoopConfig, accelerator: Accelerator) -> None:
        self.method, self.config, self.accelerator = method, config, accelerator
        self.progress = Progress()
        method.to(accelerator.device)
        trained = sorted(set().union(*(phase.trains for phase in method.phases)))
        self.weights = [w for role in trained for w in method.roles[role].parameters()]
        optimizers = {
            phase.name: build_optimizers(
                [method.roles[role] for role in sorted(phase.trains)], config.optimizer
            )
            for phase in method.phases
        }
        self.optimizers = {
            name: [accelerator.prepare_optimizer(each) for each in group]
            for name, group in optimizers.items()
        }
        schedules = {
            name: build_schedules(group, config.optimizer, config.num_steps)
            for name, group in optimizers.items()
        }
        self.schedules = [each for group in schedules.values() for each in group]
        self.ema = EMAModel(self.weights, decay=config.ema_decay, use_ema_warmup=True, power=0.75)
        accelerator.register_for_checkpointing(method, self.ema, self.progress, *self.schedules)

    def optimizer_step(self, source: Source, log: MetricsLog, report: Report) -> None:
        step = self.progress.step
        for phase in self.method.phases:
            if step % phase.every == 0:
                metrics = self._phase_step(phase, source, step)
                if self.accelerator.is_main_process:
                    log.add(step, metrics)
        for schedule in self.schedules:
            schedule.step()
        self.ema.step(self.weights)
        self.method.after_step(step)
        self.progress.step += 1
        report.advance(note=log.note())

    def _phase_step(self, phase: Phase, source: Source, step: int) -> dict[str, float]:
        moving = self._freeze_others(phase)
        rows, output = 0, None
        processes, rank = self.accelerator.num_processes, self.accelerator.process_index
        for round_ in range(self.config.accumulation):
            part = round_ * processes + rank
            batch = self._to_device(source(step * self.config.accumulation * processes + part))
            rows += _num_rows(batch)
            generator = torch_generator(self.config.seed, "step", step, phase.name, part)
            with self.accelerator.autocast(), training_attention(self.accelerator.device):
                output = self.method.step(phase.name, batch, generator)
            self._check_output(output, step, phase.name)
            self.accelerator.backward(output.loss / self.config.accumulation)
        assert output is not None
        self._average_gradients(moving)
        norm = torch.nn.utils.clip_grad_norm_(moving, self.config.clip_norm)
        if not torch.isfinite(norm):
            self._blame_gradient(phase, step)
        for optimizer in self.optimizers[phase.name]:
            optimizer.step()
            optimizer.zero_grad()
        self.progress.num_samples += rows * processes
        terms = {"loss": output.loss.detach(), **output.metrics}
        averaged = self.accelerator.reduce(
            torch.stack([value.float().reshape(()) for value in terms.values()]), "mean"
        )
        rate = self.optimizers[phase.name][0].param_groups[0]["lr"]
        return dict(zip(terms, averaged.tolist(), strict=True)) | {
            "gradient_norm": float(norm),
            "learning_rate": rate,
            "samples": self.progress.num_samples,
        }

    def _average_gradients(self, moving: list[nn.Parameter]) -> None:
        # One exchange by hand: phases move other weights in turn, which the usual wrapper around
        # a network cannot follow.
        if self.accelerator.num_processes == 1:
            return
        gradients = [w.grad if w.grad is not None else torch.zeros_like(w) for w in moving]
        flat = self.accelerator.reduce(nn.utils.parameters_to_vector(gradients), "mean")
        sizes = [gradient.numel() for gradient in gradients]
        for weight, mean in zip(moving, flat.split(sizes), strict=True):
            weight.grad = mean.view_as(weight)

    def _freeze_others(self, phase: Phase) -> list[nn.Parameter]:
        for role, module in self.method.roles.items():
            module.requires_grad_(role in phase.trains)
        return [w for role in sorted(phase.trains) for w in self.method.roles[role].parameters()]

    def _to_device(self, batch: Batch) -> Batch:
        device = self.accelerator.device
        return {k: v.to(device) if isinstance(v, Tensor) else v for k, v in batch.items()}

    def _blame_gradient(self, phase: Phase, step: int) -> None:
        for role in sorted(phase.trains):
            for name, weight in self.method.roles[role].named_parameters():
                if weight.grad is not None and not torch.isfinite(weight.grad).all():
                    raise NumericsError(
                        f"The gradient of {role}.{name} is not finite at step {step}, phase "
                        f"{phase.name!r}. {_WAY_OUT}"
                    )
        raise NumericsError(
            f"The norm of all gradients is too large for a float at step {step}, phase "
            f"{phase.name!r}, though each of them is finite. {_WAY_OUT}"
        )

    def _check_output(self, output: StepOutput, step: int, phase: str) -> None:
        # the sum comes last: the term that broke it is the one to name
        terms = {**output.metrics, "loss": output.loss}
        for name, value in terms.items():
            if not torch.isfinite(value).all():
                bad = self._broken_weight()
                cause = "all weights are finite" if bad is None else f"{bad} is not finite"
                raise NumericsError(
                    f"{name} is {float(value)} at step {step}, phase {phase!r}; {cause}. {_WAY_OUT}"
                )

    def check_weights(self) -> None:
        """Refuse to keep weights that an optimizer has broken: the last checkpoint stays.

        Raises:
            NumericsError: If a weight is not finite.
        """
        if (bad := self._broken_weight()) is not None:
            raise NumericsError(f"{bad} is not finite after step {self.progress.step}. {_WAY_OUT}")

    def _broken_weight(self) -> str | None:
        weights = (
            (f"{role}.{name}", weight)
            for role, module in self.method.roles.items()
            for name, weight in module.named_parameters()
        )
        return next((name for name, w in weights if not torch.isfinite(w).all()), None)

    def draw(self, sampler: Sampler | None, log: MetricsLog, run_dir: Path) -> None:
        """Draw pictures with the averaged weights, and the curves, in the main process."""
        if sampler is None or not self.accelerator.is_main_process:
            return
        step = self.progress.step
        path = run_dir / "samples" / f"{step:07d}.png"
        path.parent.mkdir(exist_ok=True)
        with self.averaged():
            log.write(step, dict(sampler(self.method, path)))
        draw_curves(run_dir / "metrics.jsonl", run_dir / "curves.png")

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Put the averaged weights into the roles inside the block."""
        self.ema.store(self.weights)
        self.ema.copy_to(self.weights)
        try:
            with torch.no_grad():
                yield
        finally:
            self.ema.restore(self.weights)

    def leave_averaged(self) -> None:
        self.ema.copy_to(self.weights)


def _num_rows(batch: Batch) -> int:
    return max((len(value) for value in batch.values() if isinstance(value, Tensor)), default=0)
