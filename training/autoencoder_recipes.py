"""Named settings and runs of the two autoencoders: the big one, and the small one of previews."""

from dataclasses import asdict, dataclass
from pathlib import Path

from diffusers import AutoencoderDC

from core.errors import CheckpointError
from core.recipes import configured
from scenes.sprites import SpriteSheet
from training.autoencoder import (
    AutoencoderMethod,
    CropSource,
    ReconstructionSampler,
    new_autoencoder,
    reconstruct,
)
from training.loop import LoopConfig, run
from training.optimizers import OptimizerConfig
from training.preview import PreviewMethod, new_preview, preview_of
from training.publish import add_preview, refuse_no_checkpoint
from training.recorders import write_run_record


@dataclass(frozen=True, kw_only=True, slots=True)
class AutoencoderRecipe:
    """Settings of the training of an autoencoder, the big or the small one.

    Attributes:
        num_steps: Optimizer steps.
        batch_size: Crops a step.
        crop_px: Side of a crop.
        learning_rate: AdamW's peak.
        seed: Seed of data and noise.
    """

    num_steps: int = 3600
    batch_size: int = 16
    crop_px: int = 64
    learning_rate: float = 1e-3
    seed: int = 0


AUTOENCODER_RECIPES = {
    "cpu": AutoencoderRecipe(),
    "gpu": AutoencoderRecipe(num_steps=40_000, batch_size=128, crop_px=128),
}

PREVIEW_RECIPES = {
    "cpu": AutoencoderRecipe(num_steps=4000, learning_rate=2e-3),
    "gpu": AutoencoderRecipe(num_steps=20_000, batch_size=128, learning_rate=2e-3),
}


def train_autoencoder(
    recipe: str,
    run_dir: Path,
    changes: list[str],
    *,
    minutes: float | None = None,
    decoder_of: Path | None = None,
) -> Path:
    """Train, or go on training, the autoencoder.

    Args:
        recipe: A key of AUTOENCODER_RECIPES.
        run_dir: Folder of the run.
        changes: "field=value" settings over the recipe.
        minutes: Stop after this long, with a checkpoint.
        decoder_of: A trained autoencoder whose decoder learns on, alone: its encoder stays as it
            is, and so do latents and all that was trained on them.

    Returns:
        Folder of the averaged autoencoder, in diffusers' format. A decoder_of without an
        autoencoder is a CheckpointError.
    """
    settings = configured(AUTOENCODER_RECIPES, recipe, changes)
    network = new_autoencoder() if decoder_of is None else load_autoencoder(decoder_of)
    sheet = SpriteSheet()
    loop = _picture_loop(settings, minutes)
    write_run_record(run_dir, {"recipe": recipe, **asdict(settings), "loop": asdict(loop)})
    run(
        AutoencoderMethod(network, keeps_encoder=decoder_of is not None),
        _crops(settings, sheet),
        loop,
        run_dir,
        sampler=ReconstructionSampler(sheet, reconstruct),
    )
    network.save_pretrained(run_dir / "vae", safe_serialization=True)
    return run_dir / "vae"


def train_preview(
    recipe: str,
    run_dir: Path,
    autoencoder_dir: Path,
    changes: list[str],
    *,
    minutes: float | None = None,
    publish: Path | None = None,
) -> Path:
    """Train, or go on training, the small autoencoder that decodes previews.

    Args:
        recipe: A key of PREVIEW_RECIPES.
        run_dir: Folder of the run.
        autoencoder_dir: The autoencoder whose latents it learns; its scaling factor is set.
        changes: "field=value" settings over the recipe.
        minutes: Stop after this long, with a checkpoint.
        publish: Checkpoint that previews are to be decoded in.

    Returns:
        Folder of the averaged small autoencoder, in diffusers' format. A missing autoencoder is a
        CheckpointError.
    """
    settings = configured(PREVIEW_RECIPES, recipe, changes)
    if publish is not None:
        refuse_no_checkpoint(publish)
    autoencoder = load_autoencoder(autoencoder_dir).requires_grad_(requires_grad=False)
    preview = new_preview(latent_channels=autoencoder.config["latent_channels"])
    sheet = SpriteSheet()
    loop = _picture_loop(settings, minutes)
    write_run_record(run_dir, {"recipe": recipe, **asdict(settings), "loop": asdict(loop)})
    run(
        PreviewMethod(preview, autoencoder),
        _crops(settings, sheet),
        loop,
        run_dir,
        sampler=ReconstructionSampler(sheet, preview_of),
    )
    preview.save_pretrained(run_dir / "preview", safe_serialization=True)
    if publish is not None:
        return add_preview(publish, run_dir / "preview")
    return run_dir / "preview"


def _picture_loop(settings: AutoencoderRecipe, minutes: float | None) -> LoopConfig:
    return LoopConfig(
        num_steps=settings.num_steps,
        optimizer=OptimizerConfig(learning_rate=settings.learning_rate),
        seed=settings.seed,
        time_limit_s=None if minutes is None else 60 * minutes,
    )


def _crops(settings: AutoencoderRecipe, sheet: SpriteSheet) -> CropSource:
    return CropSource(
        sheet, batch_size=settings.batch_size, crop_px=settings.crop_px, seed=settings.seed
    )


def load_autoencoder(folder: Path) -> AutoencoderDC:
    """Return a trained autoencoder.

    Args:
        folder: In diffusers' format.

    Raises:
        CheckpointError: If there is none.
    """
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"No autoencoder in {folder}. Train one: fewstroke train autoencoder")
    return AutoencoderDC.from_pretrained(folder, use_safetensors=True)
