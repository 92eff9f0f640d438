import shutil
from pathlib import Path

import pytest

from app.weights.releases import ReleaseShelf
from core.errors import CheckpointError, ConfigError, InputError, UnknownNameError
from tests.pipelines.conftest import folder, make_folder, pytest_configure

__all__ = ["folder", "make_folder", "pytest_configure"]


@pytest.fixture
def shelf(tmp_path: Path) -> ReleaseShelf:
    return ReleaseShelf(tmp_path / "models")


def test_the_same_files_are_one_release_that_can_be_verified(
    shelf: ReleaseShelf, folder: Path
) -> None:
    name = shelf.publish(folder)
    assert shelf.publish(folder) == name
    [release] = shelf.listed()
    assert release == shelf.find(name)
    assert name == f"{release.variant}-{release.revision}"
    verified = shelf.verify(release)
    assert verified.name == folder.name
    assert (verified / "model_index.json").is_file()


def test_a_damaged_release_is_refused(shelf: ReleaseShelf, folder: Path, tmp_path: Path) -> None:
    release = shelf.find(shelf.publish(folder))
    place = tmp_path / "models" / release.name / release.model
    added = place / "extra.py"
    added.write_text("print()")
    with pytest.raises(CheckpointError, match=r"extra\.py, which was not published"):
        shelf.verify(release)
    added.unlink()
    weights = place / "transformer" / "diffusion_pytorch_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(CheckpointError, match="sha256"):
        shelf.verify(release)
    shutil.rmtree(place)
    with pytest.raises(CheckpointError, match="incomplete"):
        shelf.verify(release)


@pytest.mark.parametrize("name", ["../../etc", "/etc/passwd", "missing", ""])
def test_a_name_is_looked_up_and_never_opened(shelf: ReleaseShelf, name: str) -> None:
    with pytest.raises(UnknownNameError):
        shelf.find(name)


def test_what_cannot_be_served_is_not_published(
    shelf: ReleaseShelf, folder: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    (broken / "vae" / "config.json").unlink()
    with pytest.raises(CheckpointError):
        shelf.publish(broken)
    with pytest.raises(InputError, match="cannot name"):
        shelf.publish(folder, model="../up")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigError, match="Cannot publish"):
        ReleaseShelf(tmp_path / "file").publish(folder)
    assert shelf.listed() == []


def test_what_is_active_is_remembered_and_can_be_taken_back(shelf: ReleaseShelf) -> None:
    assert shelf.active() == {}
    shelf.set_active("student", "student-1")
    shelf.set_active("teacher", "teacher-1")
    shelf.set_active("student", "student-2")
    assert shelf.active() == {"student": "student-2", "teacher": "teacher-1"}
    shelf.set_active("student", None)
    assert shelf.active() == {"teacher": "teacher-1"}
