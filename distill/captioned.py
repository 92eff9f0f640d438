"""The first ground: a PixArt-shaped teacher over captioned latents, checked before it teaches."""

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from diffusers import AutoencoderDC, AutoencoderKL, PixArtTransformer2DModel
from jaxtyping import Float
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase, T5EncoderModel
from transformers.utils import logging as transformers_logging

from core.devices import best_device
from core.errors import CheckpointError, InputError
from core.progress import track
from core.seeding import numpy_generator
from distill.features import (
    Classifier,
    FeatureNetwork,
    TransformerFeatures,
    load_classifier,
    load_named,
)
from distill.noise import NoiseSchedule
from distill.pictures import CaptionPainter, StudentSampler
from distill.sampling import sample
from distill.tasks import CaptionedLatents
from distill.teach import Ground, processes
from scenes.captions import caption
from scenes.compose import render, sample_scene
from scenes.layout import layout
from scenes.sprites import SpriteSheet
from training.autoencoder import latent_of, to_tensor
from training.data import (
    ENCODE_BATCH,
    LAYOUT_CELLS,
    LatentSource,
    encode_scenes,
    encoder_name,
)
from training.method import Batch, Source
from training.networks import load_like
from training.recorders import read_record

MAX_UNKNOWN_SHARE = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Teacher:
    """A teacher's networks, frozen.

    Attributes:
        transformer: What students are copies of.
        text_encoder: Shared with all students.
        tokenizer: Shared with all students.
        autoencoder: Shared with all students.
        schedule: What scheduler_config.json holds.
    """

    transformer: PixArtTransformer2DModel
    text_encoder: T5EncoderModel
    tokenizer: PreTrainedTokenizerBase
    autoencoder: AutoencoderDC | AutoencoderKL
    schedule: Mapping[str, Any]

    @property
    def painter(self) -> CaptionPainter:
        """What paints prompts with this teacher or its students."""
        return CaptionPainter(self.tokenizer, self.text_encoder, self.autoencoder, self.schedule)

    @property
    def task(self) -> CaptionedLatents:
        """What is denoised and what is heard."""
        scale = float(self.autoencoder.config["scaling_factor"])
        return CaptionedLatents(self.tokenizer, self.text_encoder, latent_scale=scale)


def load_teacher(checkpoint: Path, transformer: Path) -> Teacher:
    """Load a teacher from a diffusers folder that was found good.

    Args:
        checkpoint: The folder of the pipeline.
        transformer: The folder of the variant that teaches.

    Raises:
        CheckpointError: If it needs more than words, or cannot be read.
    """
    config = transformer / "config.json"
    if config.is_file() and "quantization_config" in read_record(config):
        raise CheckpointError(
            f"{config} has a quantization_config: low-bit weights cannot teach. Name their float "
            "parent.",
            param="from",
        )
    try:
        schedule = json.loads((checkpoint / "scheduler" / "scheduler_config.json").read_text())
        kind = json.loads((checkpoint / "vae" / "config.json").read_text())["_class_name"]
        vae_class = AutoencoderDC if kind == "AutoencoderDC" else AutoencoderKL
        options = {"use_safetensors": True, "local_files_only": True}
        with _quiet_loading():
            network = PixArtTransformer2DModel.from_pretrained(transformer, **options)
            encoder = T5EncoderModel.from_pretrained(checkpoint / "text_encoder", **options)
            autoencoder = vae_class.from_pretrained(checkpoint / "vae", **options)
        tokenizer = AutoTokenizer.from_pretrained(checkpoint / "tokenizer", local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{checkpoint} cannot be loaded as a teacher: {error}.") from error
    if network.use_additional_conditions:
        raise CheckpointError(
            f"{transformer} listens to picture size and shape beside words, which these trainers "
            "do not pass on: use a PixArt without micro-conditions (512 pixels or Sigma)."
        )
    NoiseSchedule(schedule)
    for part in (network, encoder, autoencoder):
        part.eval().requires_grad_(requires_grad=False)
    return Teacher(
        transformer=network,
        text_encoder=encoder,
        tokenizer=tokenizer,
        autoencoder=autoencoder,
        schedule=schedule,
    )


def load_student(teacher: Teacher, folder: Path) -> PixArtTransformer2DModel:
    """Load an earlier student of a teacher's shape, to learn on.

    Args:
        teacher: Whose shape it must have.
        folder: Of a diffusers transformer.

    Raises:
        CheckpointError: If there is none, or it has another shape.
    """
    way_out = "Give the folder of a student, such as runs/distill-rdd/8-steps/student."
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder} has no config.json. {way_out}", param="start_from")
    network = load_like(teacher.transformer, folder, param="start_from")
    return cast("PixArtTransformer2DModel", network).eval()


def latents_of(
    teacher: Teacher, folder: Path, *, num_scenes: int, batch_size: int, seed: int
) -> tuple[LatentSource, str]:
    """Return scenes as this teacher's autoencoder sees them, and that autoencoder's name.

    Args:
        teacher: Gives the autoencoder.
        folder: Where latents of all autoencoders are kept.
        num_scenes: Scenes to draw from; missing ones are encoded.
        batch_size: Samples a batch.
        seed: Of the draws.
    """
    home = encode_scenes(
        teacher.autoencoder,
        SpriteSheet(),
        folder,
        num_scenes=num_scenes,
        device=best_device(),
        processes=processes(),
    )
    source = LatentSource(home, num_scenes=num_scenes, batch_size=batch_size, seed=seed)
    return source, encoder_name(teacher.autoencoder)


@torch.no_grad()
def unseen_scenes(teacher: Teacher, *, num_scenes: int, seed: int = 0) -> Batch:
    """Return scenes that no training meets, as this teacher's autoencoder sees them.

    Args:
        teacher: Gives the autoencoder.
        num_scenes: At least 1.
        seed: First seed of the scenes, of the split "seen".

    Returns:
        Latents, layouts and full captions.
    """
    sheet, autoencoder = SpriteSheet(), teacher.autoencoder.to(best_device())
    scenes = [sample_scene(seed + index, split="seen", sheet=sheet) for index in range(num_scenes)]
    latents = []
    for start in track(range(0, num_scenes, ENCODE_BATCH), "Encoding unseen scenes"):
        part = np.stack([render(each, sheet) for each in scenes[start : start + ENCODE_BATCH]])
        latents.append(latent_of(autoencoder, to_tensor(part).to(autoencoder.device)).cpu())
    layouts = np.stack([layout(each, sheet, num_cells=LAYOUT_CELLS) for each in scenes])
    return {
        "latents": torch.cat(latents),
        "layouts": torch.from_numpy(layouts).long(),
        "captions": [
            caption(each, "full", numpy_generator(seed + index, "captions"))
            for index, each in enumerate(scenes)
        ],
    }


def ground_of(
    teacher: Teacher, source: Source, *, features: FeatureNetwork | None, encoder: str
) -> Ground:
    """Return what a distillation of this teacher stands on, refusing parts that do not fit.

    Args:
        teacher: Loaded.
        source: Batches of latents and captions.
        features: What looks at pictures, if anything does.
        encoder: Name of the autoencoder that made the latents.

    Raises:
        InputError: If latents, words or features are not of the teacher's kind.
    """
    batch, task = source(0), teacher.task
    config = teacher.transformer.config
    shape = (config.in_channels, config.sample_size, config.sample_size)
    if tuple(batch["latents"].shape[1:]) != shape:
        raise InputError(
            f"The latents are of shape {tuple(batch['latents'].shape[1:])}, the teacher denoises "
            f"{shape}: encode them with the teacher's own autoencoder at its own size.",
            param="latents",
        )
    _check_words(teacher, batch["captions"])
    if features is not None:
        features.check(task.clean(batch))
        if isinstance(features, Classifier) and features.shape.trained_on != encoder:
            raise InputError(
                f"The classifier knows latents of {features.shape.trained_on}, these are of "
                f"{encoder}: train one on them (fewstroke distill classifier).",
                param="features",
            )
    painter = teacher.painter
    return Ground(
        teacher=teacher.transformer,
        task=task,
        noise=NoiseSchedule(teacher.schedule),
        source=source,
        draws=lambda num_steps: StudentSampler(painter, num_steps),
    )


def paint_latents(
    teacher: Teacher,
    transformer: PixArtTransformer2DModel,
    scenes: Batch,
    *,
    num_steps: int,
    guidance: float = 1.0,
    rescale: float = 0.0,
    batch_size: int = 64,
) -> Float[Tensor, "b c h w"]:
    """Return latents at unit spread, painted from the captions of some scenes.

    Args:
        teacher: Gives words and schedule.
        transformer: The teacher's or a student.
        scenes: Their captions are painted, the first from seed 0.
        num_steps: DDIM steps.
        guidance: Classifier-free guidance; 1 for none.
        rescale: How far guided predictions go back to the spread without guidance, 0..1.
        batch_size: Pictures a forward pass.
    """
    noise, count = NoiseSchedule(teacher.schedule), len(scenes["captions"])
    parts = []
    for start in range(0, count, batch_size):
        rows = slice(start, min(start + batch_size, count))
        asked = {"latents": scenes["latents"][rows], "captions": scenes["captions"][rows]}
        seeds = list(range(rows.start, rows.stop))
        painted = sample(
            transformer,
            teacher.task,
            noise,
            asked,
            num_steps=num_steps,
            guidance=guidance,
            rescale=rescale,
            seeds=seeds,
        )
        parts.append(painted.cpu())
    return torch.cat(parts)


def features_of(choice: str | None, teacher: Teacher) -> FeatureNetwork | None:
    """Return the feature network that a user chose.

    Args:
        choice: A classifier's folder; "teacher" for the middle of the teacher itself;
            "module:function" for one's own; None for none.
        teacher: Is copied for "teacher".
    """
    if choice is None:
        return None
    if choice == "teacher":
        nothing: Mapping[str, Tensor] = teacher.task.heard({"captions": [""]})[1]
        with torch.no_grad():
            network = TransformerFeatures(deepcopy(teacher.transformer), nothing)
        return network.eval().requires_grad_(requires_grad=False)
    if ":" in choice and not Path(choice).exists():
        return load_named(choice)
    return load_classifier(Path(choice))


@contextmanager
def _quiet_loading() -> Iterator[None]:
    # the shipped autoencoder's config has a field that stock pipelines read and diffusers warns of
    configuration = logging.getLogger("diffusers.configuration_utils")
    level, shows_bars = configuration.level, transformers_logging.is_progress_bar_enabled()
    configuration.setLevel(logging.ERROR)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        configuration.setLevel(level)
        if shows_bars:
            transformers_logging.enable_progress_bar()


def _check_words(teacher: Teacher, captions: list[str]) -> None:
    tokens = teacher.tokenizer([text.lower().strip() for text in captions]).input_ids
    ids = [each for row in tokens for each in row]
    num_known = int(teacher.text_encoder.config.vocab_size)
    if max(ids) >= num_known:
        raise InputError(
            f"The tokenizer speaks of token {max(ids)}, the text encoder knows {num_known}: they "
            "are of two models. Save the pipeline again with its own tokenizer.",
            param="tokenizer",
        )
    unknown = sum(each == teacher.tokenizer.unk_token_id for each in ids) / len(ids)
    if unknown > MAX_UNKNOWN_SHARE:
        raise InputError(
            f"{100 * unknown:.0f} % of the captions' words are unknown to the teacher's tokenizer: "
            "the captions are of another language or model.",
            param="tokenizer",
        )
