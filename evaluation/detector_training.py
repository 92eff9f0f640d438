"""Training the second judge's detector: drawn scenes as latents, more or less buried in noise."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderDC
from torch import Tensor

from core.devices import best_device
from core.recipes import configured
from evaluation.detector import (
    Detector,
    DetectorShape,
    detection_loss,
    save_detector,
    targets_of,
)
from evaluation.second_judge import DetectorJudge
from scenes.compose import Scene, Split, render, sample_scene
from scenes.readings import SAME_PLACE_IOU, Reading, box_iou, look_word
from scenes.sprites import SpriteSheet
from training.autoencoder_recipes import load_autoencoder
from training.data import LatentSource, encode_scenes, encoder_name
from training.loop import LoopConfig, run
from training.method import Batch, Method, Phase, Source, StepOutput
from training.optimizers import OptimizerConfig
from training.recorders import write_run_record

# Scenes of each measured split, beyond the seeds that were learned from.
NUM_MEASURED, FIRST_MEASURED = 100, 2**32
MEASURED: tuple[Split, Split] = ("seen", "unseen")
SPLITS: tuple[Split, Split] = ("train", "unseen")


@dataclass(frozen=True, kw_only=True, slots=True)
class DetectorRecipe:
    """Settings of a detector's training.

    Attributes:
        num_steps: Optimizer steps.
        batch_size: Samples a step.
        num_scenes: Scenes that are drawn from.
        num_held_out: Scenes beside those with combinations that painters never train on: a judge
            must know what they are asked for.
        width: Channels at the latent's own resolution.
        learning_rate: AdamW's peak.
        weight_decay: Of matrices.
        noise: Largest spread of the noise on latents of unit spread, so that rough things are
            read as well as printed ones.
        save_every: Steps between checkpoints.
        compiles: Fuse the network's operations: a minute at the start, then faster steps.
        seed: Seed of data and first weights.
    """

    num_steps: int = 2800
    batch_size: int = 64
    num_scenes: int = 24_000
    num_held_out: int = 8000
    width: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    noise: float = 0.8
    save_every: int = 200
    compiles: bool = False
    seed: int = 0


DETECTOR_RECIPES = {
    "cpu": DetectorRecipe(),
    "gpu": DetectorRecipe(
        num_steps=20_000, batch_size=256, num_scenes=100_000, num_held_out=50_000, width=192
    ),
}


class TakingTurns:
    """Batches of training scenes and of scenes with held-out combinations, in turn.

    Args:
        sources: By split.
    """

    def __init__(self, sources: Mapping[Split, Source]) -> None:
        self._sources = sources

    def __call__(self, step: int) -> Batch:
        """Return the batch of a step, with the split that its scenes are of.

        Args:
            step: From 0.
        """
        split = list(self._sources)[step % len(self._sources)]
        return {**self._sources[split](step), "split": split}


class DetectorMethod(Method):
    """Focal error of centres, cross-entropy of looks and absolute error of boxes.

    Args:
        detector: Learns.
        sheet: Where sprites come from; the scenes' truth is drawn again from their seeds.
        latent_scale: What latents are multiplied with.
        noise: Largest spread of the noise; each latent has its own, from 0 on.
    """

    phases = (Phase(name="detect", trains=frozenset({"detector"})),)

    def __init__(
        self, detector: Detector, sheet: SpriteSheet, *, latent_scale: float, noise: float
    ) -> None:
        super().__init__({"detector": detector})
        self._scale, self._noise = latent_scale, noise
        # a scene is met several times, and drawing it takes longer than keeping it
        self._truth = lru_cache(maxsize=None)(
            lambda seed, split: sample_scene(seed, split=split, sheet=sheet)
        )

    def step(self, phase: str, batch: Batch, generator: torch.Generator) -> StepOutput:  # noqa: ARG002
        """Return the weighted loss of a batch of latents."""
        latents: Tensor = batch["latents"] * self._scale
        spread = self._noise * torch.rand(len(latents), 1, 1, 1, generator=generator)
        noise = spread * torch.randn(latents.shape, generator=generator)
        scenes = [self._truth(seed, batch["split"]) for seed in batch["seeds"].tolist()]
        wanted = targets_of(scenes, latents.shape[-1])
        on_device = type(wanted)(*(each.to(latents.device) for each in wanted))
        terms = detection_loss(
            self.roles["detector"](latents + noise.to(latents.device)), on_device
        )
        loss = terms["centers"] + terms["looks"] + 10 * terms["boxes"]
        return StepOutput(loss=loss, metrics={name: term.detach() for name, term in terms.items()})


def train_detector(
    recipe: str,
    run_dir: Path,
    autoencoder_dir: Path,
    changes: list[str],
    *,
    latents: Path,
    minutes: float | None = None,
) -> Path:
    """Train, or go on training, a detector, and measure it on scenes that it never saw.

    Args:
        recipe: A key of DETECTOR_RECIPES.
        run_dir: Folder of the run.
        autoencoder_dir: The autoencoder whose latents it learns.
        changes: "field=value" settings over the recipe.
        latents: Where encoded scenes are kept; missing ones are drawn.
        minutes: Stop after this long, with a checkpoint.

    Returns:
        Folder of the detector with averaged weights. A missing autoencoder is a CheckpointError.
    """
    settings = configured(DETECTOR_RECIPES, recipe, changes)
    autoencoder, sheet = load_autoencoder(autoencoder_dir).eval(), SpriteSheet()
    source = _scenes(autoencoder, sheet, latents, settings)
    torch.manual_seed(settings.seed)
    detector = Detector(
        DetectorShape(
            channels=autoencoder.config["latent_channels"],
            width=settings.width,
            trained_on=encoder_name(autoencoder),
        )
    )
    if settings.compiles:
        detector.compile()
    loop = LoopConfig(
        num_steps=settings.num_steps,
        optimizer=OptimizerConfig(
            learning_rate=settings.learning_rate, weight_decay=settings.weight_decay
        ),
        save_every=settings.save_every,
        seed=settings.seed,
        time_limit_s=None if minutes is None else 60 * minutes,
    )
    write_run_record(run_dir, {"recipe": recipe, **asdict(settings), "loop": asdict(loop)})
    scale = float(autoencoder.config["scaling_factor"])
    method = DetectorMethod(detector, sheet, latent_scale=scale, noise=settings.noise)
    done = run(method, source, loop, run_dir)
    metrics = {
        "objects_exact": objects_exact(detector.cpu(), autoencoder.cpu(), sheet),
        "samples_seen": float(done.num_samples),
    }
    return save_detector(detector, run_dir / "detector", metrics=metrics)


def _scenes(
    autoencoder: AutoencoderDC, sheet: SpriteSheet, latents: Path, settings: DetectorRecipe
) -> TakingTurns:
    sources: dict[Split, Source] = {}
    for split, count in zip(SPLITS, (settings.num_scenes, settings.num_held_out), strict=True):
        folder = encode_scenes(
            autoencoder, sheet, latents, num_scenes=count, device=best_device(), split=split
        )
        sources[split] = LatentSource(
            folder, num_scenes=count, batch_size=settings.batch_size, seed=settings.seed
        )
    return TakingTurns(sources)


def objects_exact(detector: Detector, autoencoder: AutoencoderDC, sheet: SpriteSheet) -> float:
    """Return the share of unseen scenes of which a detector reads every object, and no other.

    Args:
        detector: Trained.
        autoencoder: Whose latents it knows.
        sheet: Where sprites come from.
    """
    judge = DetectorJudge(detector.eval(), autoencoder)
    scenes = [
        sample_scene(FIRST_MEASURED + index, split=split, sheet=sheet)
        for split in MEASURED
        for index in range(NUM_MEASURED)
    ]
    right = [names_all(judge.read(render(scene, sheet)), scene) for scene in scenes]
    return float(np.mean(right))


def names_all(reading: Reading, scene: Scene) -> bool:
    """Return whether a reading names each object with its colour and place, and nothing more.

    Args:
        reading: What was seen.
        scene: What is there.
    """
    left = list(reading.objects)
    for thing in scene.objects:
        look = (thing.noun, look_word(thing.noun, thing.color))
        fits = [
            seen
            for seen in left
            if (seen.noun, seen.color) == look and box_iou(seen.box, thing.box) >= SAME_PLACE_IOU
        ]
        if not fits:
            return False
        left.remove(max(fits, key=lambda seen: box_iou(seen.box, thing.box)))
    return not left
