import json
from pathlib import Path

import pytest

from core.errors import CheckpointError, InputError
from training.publish import add_variant, check_publishable


def add(folder, name, *, is_default=False, **changes):
    entry = {"steps": 4, "guidance": 1.0, "scheduler": "ddim", "parent": "default", **changes}
    return add_variant(folder, name, folder / "transformer", entry, is_default=is_default)


@pytest.fixture
def pipeline_folder(tmp_path):
    """What the list of variants needs of a pipeline: its index and files with weights."""
    (tmp_path / "model_index.json").write_text("{}")
    for part in ("transformer", "vae", "text_encoder"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "weights.safetensors").write_bytes(part.encode())
    return tmp_path


def test_a_folder_without_variants_gets_its_own_listed_first(pipeline_folder):
    home = add(pipeline_folder, "rdd-4")
    manifest = json.loads((pipeline_folder / "variants.json").read_text())
    assert manifest["default"] == "default"
    assert list(manifest["variants"]) == ["default", "rdd-4"]
    entry = manifest["variants"]["rdd-4"]
    assert (entry["folder"], entry["steps"], entry["scheduler"]) == (home.name, 4, "ddim")
    assert {"vae/weights.safetensors", "text_encoder/weights.safetensors"} < entry["sha256"].keys()
    assert not [path for path in pipeline_folder.iterdir() if path.suffix == ".new"]


def test_a_variant_is_replaced_and_may_become_the_default(pipeline_folder):
    add(pipeline_folder, "rdd-4")
    add(pipeline_folder, "rdd-4", steps=2, is_default=True)
    manifest = json.loads((pipeline_folder / "variants.json").read_text())
    assert manifest["default"] == "rdd-4"
    assert manifest["variants"]["rdd-4"]["steps"] == 2
    assert len(manifest["variants"]) == 2


def test_names_that_leave_the_folder_or_hide_its_own_are_refused(pipeline_folder, tmp_path):
    for name in ("../x", "default", "", "a b"):
        with pytest.raises(InputError, match="cannot name a variant"):
            add(pipeline_folder, name)
    with pytest.raises(CheckpointError, match=r"model_index\.json"):
        add(tmp_path / "none", "rdd-4")


def test_a_folder_of_other_things_is_never_replaced(tmp_path, pipeline_folder):
    check_publishable(pipeline_folder)
    check_publishable(tmp_path / "new")
    other = tmp_path / "models"
    (other / "mine").mkdir(parents=True)
    with pytest.raises(InputError, match="holds something else than a checkpoint"):
        check_publishable(other)
    with pytest.raises(InputError, match="name a folder in it"):
        check_publishable(Path())
    assert (other / "mine").is_dir()
