"""Every method at every width: quantize, paint the same prompts and seeds, measure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from core.devices import best_device
from core.recipes import configured
from distill.features import FeatureNetwork, load_classifier
from evaluation.distance_table import over_runs
from evaluation.distances import Distance, features, frechet_distance, kernel_distance, space_name
from pipelines.store import ModelInfo, open_checkpoint
from quant.pictures import painting_with, psnr_db
from quant.precision import Policy, parse_precision
from quant.prompts import scene_prompts
from quant.quantize import Task, prepare, quantize
from quant.recipes import SETTINGS
from quant.trajectory import Sampling, sample

PROMPT_SEED = 3_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Cells:
    """What is measured.

    Attributes:
        methods: Names of methods.
        precisions: Such as "w4a8".
        seeds: Seeds of learning.
        recipe: Named settings.
        num_images: Pictures a distance is of.
    """

    methods: tuple[str, ...]
    precisions: tuple[str, ...]
    seeds: tuple[int, ...]
    recipe: str
    num_images: int


def measure_table(
    model: str, variant: str | None, feature_dir: Path, run_dir: Path, cells: Cells
) -> dict[str, object]:
    """Quantize and measure every cell; what an earlier run of the folder did is kept.

    Args:
        model: Checkpoint folder.
        variant: Its float variant; None takes the default.
        feature_dir: Feature network to measure in.
        run_dir: Folder of all quantizations; `table.json` in it holds paired distances and kernel
            distances too, and names the feature space.
        cells: What is measured.

    Returns:
        Headline figures: Frechet distances from real scenes, with 95 % intervals.
    """
    bench = _Bench(model, variant, load_classifier(feature_dir), cells)
    rows: dict[str, object] = {"space": space_name(bench.network), "float": bench.float_row()}
    figures: dict[str, object] = {"float_distance": bench.distance(bench.float_pictures).value}
    for bits in cells.precisions:
        for method in cells.methods:
            found = [bench.cell(method, bits, seed, run_dir) for seed in cells.seeds]
            mean = over_runs([distance for distance, _ in found])
            rows[f"{method}_{bits}"] = [row for _, row in found]
            name = f"distance_{method}_{bits}"
            figures |= {name: mean.value, f"{name}_low": mean.low, f"{name}_high": mean.high}
            run_dir.mkdir(parents=True, exist_ok=True)
            (run_dir / "table.json").write_text(json.dumps(rows, indent=1) + "\n")
    return figures


def measure_gradient(
    model: str, variant: str | None, bits: str, run_dir: Path, num_calibration: int
) -> float:
    """Return the norm of the weighted relation loss's gradient over the task's.

    Args:
        model: Checkpoint folder.
        variant: Its float variant; None takes the default.
        bits: Such as "w4a8".
        run_dir: Folder of the calibration.
        num_calibration: Pictures that are sampled to calibrate.
    """
    pipeline, info = _pipeline(model, variant)
    task = Task(
        precision=parse_precision(bits),
        method="mpq",
        policy=Policy(),
        settings=replace(configured(SETTINGS, "cpu", []), num_calibration=num_calibration),
        num_steps=info.default_steps,
        guidance=info.default_guidance,
    )
    tuning = prepare(pipeline, task, scene_prompts(), run_dir)
    task_norm, relation_norm = tuning.method.gradient_norms(tuning.source(0))
    return relation_norm / task_norm


def _pipeline(model: str, variant: str | None) -> tuple[Any, ModelInfo]:
    from diffusers import AutoModel, DiffusionPipeline
    from diffusers.utils import logging

    logging.set_verbosity_error()
    checkpoint = open_checkpoint(model, variant=variant)
    transformer = AutoModel.from_pretrained(str(checkpoint.transformer), use_safetensors=True)
    pipeline = DiffusionPipeline.from_pretrained(
        str(checkpoint.root), transformer=transformer, use_safetensors=True
    )
    return pipeline.to(best_device()), checkpoint.info


class _Bench:
    def __init__(
        self, model: str, variant: str | None, network: FeatureNetwork, cells: Cells
    ) -> None:
        self.pipeline, self.info = _pipeline(model, variant)
        self.network, self.cells = network, cells
        self.prompts = scene_prompts()
        self.real = features(network, self._scenes())
        self.float_pictures = self.paint(self.pipeline.transformer)

    def cell(
        self, method: str, bits: str, seed: int, run_dir: Path
    ) -> tuple[Distance, Mapping[str, object]]:
        task = Task(
            precision=parse_precision(bits),
            method=method,
            policy=Policy(),
            settings=replace(configured(SETTINGS, self.cells.recipe, []), seed=seed),
            num_steps=self.info.default_steps,
            guidance=self.info.default_guidance,
        )
        folder = run_dir / f"{method}-{bits}-{seed}"
        pictures = self.paint(quantize(self.pipeline, task, self.prompts, folder))
        distance = self.distance(pictures)
        return distance, {"seed": seed, "frechet": distance.value, **self._paired(pictures)}

    def float_row(self) -> Mapping[str, object]:
        return {"frechet": self.distance(self.float_pictures).value}

    def distance(self, pictures: Float[Tensor, "n 3 h w"]) -> Distance:
        return frechet_distance(self.real, features(self.network, pictures))

    def paint(self, transformer: nn.Module) -> Float[Tensor, "n 3 h w"]:
        sampling = Sampling(
            num_steps=self.info.default_steps, guidance=self.info.default_guidance, batch_size=16
        )
        count = self.cells.num_images
        words = self.prompts(count, PROMPT_SEED)
        with painting_with(self.pipeline, transformer):
            drawn = [
                torch.from_numpy(part)
                for part in sample(self.pipeline, words, range(count), sampling, output_type="np")
            ]
        return torch.cat(drawn).permute(0, 3, 1, 2) * 2 - 1

    def _paired(self, pictures: Tensor) -> dict[str, object]:
        mine, theirs = (features(self.network, p) for p in (pictures, self.float_pictures))
        kernel = kernel_distance(self.real, mine)
        scale = theirs.square().sum(dim=1).mean()
        return {
            "psnr_to_float_db": psnr_db(
                pictures.numpy() / 2 + 0.5, self.float_pictures.numpy() / 2 + 0.5
            ),
            "features_to_float": float((mine - theirs).square().sum(dim=1).mean() / scale),
            "kernel": kernel.value,
        }

    def _scenes(self) -> Float[Tensor, "n 3 h w"]:
        from scenes.compose import render, sample_scene
        from scenes.sprites import SpriteSheet

        sheet = SpriteSheet()
        seeds = range(PROMPT_SEED, PROMPT_SEED + self.cells.num_images)
        drawn = [render(sample_scene(s, split="train", sheet=sheet), sheet) for s in seeds]
        return torch.stack(
            [torch.from_numpy(x).permute(2, 0, 1).float() / 127.5 - 1 for x in drawn]
        )
