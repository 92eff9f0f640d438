"""Sprites: one object's picture, cut from the emoji font, coloured and styled.

A sprite is a float array `h w 4` in 0..1: straight (not premultiplied) RGB and alpha. The steps are
glyph -> tint -> resize -> style, each a function below. `SpriteSheet` remembers finished sprites.
"""

import subprocess
import warnings
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from skimage.color import lab2rgb, rgb2lab

from core.errors import MissingAssetError
from scenes.vocabulary import COLORS, NOUNS

# Axes are not named: a function that returns another size takes and gives a Sprite.
Sprite = Float[np.ndarray, "_ _ 4"]

# The only size at which the font's bitmap glyphs exist.
GLYPH_PT = 109
PIXEL_ART_CELL_PX = 4


class SpriteSheet:
    """Finished sprites by noun, colour, size and style, each made once.

    Args:
        font: Path of NotoColorEmoji.ttf; found on the system when None.

    Raises:
        MissingAssetError: If the font is not installed.
    """

    def __init__(self, font: Path | None = None) -> None:
        self._font = ImageFont.truetype(str(font or find_emoji_font()), GLYPH_PT)
        self._sprites: dict[tuple[str, str | None, int, str], Sprite] = {}
        self._tinted: dict[tuple[str, str | None], Sprite] = {}

    def sprite(self, noun: str, color: str | None, side_px: int, style: str) -> Sprite:
        """Return an object's picture; its longer side is `side_px`.

        Args:
            noun: A key of NOUNS.
            color: A key of COLORS, or None for its own look.
            side_px: Longer side in pixels.
            style: One of STYLES.
        """
        if color == NOUNS[noun].own_color:
            color = None
        key = (noun, color, side_px, style)
        if key not in self._sprites:
            sprite = resize(self._base(noun, color), side_px)
            self._sprites[key] = STYLIZERS[style](sprite)
        return self._sprites[key]

    def _base(self, noun: str, color: str | None) -> Sprite:
        key = (noun, color)
        if key not in self._tinted:
            natural = glyph(NOUNS[noun].glyph, self._font)
            self._tinted[key] = natural if color is None else tint(natural, color)
        return self._tinted[key]


@lru_cache
def find_emoji_font() -> Path:
    """Return the path of the Noto Color Emoji font.

    Raises:
        MissingAssetError: If it is not installed.
    """
    usual = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
    if usual.is_file():
        return usual
    try:
        found = subprocess.run(
            ["/usr/bin/fc-match", "--format=%{file}", "Noto Color Emoji"],
            capture_output=True,
            text=True,
            check=False,
        ).stdout
    except FileNotFoundError:
        found = ""
    if Path(found).name == "NotoColorEmoji.ttf":
        return Path(found)
    raise MissingAssetError(
        "The Noto Color Emoji font is needed to draw scenes (to train and to judge, not to serve). "
        "Install it: sudo apt-get install fonts-noto-color-emoji"
    )


def glyph(character: str, font: ImageFont.FreeTypeFont) -> Sprite:
    """Return an emoji cut to its own box.

    Args:
        character: The emoji.
        font: Noto Color Emoji at GLYPH_PT.
    """
    page = Image.new("RGBA", (160, 160))
    ImageDraw.Draw(page).text((10, 10), character, font=font, embedded_color=True)
    return np.asarray(page.crop(page.getbbox()), np.float32) / 255


def tint(sprite: Sprite, color: str) -> Sprite:
    """Return the sprite in another colour, its shading kept.

    Lightness moves so that its median is the colour's own, and keeps most of its contrast; the two
    colour axes of Lab become the colour's, so that every part of the object has the same hue.

    Args:
        sprite: Any sprite.
        color: A key of COLORS.
    """
    target = rgb2lab(np.asarray(COLORS[color], np.float32) / 255)
    lightness = rgb2lab(sprite[..., :3])[..., 0]
    solid = sprite[..., 3] > 0.5
    middle = np.median(lightness[solid])
    # Near-black and near-white have little room on one side: keep less contrast there.
    contrast = 0.45 if color in {"black", "white"} else 0.6
    shaded = np.clip(target[0] + contrast * (lightness - middle), 4, 98)
    lab = np.stack(
        [shaded, np.full_like(shaded, target[1]), np.full_like(shaded, target[2])], axis=-1
    )
    with warnings.catch_warnings():
        # Saturated colours leave the sRGB gamut at the ends of the lightness scale and are clipped.
        warnings.filterwarnings("ignore", message="Conversion from CIE-LAB")
        rgb = lab2rgb(lab).astype(np.float32)
    return np.dstack([rgb, sprite[..., 3]])


def resize(sprite: Sprite, side_px: int) -> Sprite:
    """Return the sprite with its longer side at `side_px`, without dark or bright fringes."""
    height, width = sprite.shape[:2]
    scale = side_px / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    alpha = _resize_channel(sprite[..., 3], size)
    colors = [_resize_channel(sprite[..., c] * sprite[..., 3], size) for c in range(3)]
    rgb = np.stack(colors, axis=-1) / np.maximum(alpha, 1e-3)[..., None]
    return np.dstack([np.clip(rgb, 0, 1), np.clip(alpha, 0, 1)])


def natural(sprite: Sprite) -> Sprite:
    """Return the sprite as it is."""
    return sprite


def pixel_art(sprite: Sprite) -> Sprite:
    """Return the sprite in square cells with hard edges."""
    height, width = sprite.shape[:2]
    side = max(height, width)
    coarse = resize(sprite, max(4, round(side / PIXEL_ART_CELL_PX)))
    coarse[..., 3] = coarse[..., 3] > 0.5
    return coarse.repeat(PIXEL_ART_CELL_PX, axis=0).repeat(PIXEL_ART_CELL_PX, axis=1)


def watercolor(sprite: Sprite) -> Sprite:
    """Return flat, light washes with a soft border and pigment gathered at the edge."""
    washed = _filter(sprite, ImageFilter.MedianFilter(5))
    soft = _blur(sprite[..., 3], 1.4)
    rim = np.clip(soft * (1 - _blur(soft, 2.5)) * 3.0, 0, 1)[..., None]
    light = 0.3 + 0.7 * washed[..., :3]
    rgb = light * (1 - 0.45 * rim) + 0.45 * rim * washed[..., :3] * 0.8
    return np.dstack([np.clip(rgb, 0, 1), np.clip(soft * 1.15, 0, 1) * 0.92])


def neon(sprite: Sprite) -> Sprite:
    """Return glowing lines in the object's hue on a dark body."""
    lines = np.clip(_edges(sprite) * 1.2, 0, 1)[..., None]
    hue = sprite[..., :3] / np.maximum(sprite[..., :3].max(axis=-1, keepdims=True), 0.25)
    body = 0.28 * sprite[..., :3]
    glow = np.clip(_blur(lines[..., 0], 1.5)[..., None] * 0.8, 0, 1)
    rgb = np.maximum(body, np.maximum(lines, glow) * hue)
    return np.dstack([np.clip(rgb, 0, 1), sprite[..., 3]])


STYLIZERS = {
    "natural": natural,
    "pixel art": pixel_art,
    "watercolor": watercolor,
    "neon": neon,
}


def _edges(sprite: Sprite) -> Float[np.ndarray, "h w"]:
    """Return where lightness or the silhouette changes, 0..1."""
    gray = np.pad(sprite[..., :3].mean(axis=-1), 1, mode="edge")
    alpha = np.pad(sprite[..., 3], 1)
    inner = np.hypot(gray[1:-1, 2:] - gray[1:-1, :-2], gray[2:, 1:-1] - gray[:-2, 1:-1])
    outer = np.hypot(alpha[1:-1, 2:] - alpha[1:-1, :-2], alpha[2:, 1:-1] - alpha[:-2, 1:-1])
    return np.clip(2.2 * inner + 1.2 * outer, 0, 1)


def _resize_channel(
    channel: Float[np.ndarray, "h w"], size: tuple[int, int]
) -> Float[np.ndarray, "_ _"]:
    image = Image.fromarray(np.ascontiguousarray(channel, np.float32))
    return np.asarray(image.resize(size, Image.Resampling.BOX if size[0] < 24 else 3), np.float32)


def _filter(sprite: Sprite, image_filter: ImageFilter.Filter) -> Sprite:
    rgb = Image.fromarray((sprite[..., :3] * 255).round().astype(np.uint8))
    filtered = np.asarray(rgb.filter(image_filter), np.float32) / 255
    return np.dstack([filtered, sprite[..., 3]])


def _blur(channel: Float[np.ndarray, "h w"], radius_px: float) -> Float[np.ndarray, "h w"]:
    image = Image.fromarray((np.clip(channel, 0, 1) * 255).round().astype(np.uint8))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(radius_px)), np.float32) / 255
