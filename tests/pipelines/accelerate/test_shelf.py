"""What is kept is found again, whole or not at all."""

from pathlib import Path

from pipelines.accelerate.shelf import Shelf

KEY = {"network": "vae", "size": [16, 16]}


def test_what_is_kept_is_found_under_its_own_key_alone(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "new" / "folder")
    assert shelf.find(KEY) is None
    shelf.keep(KEY, b"compiled")
    assert shelf.find(KEY) == b"compiled"
    assert Shelf(shelf.folder).find({**KEY, "size": [16, 32]}) is None
    assert Shelf(shelf.folder).find(dict(reversed(KEY.items()))) == b"compiled"


def test_a_damaged_file_is_as_good_as_none(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    shelf.keep(KEY, b"compiled")
    [file] = tmp_path.iterdir()
    content = file.read_bytes()
    for damaged in (b"", content[:-1], content[:-1] + b"?", content + b"?"):
        file.write_bytes(damaged)
        assert shelf.find(KEY) is None


def test_the_oldest_goes_when_the_shelf_is_full(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, max_bytes=250)
    keys = [{"size": number} for number in range(3)]
    for key in keys[:2]:
        shelf.keep(key, b"x" * 80)
    first, _ = sorted(tmp_path.iterdir(), key=lambda file: file.stat().st_mtime_ns)
    assert shelf.find(keys[0])  # used, and with that the newest
    shelf.keep(keys[2], b"x" * 80)
    assert [shelf.find(key) is not None for key in keys] == [True, False, True]
    assert first.exists()


def test_a_folder_that_cannot_be_written_to_keeps_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    shelf = Shelf(tmp_path / "file")
    shelf.keep(KEY, b"compiled")
    assert shelf.find(KEY) is None
