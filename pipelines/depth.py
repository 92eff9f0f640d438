"""Which words and which places each cross-attention layer hears. No torch here."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from core.errors import InputError, UnknownNameError

Level = Literal["high", "low", "both"]
Scope = Literal["regional", "global", "both"]


def depth_map(preset: str, num_layers: int) -> tuple["LayerRule", ...]:
    """Spread a preset over the layers of a model, shallow ones first.

    "progressive" lets the shallow part hear low-level words in their regions, and the deep part
    high-level words in their regions and of the whole; "reversed" swaps the two rules and is the
    control; "release" lets the shallow part hear regions and the deep part the whole; in these
    the first 21 of 40 layers are the shallow part, in proportion. "layout-first" lets the first
    quarter hear the whole, and all others regions; "flat" lets every layer hear regions.

    Args:
        preset: One of PRESETS.
        num_layers: Cross-attention layers of the model, at least 1.

    Returns:
        One rule per layer.

    Raises:
        UnknownNameError: If there is no such preset.
        InputError: If there are no layers.

    Source: Xiong et al. 2025, "Enhancing Image Generation Fidelity via Progressive Prompts", and
        for the split the default of the code released with it. "flat" and "layout-first" are ours.
    """
    if preset not in PRESETS:
        raise UnknownNameError("depth preset", preset, PRESETS, param="depth")
    if num_layers < 1:
        raise InputError(f"num_layers is {num_layers}: at least 1.", param="num_layers")
    chosen = PRESETS[preset]
    num_shallow = max(1, round(num_layers * chosen.shallow_share))
    return (chosen.shallow,) * num_shallow + (chosen.deep,) * (num_layers - num_shallow)


def layer_rules(depth: "DepthMap", num_layers: int) -> tuple["LayerRule", ...]:
    """Return the rule of every layer, from a preset's name or from the rules themselves.

    Args:
        depth: What was asked for.
        num_layers: Cross-attention layers of the model.

    Returns:
        One rule per layer. A preset that does not exist, or a map of another length, is refused
        as `depth_map` and `check_depth` say.
    """
    if isinstance(depth, str):
        return depth_map(depth, num_layers)
    check_depth(depth, num_layers)
    return depth


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerRule:
    """What one layer hears.

    Attributes:
        level: High-level words (what it is), low-level words (how it looks), or both.
        scope: Each region its own words ("regional"), every place the base prompt ("global"), or
            the mean of these two ("both").
    """

    level: Level = "both"
    scope: Scope = "regional"


DepthMap = str | tuple[LayerRule, ...]
"""A preset's name, or one rule per layer."""

_LOOKS = LayerRule(level="low", scope="regional")
_CONTENT = LayerRule(level="high", scope="both")
_REGIONS = LayerRule(level="both", scope="regional")
_WHOLE = LayerRule(level="both", scope="global")


@dataclass(frozen=True, slots=True)
class Preset:
    """One rule for the shallow layers and one for the deep ones.

    Attributes:
        shallow: The rule of the first layers.
        deep: The rule of all others.
        shallow_share: How many of the layers are the first ones; at least one layer is.
    """

    shallow: LayerRule
    deep: LayerRule
    shallow_share: Fraction = Fraction(21, 40)


PRESETS: dict[str, Preset] = {
    "progressive": Preset(_LOOKS, _CONTENT),
    "release": Preset(_REGIONS, _WHOLE),
    "flat": Preset(_REGIONS, _REGIONS),
    "reversed": Preset(_CONTENT, _LOOKS),
    "layout-first": Preset(_WHOLE, _REGIONS, Fraction(1, 4)),
}


def check_depth(rules: Sequence[LayerRule], num_layers: int, *, param: str = "depth") -> None:
    """Refuse a depth map that does not fit a model.

    Args:
        rules: One per layer.
        num_layers: Cross-attention layers of the model.
        param: Name of the field that holds the map.

    Raises:
        InputError: If the length is wrong.
    """
    if len(rules) != num_layers:
        raise InputError(
            f"{param} has {len(rules)} entries: the model has {num_layers} cross-attention "
            "layers, give one for each.",
            param=param,
        )
