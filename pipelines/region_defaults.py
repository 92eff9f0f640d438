"""How regions act where a request does not say it; stored with a checkpoint. No torch here."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from core.errors import CheckpointError, InputError
from pipelines.depth import DepthMap, LayerRule, Level, Scope, layer_rules


def read_region_defaults(
    file: Path, entry: Mapping[str, object], num_layers: int
) -> "RegionDefaults":
    """Read what a checkpoint says of regions.

    Args:
        file: Where it says it, for messages.
        entry: The variant's entry in variants.json; `regions` in it is an object with `depth` (a
            preset, or a list of {"level", "scope"}, one per layer), `window` (two shares of the
            steps) and `base_ratio`, each of which may be missing.
        num_layers: Cross-attention layers of the transformer.

    Returns:
        The defaults.

    Raises:
        CheckpointError: If these are no such values, or do not fit the transformer.
    """
    said = entry.get("regions", {})
    if not isinstance(said, Mapping) or not said.keys() <= {"depth", "window", "base_ratio"}:
        raise CheckpointError(
            f"{file} has {said!r} as regions: give an object with depth, window and base_ratio."
        )
    made = RegionDefaults()
    try:
        depth = parse_depth(said.get("depth", made.depth))
        layer_rules(depth, num_layers)
        start, end = (float(share) for share in said.get("window", made.window))
        base_share = float(said.get("base_ratio", made.base_share))
    except (TypeError, ValueError, InputError) as error:
        raise CheckpointError(f"{file} has {said!r} as regions: {error}") from error
    if not (0 <= start <= end <= 1 and 0 <= base_share <= 1):
        raise CheckpointError(
            f"{file} has {said!r} as regions: window and base_ratio are shares, 0..1."
        )
    return RegionDefaults(depth=depth, window=(start, end), base_share=base_share)


@dataclass(frozen=True, kw_only=True, slots=True)
class RegionDefaults:
    """How regions act where a request does not say it.

    Attributes:
        depth: Which words each layer hears.
        window: Shares of the steps in which regions act, from and until before.
        base_share: How much of a region still hears the base prompt, 0..1.
    """

    depth: DepthMap = "flat"
    window: tuple[float, float] = (0.0, 1.0)
    base_share: float = 0.0


def parse_depth(value: object, *, param: str = "depth") -> DepthMap:
    """Read a depth map as JSON holds it.

    Args:
        value: A preset's name, or a list of {"level": ..., "scope": ...}.
        param: Name of the field; the root of every path.

    Returns:
        The map; whether it fits a model, `layer_rules` checks.

    Raises:
        InputError: If it is neither.
    """
    if isinstance(value, str):
        return value
    if not isinstance(value, list | tuple):
        raise InputError(
            f'{param} is {str(value)[:60]!r}: give a preset, or a list of {{"level", "scope"}}.',
            param=param,
        )
    return tuple(_rule(rule, f"{param}[{place}]") for place, rule in enumerate(value))


def format_depth(depth: DepthMap) -> str | list[dict[str, str]]:
    """Write a depth map as JSON holds it.

    Args:
        depth: The map.
    """
    if isinstance(depth, str):
        return depth
    return [{"level": rule.level, "scope": rule.scope} for rule in depth]


def _rule(value: object, path: str) -> LayerRule:
    if not isinstance(value, Mapping) or not value.keys() <= {"level", "scope"}:
        raise InputError(f"{path} is no object with level and scope alone.", param=path)
    level, scope = value.get("level", "both"), value.get("scope", "regional")
    if level not in ("high", "low", "both"):
        raise InputError(
            f"{path}.level is {str(level)[:40]!r}: high, low or both.", param=f"{path}.level"
        )
    if scope not in ("regional", "global", "both"):
        raise InputError(
            f"{path}.scope is {str(scope)[:40]!r}: regional, global or both.",
            param=f"{path}.scope",
        )
    return LayerRule(level=cast("Level", level), scope=cast("Scope", scope))
