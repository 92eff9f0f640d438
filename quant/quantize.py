"""The run that turns a float transformer into a low-bit one. Read `quantize` first."""

import json
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from core.errors import CheckpointError, InputError
from core.progress import progress
from core.seeding import torch_generator
from quant.adapters import Adapter, Rates, pack_in_turn, to_student
from quant.calibrate import Calibration, calibrate
from quant.finetune import FewBits, RelationConfig, TrajectorySource
from quant.kurtosis import Allocation
from quant.loader import write_low_bit
from quant.manifest import Manifest
from quant.pictures import PairSampler, draw_allocation
from quant.plan import LayerPlan, plan_layers
from quant.precision import MAX_BITS, MIN_BITS, Policy, Precision, check_overrides
from quant.recipes import METHODS, QuantizationMethod, Settings, learns, storage_of
from quant.store import storage as measure_storage
from quant.timesteps import Timesteps
from quant.trajectory import Sampling, sample
from training.loop import LoopConfig, run
from training.networks import weights_digest
from training.optimizers import OptimizerConfig
from training.recorders import read_record, write_run_record

CALIBRATION_SEED = 1_000_000
TRAINING_SEED = 2_000_000

Prompts = Callable[[int, int], Sequence[str]]
"""Returns so many prompts for a seed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """What is to be quantized, and how.

    Attributes:
        precision: Asked bits.
        method: A name of METHODS.
        policy: What gets other bits, or none.
        settings: How much is calibrated and learned.
        num_steps: Sampling steps of the model.
        guidance: Its guidance scale.
    """

    precision: Precision
    method: str
    policy: Policy
    settings: Settings
    num_steps: int
    guidance: float

    def __post_init__(self) -> None:
        """Refuse settings that cannot be followed on so few steps.

        Raises:
            InputError: If a window is longer than a trajectory.
        """
        if self.settings.window > self.num_steps:
            raise InputError(
                f"window {self.settings.window}: the model paints in {self.num_steps} steps; give "
                "at most that many.",
                param="set.window",
            )


def quantize(
    pipeline: Any,  # noqa: ANN401 - any diffusers pipeline
    task: Task,
    prompts: Prompts,
    run_dir: Path,
    *,
    minutes: float | None = None,
) -> nn.Module:
    """Quantize a pipeline's transformer, or go on where an earlier run of the folder stopped.

    Args:
        pipeline: A diffusers text-to-image pipeline with a float transformer, which stays as it is.
        task: What is asked for.
        prompts: What is painted while calibrating and learning.
        run_dir: Folder of the run: report, pictures, checkpoints, and the low-bit transformer.
        minutes: Stop learning after this long, with a checkpoint; the model is written as it is.

    Returns:
        The low-bit transformer, which `run_dir/transformer` holds too.
    """
    method = METHODS.get(task.method, param="method")
    tuning = prepare(pipeline, task, prompts, run_dir)
    if learns(method, task.settings):
        loop = _loop(task.settings, tuning.source.windows_per_trajectory, minutes)
        pictures = PairSampler(pipeline, prompts(8, task.settings.seed), tuning.sampling)
        run(tuning.method, tuning.source, loop, run_dir, sampler=pictures)
    student = tuning.method.student
    manifest = pack_in_turn(student, method=task.method, precision=task.precision)
    write_low_bit(student, manifest, run_dir / "transformer")
    _report(run_dir, task, tuning.plans, manifest, student)
    return student


@dataclass(frozen=True, kw_only=True, slots=True)
class Tuning:
    """A calibrated student, ready to learn.

    Attributes:
        method: What learns, with the student in it.
        source: From what.
        plans: How each layer will be stored.
        sampling: How pictures are sampled.
    """

    method: FewBits
    source: TrajectorySource
    plans: Mapping[str, LayerPlan]
    sampling: Sampling


def prepare(
    pipeline: Any,  # noqa: ANN401
    task: Task,
    prompts: Prompts,
    run_dir: Path,
) -> Tuning:
    """Calibrate, plan, and put rounding layers into a copy of the transformer.

    Args:
        pipeline: A diffusers pipeline with a float transformer.
        task: What is asked for.
        prompts: What is painted.
        run_dir: Folder of the run.
    """
    method, settings = METHODS.get(task.method, param="method"), task.settings
    relation = RelationConfig(
        kind=settings.relation or method.relation,
        window=settings.window,
        share=settings.relation_share,
        max_tokens=settings.relation_tokens,
    )
    layers = pipeline.transformer.named_modules()
    check_overrides(task.policy, (n for n, m in layers if isinstance(m, nn.Linear | nn.Conv2d)))
    _claim_folder(run_dir, task, weights_digest(pipeline.transformer), prompts)
    sampling = Sampling(
        num_steps=task.num_steps, guidance=task.guidance, batch_size=settings.batch_size
    )
    calibration = listen(pipeline, task, prompts, sampling)
    plans = _plan(pipeline.transformer, calibration, task, method, run_dir / "allocations.jsonl")
    student = deepcopy(pipeline.transformer).requires_grad_(requires_grad=False)
    adapters = _adapters(plans, settings) if learns(method, settings) else {}
    to_student(student, plans, Timesteps(calibration.timesteps), adapters)
    student.to(pipeline.transformer.device)
    output_layer = calibration.output_layer
    return Tuning(
        method=FewBits(student, adapters, output_layer, guidance=task.guidance, relation=relation),
        source=_source(pipeline, output_layer, prompts, sampling, settings),
        plans=plans,
        sampling=sampling,
    )


def listen(
    pipeline: Any,  # noqa: ANN401
    task: Task,
    prompts: Prompts,
    sampling: Sampling,
) -> Calibration:
    """Sample the calibration pictures and listen to every layer.

    Args:
        pipeline: Samples with the float transformer.
        task: How many pictures, from which seed.
        prompts: What is painted.
        sampling: Steps, guidance, batch size.
    """
    count, seed = task.settings.num_calibration, task.settings.seed + CALIBRATION_SEED
    words = prompts(count, seed)

    def paint() -> None:
        with progress("Calibrating", total=count, unit="pictures") as report:
            for images in sample(pipeline, words, range(seed, seed + count), sampling):
                report.advance(len(images))

    return calibrate(
        pipeline.transformer,
        paint,
        torch_generator(task.settings.seed, "calibration"),
        num_rows=task.settings.num_rows,
    )


def _claim_folder(run_dir: Path, task: Task, weights: str, prompts: Prompts) -> None:
    """Refuse to go on with a run that was asked for something else, or of another model.

    Raises:
        CheckpointError: If the folder holds one.
    """
    settings = json.loads(json.dumps(asdict(task)))
    settings |= {"weights": weights, "prompts": list(prompts(4, task.settings.seed))}
    record = run_dir / "run.json"
    if record.exists():
        known = read_record(record).get("settings")
        if known != settings:
            begun = known if isinstance(known, dict) else {}
            odd = sorted(key for key in settings if settings[key] != begun.get(key))
            raise CheckpointError(
                f"{record} is of a run with other {', '.join(odd)}: give another --run-dir, or "
                "remove that one."
            )
    write_run_record(run_dir, settings)


def _plan(
    transformer: nn.Module,
    calibration: Calibration,
    task: Task,
    method: QuantizationMethod,
    cache: Path,
) -> dict[str, LayerPlan]:
    """Plan every layer; what an earlier run of the folder found is taken over."""
    known: dict[str, Allocation] = {}
    if cache.is_file():
        *lines, torn = cache.read_text(errors="replace").split("\n")
        if torn:  # a run that was killed amid a line
            cache.write_text("".join(line + "\n" for line in lines))
        known = dict(_read_allocation(cache, line, transformer) for line in lines)
    num_layers = sum(heard.order >= 0 for heard in calibration.layers.values())
    with cache.open("a") as file, progress("Planning", total=num_layers, unit="layers") as report:

        def note(name: str, plan: LayerPlan) -> None:
            report.advance(note=name)
            if plan.allocation is not None and name not in known:
                file.write(_allocation_line(name, plan.allocation) + "\n")
                file.flush()

        return plan_layers(
            transformer,
            calibration,
            task.precision,
            task.policy,
            storage_of(method, task.settings),
            known=known,
            on_layer=note,
        )


def _adapters(plans: Mapping[str, LayerPlan], settings: Settings) -> dict[str, Adapter]:
    return {
        name: Adapter(
            plan,
            rank=settings.rank,
            rates=Rates(),
            start=settings.start,
            generator=torch_generator(settings.seed, "adapter", name),
        )
        for name, plan in plans.items()
    }


def _source(
    pipeline: Any,  # noqa: ANN401
    output_layer: str,
    prompts: Prompts,
    sampling: Sampling,
    settings: Settings,
) -> TrajectorySource:
    size, seed = settings.batch_size, settings.seed + TRAINING_SEED
    return TrajectorySource(
        pipeline,
        output_layer,
        lambda number: prompts(size, seed + number * size),
        sampling,
        window=settings.window,
        seed=seed,
    )


def _loop(settings: Settings, windows_per_trajectory: int, minutes: float | None) -> LoopConfig:
    return LoopConfig(
        num_steps=settings.num_trajectories * windows_per_trajectory,
        optimizer=OptimizerConfig(
            learning_rate=settings.learning_rate,
            weight_decay=0.0,
            warmup_steps=0,
            final_share=0.0,
        ),
        clip_norm=float("inf"),
        precision="no",
        ema_decay=0.0,  # as published: the last weights, no average
        save_every=settings.save_every,
        sample_every=settings.sample_every,
        seed=settings.seed,
        time_limit_s=None if minutes is None else 60 * minutes,
    )


def _report(
    run_dir: Path,
    task: Task,
    plans: Mapping[str, LayerPlan],
    manifest: Manifest,
    network: nn.Module,
) -> None:
    sizes = measure_storage(network)
    layers = {
        name: {
            "role": plan.role,
            "widths": {str(bits): n for bits, n in plan.form.widths.items()},
            "activation_bits": plan.activation_bits,
            "moved_share": None if plan.allocation is None else plan.allocation.share,
            "relative_error": None
            if plan.allocation is None
            else plan.allocation.error / max(plan.allocation.power, 1e-30),
            "mean_kurtosis": None
            if plan.allocation is None
            else float(plan.allocation.kurtosis.mean()),
        }
        for name, plan in plans.items()
    }
    report = {
        "method": task.method,
        "precision": str(task.precision),
        "mean_bits": sizes["code_bits"] / sizes["num_weights"],
        **sizes,
        "float_layers": list(manifest.float_layers),
        "layers": layers,
    }
    (run_dir / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    draw_allocation(plans, run_dir / "allocation.png")


def _allocation_line(name: str, found: Allocation) -> str:
    entry = {
        "name": name,
        "widths": found.widths.tolist(),
        "kurtosis": [round(float(k), 4) for k in found.kurtosis],
        "share": found.share,
        "error": found.error,
        "power": found.power,
    }
    return json.dumps(entry)


def _read_allocation(cache: Path, line: str, transformer: nn.Module) -> tuple[str, Allocation]:
    try:
        entry = json.loads(line)
        name = str(entry["name"])
        num_channels = len(transformer.get_parameter(f"{name}.weight"))
        return name, _allocation_of(entry, num_channels)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{cache} is damaged ({error}, in {line!r:.60}): remove it, and layers are planned "
            "again."
        ) from error


def _allocation_of(entry: Mapping[str, Any], num_channels: int) -> Allocation:
    widths, kurtosis = entry["widths"], entry["kurtosis"]
    if not len(widths) == len(kurtosis) == num_channels:
        raise ValueError(f"{num_channels} widths and kurtoses are needed")
    if not set(widths) <= set(range(MIN_BITS, MAX_BITS + 1)) or max(widths) - min(widths) > 3:
        raise ValueError("widths are 1 to 8, at most four in a row")
    return Allocation(
        widths=torch.tensor(widths, dtype=torch.long),
        kurtosis=torch.tensor(kurtosis, dtype=torch.float32),
        share=float(entry["share"]),
        error=float(entry["error"]),
        power=float(entry["power"]),
    )
