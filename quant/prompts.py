"""What is painted while calibrating and learning."""

from collections.abc import Callable, Sequence
from pathlib import Path

from core.errors import InputError
from core.seeding import numpy_generator


def scene_prompts() -> Callable[[int, int], Sequence[str]]:
    """Return a maker of captions of the emoji world's training scenes."""
    from scenes.captions import caption
    from scenes.compose import sample_scene
    from scenes.sprites import SpriteSheet

    sheet = SpriteSheet()

    def make(count: int, seed: int) -> list[str]:
        scenes = [sample_scene(seed + i, split="train", sheet=sheet) for i in range(count)]
        rngs = [numpy_generator(seed + i, "calibration prompt") for i in range(count)]
        return [caption(scene, "full", rng) for scene, rng in zip(scenes, rngs, strict=True)]

    return make


def file_prompts(file: Path) -> Callable[[int, int], Sequence[str]]:
    """Return a maker that walks through the lines of a file, over and over.

    Args:
        file: One prompt a line; empty lines are left out.

    Raises:
        InputError: If it cannot be read as UTF-8, or there is no prompt in it.
    """
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read as text: {error}.", param="prompts") from error
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise InputError(f"{file} holds no prompt: write one a line.", param="prompts")
    return lambda count, seed: [lines[(seed + i) % len(lines)] for i in range(count)]
