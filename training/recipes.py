"""Recipes: named settings for the shipped model's training, and the two runs themselves."""

from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from core.errors import InputError, UnknownNameError
from scenes.sprites import SpriteSheet
from training.autoencoder import (
    AutoencoderMethod,
    CropSource,
    ReconstructionSampler,
    new_autoencoder,
)
from training.loop import LoopConfig, run
from training.optimizers import OptimizerConfig
from training.recorders import write_run_record


@dataclass(frozen=True, kw_only=True, slots=True)
class AutoencoderRecipe:
    """Settings of the autoencoder's training.

    Attributes:
        num_steps: Optimizer steps.
        batch_size: Crops a step.
        crop_px: Side of a crop.
        learning_rate: AdamW's peak.
        seed: Seed of data and noise.
    """

    num_steps: int = 6000
    batch_size: int = 16
    crop_px: int = 64
    learning_rate: float = 1e-3
    seed: int = 0


AUTOENCODER_RECIPES = {
    "cpu": AutoencoderRecipe(),
    "gpu": AutoencoderRecipe(num_steps=40_000, batch_size=128, crop_px=128),
}

Config = TypeVar("Config", AutoencoderRecipe, AutoencoderRecipe)


def train_autoencoder(
    recipe: str, run_dir: Path, changes: list[str], *, minutes: float | None = None
) -> Path:
    """Train, or go on training, the autoencoder.

    Args:
        recipe: A key of AUTOENCODER_RECIPES.
        run_dir: Folder of the run.
        changes: "field=value" settings over the recipe.
        minutes: Stop after this long, with a checkpoint.

    Returns:
        Folder of the averaged autoencoder, in diffusers' format.

    Raises:
        UnknownNameError: If the recipe or a changed field is unknown.
        InputError: If a changed value does not fit its field.
    """
    settings = configured(AUTOENCODER_RECIPES, recipe, changes)
    sheet = SpriteSheet()
    network = new_autoencoder()
    loop = LoopConfig(
        num_steps=settings.num_steps,
        optimizer=OptimizerConfig(learning_rate=settings.learning_rate),
        seed=settings.seed,
        time_limit_s=None if minutes is None else 60 * minutes,
    )
    write_run_record(run_dir, {"recipe": recipe, **asdict(settings), "loop": asdict(loop)})
    run(
        AutoencoderMethod(network),
        CropSource(
            sheet, batch_size=settings.batch_size, crop_px=settings.crop_px, seed=settings.seed
        ),
        loop,
        run_dir,
        sampler=ReconstructionSampler(sheet),
    )
    network.save_pretrained(run_dir / "vae", safe_serialization=True)
    return run_dir / "vae"


def configured(recipes: dict[str, Config], name: str, changes: list[str]) -> Config:
    """Return a recipe with single settings changed.

    Args:
        recipes: Recipes by name.
        name: Which one.
        changes: "field=value", typed by the field's own value.

    Raises:
        UnknownNameError: If the name or a field is unknown.
        InputError: If a change is not of the form field=value or its value does not fit.
    """
    if name not in recipes:
        raise UnknownNameError("recipe", name, recipes, param="recipe")
    settings = recipes[name]
    known = {field.name for field in fields(settings)}
    values: dict[str, Any] = {}
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals:
            raise InputError(f"{change!r} is not of the form field=value.", param="set")
        if key not in known:
            raise UnknownNameError("setting", key, known, param="set")
        kind = type(getattr(settings, key))
        try:
            values[key] = kind(text)
        except ValueError as error:
            raise InputError(
                f"{key} takes a {kind.__name__}, not {text!r}.", param=f"set.{key}"
            ) from error
    return replace(settings, **values)
