import pytest

from core.errors import InputError, UnknownNameError
from pipelines.depth import PRESETS, check_depth, depth_map


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("num_layers", [1, 2, 12, 28, 40])
def test_every_preset_fits_every_depth(preset: str, num_layers: int) -> None:
    check_depth(depth_map(preset, num_layers), num_layers)


def test_release_hears_regions_in_the_first_21_of_40_layers() -> None:
    scopes = [rule.scope for rule in depth_map("release", 40)]
    assert scopes == ["regional"] * 21 + ["global"] * 19


def test_layout_first_hears_the_whole_in_the_first_quarter() -> None:
    scopes = [rule.scope for rule in depth_map("layout-first", 8)]
    assert scopes == ["global"] * 2 + ["regional"] * 6


def test_reversed_swaps_the_rules_of_progressive() -> None:
    there, back = depth_map("progressive", 12), depth_map("reversed", 12)
    assert (there[0], there[-1]) == (back[-1], back[0])
    assert (there[0].level, there[-1].level) == ("low", "high")


def test_what_does_not_fit_is_refused_by_its_path() -> None:
    with pytest.raises(UnknownNameError, match="progressive"):
        depth_map("progresive", 4)
    with pytest.raises(InputError, match="at least 1"):
        depth_map("flat", 0)
    with pytest.raises(InputError, match="3 entries"):
        check_depth(depth_map("flat", 3), 4)
