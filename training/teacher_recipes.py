"""The teacher's named settings, and its run; the autoencoders' are in `autoencoder_recipes.py`."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import torch
from accelerate import PartialState
from diffusers import AutoencoderDC, DDIMScheduler
from transformers import PreTrainedTokenizerFast

from core.devices import best_device
from core.recipes import configured
from scenes.sprites import SpriteSheet
from scenes.vocabulary import CANVAS_PX
from training.autoencoder import LATENT_FACTOR
from training.autoencoder_recipes import load_autoencoder
from training.data import LatentSource, encode_scenes
from training.loop import LoopConfig, run
from training.optimizers import OptimizerConfig
from training.publish import check_publishable, load_published, publish_teacher, published_tokenizer
from training.recorders import write_run_record
from training.state import Progress
from training.teacher import (
    PictureSampler,
    TeacherMethod,
    new_heads,
    new_scheduler,
    new_transformer,
)
from training.text import look_both_ways, new_text_encoder, new_tokenizer
from training.words import WordMethod

UNSCALED = 1.0  # what diffusers gives an autoencoder that nobody gave a scale


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherRecipe:
    """Settings of the teacher's training.

    Attributes:
        num_steps: Optimizer steps.
        batch_size: Samples a step and process.
        num_scenes: Scenes that are encoded and drawn from.
        width: Model width of transformer and text encoder, a multiple of 32.
        depth: Transformer blocks.
        learning_rate: AdamW's peak, for embeddings and vectors.
        muon_learning_rate: Muon's peak, for matrices inside blocks.
        warmup_steps: Steps of linear warm-up.
        word_steps: Optimizer steps before all others, in which the text encoder learns from
            captions alone, its positions from the start; 0 for none.
        word_batch_size: Captions in each of these, per process.
        save_every: Steps between checkpoints.
        sample_every: Steps between picture grids.
        compiles: Fuse the transformer's operations: minutes at the start, a third faster steps.
        seed: Seed of data, timesteps and noise.
    """

    num_steps: int = 10_000
    batch_size: int = 32
    num_scenes: int = 40_000
    width: int = 192
    depth: int = 8
    learning_rate: float = 1e-3
    muon_learning_rate: float = 2e-3
    warmup_steps: int = 100
    word_steps: int = 2000
    word_batch_size: int = 256
    save_every: int = 250
    sample_every: int = 500
    compiles: bool = False
    seed: int = 0


TEACHER_RECIPES = {
    "cpu": TeacherRecipe(),
    "gpu": TeacherRecipe(
        num_steps=60_000,
        batch_size=512,
        num_scenes=200_000,
        width=384,
        depth=12,
        save_every=1000,
        sample_every=2000,
        compiles=True,
    ),
}


def train_teacher(
    recipe: str,
    run_dir: Path,
    autoencoder_dir: Path,
    changes: list[str],
    *,
    minutes: float | None = None,
    publish: Path | None = None,
    start_from: Path | None = None,
) -> Path:
    """Train, or go on training, the diffusion transformer and its text encoder.

    Args:
        recipe: A key of TEACHER_RECIPES.
        run_dir: Folder of the run.
        autoencoder_dir: Folder of the trained autoencoder.
        changes: "field=value" settings over the recipe.
        minutes: Stop after this long, with a checkpoint.
        publish: Where to write the servable checkpoint; inside run_dir when None.
        start_from: A published checkpoint whose words a run keeps, and whose weights it starts
            with. A run that has a checkpoint of its own goes on from that one's weights.

    Returns:
        The servable checkpoint's folder. A missing autoencoder is a CheckpointError.
    """
    settings = configured(TEACHER_RECIPES, recipe, changes)
    home = publish or run_dir / "published"
    check_publishable(home)
    autoencoder = load_autoencoder(autoencoder_dir)
    processes = PartialState(cpu=best_device().type == "cpu")
    source = _latents(settings, autoencoder, run_dir.parent / "latents", processes)
    tokenizer = new_tokenizer() if start_from is None else published_tokenizer(start_from)
    method, scheduler = _new_teacher(settings, autoencoder, tokenizer)
    networks: dict[str, Any] = {
        role: method.roles[role] for role in ("transformer", "text_encoder")
    }
    before = {} if start_from is None else load_published(start_from, **networks)
    limit_s = None if minutes is None else 60 * minutes
    started = monotonic()
    if settings.word_steps:
        look_both_ways(method.roles["text_encoder"])
        words = WordMethod(method.roles["text_encoder"], method.roles["word_head"], tokenizer)
        _learn_words(words, source, settings, run_dir / "words", limit_s)
    left_s = None if limit_s is None else max(0.0, limit_s - (monotonic() - started))
    loop = _teacher_loop(settings, left_s)
    if processes.is_main_process:
        write_run_record(run_dir, {"recipe": recipe, **asdict(settings), "loop": asdict(loop)})
    sampler = PictureSampler(tokenizer, autoencoder, scheduler)
    done = run(method, source, loop, run_dir, sampler=sampler)
    if processes.is_main_process:
        publish_teacher(
            home,
            tokenizer=tokenizer,
            autoencoder=autoencoder,
            scheduler=scheduler,
            origin=_origin(done, before),
            **networks,
        )
    processes.wait_for_everyone()
    return home


def _origin(done: Progress, before: Mapping[str, float]) -> dict[str, object]:
    return {
        "method": "velocity prediction and layouts, from scratch",
        "data": "emoji scenes, split train",
        "metrics": {
            "samples_seen": int(before.get("samples_seen", 0)) + done.num_samples,
            "train_hours": round(before.get("train_hours", 0) + done.hours, 2),
        },
    }


def _latents(
    settings: TeacherRecipe, autoencoder: AutoencoderDC, folder: Path, processes: PartialState
) -> LatentSource:
    """Return the encoded scenes, and give an autoencoder without a scale that brings them to one.

    One that was published keeps its own, which the weights that a run starts from know, and the
    small decoder of previews.
    """
    home = encode_scenes(
        autoencoder,
        SpriteSheet(),
        folder,
        num_scenes=settings.num_scenes,
        device=best_device(),
        processes=processes,
    )
    source = LatentSource(
        home,
        num_scenes=settings.num_scenes,
        batch_size=settings.batch_size,
        seed=settings.seed,
    )
    if autoencoder.config["scaling_factor"] == UNSCALED:
        autoencoder.register_to_config(scaling_factor=round(1 / source.standard_deviation(), 4))
    return source


def _learn_words(
    words: WordMethod,
    source: LatentSource,
    settings: TeacherRecipe,
    run_dir: Path,
    time_limit_s: float | None,
) -> None:
    loop = LoopConfig(
        num_steps=settings.word_steps,
        optimizer=OptimizerConfig(kind="muon", learning_rate=settings.learning_rate),
        seed=settings.seed,
        save_every=settings.save_every,
        time_limit_s=time_limit_s,
    )
    run(words, source.with_batch_size(settings.word_batch_size), loop, run_dir)


def _teacher_loop(settings: TeacherRecipe, time_limit_s: float | None) -> LoopConfig:
    return LoopConfig(
        num_steps=settings.num_steps,
        optimizer=OptimizerConfig(
            kind="muon",
            learning_rate=settings.learning_rate,
            muon_learning_rate=settings.muon_learning_rate,
            warmup_steps=settings.warmup_steps,
        ),
        seed=settings.seed,
        save_every=settings.save_every,
        sample_every=settings.sample_every,
        time_limit_s=time_limit_s,
    )


def _new_teacher(
    settings: TeacherRecipe, autoencoder: AutoencoderDC, tokenizer: PreTrainedTokenizerFast
) -> tuple[TeacherMethod, DDIMScheduler]:
    torch.manual_seed(settings.seed)  # initial weights, the one thing that libraries draw globally
    scheduler = new_scheduler()
    transformer = new_transformer(
        width=settings.width,
        depth=settings.depth,
        latent_channels=autoencoder.config.latent_channels,
        latent_size=CANVAS_PX // LATENT_FACTOR,
    )
    method = TeacherMethod(
        transformer,
        new_text_encoder(tokenizer, width=settings.width),
        new_heads(settings.width),
        tokenizer,
        scheduler,
        latent_scale=autoencoder.config.scaling_factor,
        compiles=settings.compiles,
    )
    return method, scheduler
