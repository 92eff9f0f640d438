"""Every method at every width: quantize, paint the same prompts and seeds, measure.

Distances are of latents, in the feature space of the classifier of scenes: the same in which
students are measured. Pictures are decoded for PSNR and for the detector that judges them.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from core.devices import best_device
from core.errors import CheckpointError
from core.recipes import configured
from distill.captioned import load_teacher, unseen_scenes
from distill.features import FeatureNetwork, load_classifier
from evaluation.detector import load_detector
from evaluation.distance_table import over_runs
from evaluation.distances import Distance, features, frechet_distance, kernel_distance, space_name
from evaluation.intervals import Mean, Rate, mean_interval, wilson
from evaluation.model import judge_pictures
from evaluation.predicates import TAGS, Item
from evaluation.second_judge import DetectorJudge
from pipelines.model_info import ModelInfo
from pipelines.store import open_checkpoint
from quant.pictures import painting_with, psnr_db
from quant.precision import MAX_BITS, Policy, parse_precision
from quant.prompts import scene_prompts
from quant.quantize import Task, prepare, quantize
from quant.recipes import METHODS, SETTINGS, Settings, storage_of
from quant.store import storage
from quant.trajectory import Sampling, sample
from training.networks import weights_digest
from training.recorders import save_grid

Row = Mapping[str, Any]

NUM_DECODED = 64  # pictures that the peak signal-to-noise ratio is of
NUM_DRAWN = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Cells:
    """What is measured.

    Attributes:
        methods: Names of methods.
        precisions: Such as "w4a8".
        seeds: Seeds of learning.
        recipe: Named settings.
        num_images: Pictures a distance is of.
        num_judged: Prompts of each category that are painted for the judge; 0 judges nothing.
        judge_dir: Detector that judges; it is quick, and reads rough things.
        published: A low-bit variant of the checkpoint that is measured beside them, as it is.
    """

    methods: tuple[str, ...]
    precisions: tuple[str, ...]
    seeds: tuple[int, ...]
    recipe: str
    num_images: int
    num_judged: int
    judge_dir: Path
    published: str | None = None


def measure_table(
    model: str,
    variant: str | None,
    feature_dir: Path,
    run_dir: Path,
    cells: Cells,
    *,
    picture: Path | None = None,
) -> dict[str, object]:
    """Quantize and measure every cell; what an earlier run of the folder did is kept.

    Args:
        model: Checkpoint folder.
        variant: Its float variant; None takes the default.
        feature_dir: Classifier of scenes to measure in.
        run_dir: Folder of all quantizations; `table.json` in it holds paired distances and kernel
            distances too, and names the feature space.
        cells: What is measured.
        picture: PNG file of the same prompts and noise at every width, by `mpq` if it is
            among the methods, else by the first; None draws nothing.

    Returns:
        Headline figures: Frechet distances from real scenes, with 95 % intervals; how far pictures
        are from the float ones; what share of them the detector finds right.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    bench = _Bench(model, variant, load_classifier(feature_dir), cells)
    _refuse_another_parent(run_dir, weights_digest(bench.pipeline.transformer))
    float_row = bench.float_row(run_dir)
    rows: dict[str, object] = {"space": space_name(bench.network), "float": float_row}
    figures: dict[str, object] = dict(_ends("float_distance", Distance(**float_row["frechet"])))
    figures |= {"kernel_float": float_row["kernel"]} | _shares("float", [float_row])
    figures["table_runs"] = len(cells.seeds)
    if cells.published is not None:
        rows["published"] = row = bench.published_row(model, cells.published, run_dir)
        figures |= _ends("distance_published", Distance(**row["frechet"]))
        figures |= _means("published", [row]) | _shares("published", [row])
    for bits in cells.precisions:
        for method in cells.methods:
            cell = f"{method}_{bits}"
            rows[cell] = found = [bench.cell(method, bits, seed, run_dir) for seed in cells.seeds]
            mean = over_runs([Distance(**row["frechet"]) for row in found])
            figures |= _ends(f"distance_{cell}", mean) | _means(cell, found) | _shares(cell, found)
            print(f"distance_{cell}: {mean}", flush=True)
            (run_dir / "table.json").write_text(json.dumps(rows, indent=1) + "\n")
    if picture is not None:
        bench.draw(picture, run_dir)
    return figures


def _refuse_another_parent(run_dir: Path, weights: str) -> None:
    """Cells that are kept are compared with one float model.

    Raises:
        CheckpointError: If they are of another one.
    """
    file = run_dir / "parent.json"
    begun = json.loads(file.read_text()) if file.is_file() else weights
    if begun != weights:
        raise CheckpointError(
            f"{run_dir} holds cells of another float model ({begun}, now {weights}): give another "
            "--run-dir."
        )
    file.write_text(json.dumps(weights))


def _ends(name: str, found: Distance | Mean | Rate) -> dict[str, float | None]:
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}


def _means(cell: str, rows: Sequence[Row]) -> dict[str, float | None]:
    """Means over runs, with intervals where there are several."""
    figures: dict[str, float | None] = {}
    for key in ("features_to_float", "psnr_to_float_db", "kernel", "stored_mb"):
        values = [row[key] for row in rows]
        name = f"{key}_{cell}"
        if len(values) > 1 and key != "stored_mb":
            figures |= _ends(name, mean_interval(values))
        else:
            figures[name] = sum(values) / len(values)
    return figures


def _shares(cell: str, rows: Sequence[Row]) -> dict[str, float | None]:
    """Shares of pictures that show what was asked, of all runs: in all, and by category."""
    judged = [row["judged"] for row in rows if "judged" in row]
    if not judged:
        return {}
    sums = {tag: [sum(each[tag][place] for each in judged) for place in (0, 1)] for tag in TAGS}
    hits, tried = (sum(part) for part in zip(*sums.values(), strict=True))
    figures = _ends(f"right_{cell}", wilson(hits, tried))
    return figures | {f"right_{cell}_{tag}": wilson(*sums[tag]).value for tag in TAGS}


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
        if cells.num_judged:  # a wrong folder is refused before anything is quantized
            self.judge = DetectorJudge(load_detector(cells.judge_dir), self.pipeline.vae)
        self.sampling = Sampling(
            num_steps=self.info.default_steps, guidance=self.info.default_guidance, batch_size=16
        )
        checkpoint = open_checkpoint(model, variant=variant)
        teacher = load_teacher(checkpoint.root, checkpoint.transformer)
        scenes = unseen_scenes(teacher, num_scenes=cells.num_images)
        clean = teacher.task.clean(scenes)
        network.check(clean)
        self.prompts: Sequence[str] = scenes["captions"]
        self.real = features(network, clean)
        self.float_latents = self.paint(self.pipeline.transformer)
        self.float_pictures = self.decode(self.float_latents)

    def cell(self, method: str, bits: str, seed: int, run_dir: Path) -> Row:
        folder, network = self._quantized(method, bits, seed, run_dir)
        row = self._row(folder, network)
        report = json.loads((folder / "report.json").read_text())
        return {"seed": seed, "stored_mb": report["stored_bytes"] / 1e6, **row}

    def draw(self, path: Path, run_dir: Path) -> None:
        """A row of pictures for every width, the float model's above them."""
        method = "mpq" if "mpq" in self.cells.methods else self.cells.methods[0]
        rows = [list(self.float_pictures[:NUM_DRAWN])]
        for bits in self.cells.precisions:
            _, network = self._quantized(method, bits, self.cells.seeds[0], run_dir)
            rows.append(list(self.decode(self.paint(network(), NUM_DRAWN))))
        pictures = [(x.transpose(1, 2, 0) * 255).round().astype(np.uint8) for r in rows for x in r]
        save_grid(pictures, NUM_DRAWN, path)

    def _quantized(
        self, method: str, bits: str, seed: int, run_dir: Path
    ) -> tuple[Path, Callable[[], nn.Module]]:
        """Where a cell is, and what loads it, or makes it if it is not there."""
        settings = replace(configured(SETTINGS, self.cells.recipe, []), seed=seed)
        method = same_learning(method, bits, self.cells.methods, settings)
        task = Task(
            precision=parse_precision(bits),
            method=method,
            policy=Policy(),
            settings=settings,
            num_steps=self.info.default_steps,
            guidance=self.info.default_guidance,
        )
        folder = run_dir / f"{method}-{bits}-{seed}"
        return folder, cache(lambda: quantize(self.pipeline, task, scene_prompts(), folder))

    def float_row(self, run_dir: Path) -> Row:
        return self._row(run_dir / "float", lambda: self.pipeline.transformer)

    def published_row(self, model: str, variant: str, run_dir: Path) -> Row:
        pipeline, info = _pipeline(model, variant)
        row = self._row(run_dir / f"{variant}-{info.revision}", lambda: pipeline.transformer)
        return {"stored_mb": storage(pipeline.transformer)["stored_bytes"] / 1e6, **row}

    def _row(self, folder: Path, network: Callable[[], nn.Module]) -> Row:
        """What is measured of one network, once."""

        def measured() -> Row:
            latents = self.paint(network())
            return {"frechet": asdict(self.distance(latents)), **self._paired(latents)}

        row = _kept(folder / f"measured-{len(self.prompts)}.json", measured)
        if not self.cells.num_judged:
            return row
        judged = _kept(
            folder / f"detected-{self.cells.num_judged}.json", lambda: self._judge(network())
        )
        return {**row, "judged": judged}

    def _judge(self, network: nn.Module) -> Row:
        """How many pictures of each category are right, and of how many."""
        sampling = replace(self.sampling, batch_size=1)

        def picture(item: Item, seed: int) -> Image.Image:
            prompts, seeds = [item.prompt], [seed]
            (drawn,) = sample(self.pipeline, prompts, seeds, sampling, output_type="pil")
            return drawn[0]

        with painting_with(self.pipeline, network):
            judged = judge_pictures(picture, self.judge, num_prompts=self.cells.num_judged)
        of_tag = {tag: [each.is_right for each in judged if each.item.tag == tag] for tag in TAGS}
        return {tag: [sum(right), len(right)] for tag, right in of_tag.items()}

    def distance(self, latents: Float[Tensor, "n c h w"]) -> Distance:
        return frechet_distance(self.real, features(self.network, latents))

    def paint(self, transformer: nn.Module, num: int | None = None) -> Float[Tensor, "n c h w"]:
        prompts = self.prompts[:num]
        with painting_with(self.pipeline, transformer):
            drawn = list(sample(self.pipeline, prompts, range(len(prompts)), self.sampling))
        return torch.cat(drawn).float().cpu()

    def decode(self, latents: Float[Tensor, "n c h w"]) -> Float[np.ndarray, "m 3 h w"]:
        vae = self.pipeline.vae
        with torch.inference_mode():
            scaled = latents[:NUM_DECODED].to(vae.device) / vae.config.scaling_factor
            pictures = vae.decode(scaled, return_dict=False)[0]
        return (pictures.clamp(-1, 1) / 2 + 0.5).cpu().numpy()

    def _paired(self, latents: Tensor) -> Row:
        mine, theirs = (features(self.network, x) for x in (latents, self.float_latents))
        scale = theirs.square().sum(dim=1).mean()
        return {
            "psnr_to_float_db": psnr_db(self.decode(latents), self.float_pictures),
            "features_to_float": float((mine - theirs).square().sum(dim=1).mean() / scale),
            "kernel": kernel_distance(self.real, mine).value,
        }


def same_learning(method: str, bits: str, among: Sequence[str], settings: Settings) -> str:
    """Return the first of some methods that does exactly what this one does.

    At the most bits that a channel can have, none can be moved: methods that differ only in how
    they move them are one, and need not learn the same again.

    Args:
        method: A name of METHODS.
        bits: Such as "w8a8".
        among: Names of METHODS, this one among them.
        settings: How much is learned.
    """
    if parse_precision(bits).weights != MAX_BITS:
        return method

    def unmoved(name: str) -> tuple[object, ...]:
        known = METHODS.get(name)
        stored = replace(storage_of(known, settings), allocation="uniform", plus=False)
        return stored, known.learns, known.relation

    return next(name for name in among if unmoved(name) == unmoved(method))


def _kept(file: Path, measure: Callable[[], Row]) -> Row:
    """What an earlier run wrote down, or else what is measured now."""
    if not file.exists():
        found = measure()
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(found, indent=1) + "\n")
    row: Row = json.loads(file.read_text())
    return row
