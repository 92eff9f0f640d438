import json
import shutil
from pathlib import Path

import pytest

from core.errors import CheckpointError, InputError
from pipelines.depth import LayerRule
from pipelines.region_defaults import RegionDefaults, format_depth, parse_depth
from pipelines.store import open_checkpoint


def with_manifest(folder: Path, tmp_path: Path, **manifest: object) -> Path:
    copied = Path(shutil.copytree(folder, tmp_path / "copy"))
    whole = {"default": "teacher", "variants": {"teacher": {"folder": "transformer"}}} | manifest
    (copied / "variants.json").write_text(json.dumps(whole), "utf-8")
    return copied


def test_a_checkpoint_without_a_word_has_the_defaults_of_the_code(folder: Path) -> None:
    assert open_checkpoint(folder).info.region_defaults == RegionDefaults()
    assert open_checkpoint(folder).info.num_layers == 2


def test_a_variant_says_more_than_its_family(folder: Path, tmp_path: Path) -> None:
    own = {"depth": [{"level": "low"}, {"scope": "global"}], "window": [0, 0.5]}
    path = with_manifest(
        folder,
        tmp_path,
        regions={"depth": "release", "base_ratio": 0.25},
        variants={
            "teacher": {"folder": "transformer"},
            "student": {"folder": "transformer", "regions": own},
        },
    )
    family = open_checkpoint(path).info.region_defaults
    assert family == RegionDefaults(depth="release", base_share=0.25)
    student = open_checkpoint(path, variant="student").info.region_defaults
    assert student == RegionDefaults(
        depth=(LayerRule(level="low"), LayerRule(scope="global")), window=(0.0, 0.5)
    )


@pytest.mark.parametrize(
    "regions",
    [
        [], 3, {"deep": "flat"}, {"depth": "shallow"}, {"depth": [{}]}, {"window": [1, 0]},
        {"window": 1}, {"window": ["a", 1]}, {"base_ratio": 2}, {"base_ratio": None},
    ],
)  # fmt: skip
def test_defaults_that_do_not_fit_are_refused(
    folder: Path, tmp_path: Path, regions: object
) -> None:
    path = with_manifest(folder, tmp_path, regions=regions)
    with pytest.raises(CheckpointError, match="regions"):
        open_checkpoint(path)


def test_a_depth_map_survives_json() -> None:
    for depth in ("flat", (LayerRule(level="low"), LayerRule(scope="both"))):
        assert parse_depth(json.loads(json.dumps(format_depth(depth)))) == depth


@pytest.mark.parametrize(
    ("value", "param"),
    [
        (3, "depth"),
        (None, "depth"),
        ([1], "depth[0]"),
        ([{}, {"levels": "low"}], "depth[1]"),
        ([{"level": "deep"}], "depth[0].level"),
        ([{"scope": []}], "depth[0].scope"),
    ],
)
def test_a_bad_depth_map_is_refused_by_path(value: object, param: str) -> None:
    with pytest.raises(InputError) as error:
        parse_depth(value)
    assert error.value.param == param
