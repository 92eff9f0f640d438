"""`fewstroke batch`, from a table of prompts to a folder of pictures."""

import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from cli.batch import from_csv
from cli.main import build_app
from core.errors import FewstrokeError, InputError
from tests.app.conftest import SteppedPainter, running_server


@pytest.mark.slow
@pytest.mark.parametrize("as_files", [False, True])
def test_a_table_of_prompts_becomes_a_folder_of_pictures(
    tmp_path: Path, stepped: SteppedPainter, *, as_files: bool
) -> None:
    table = tmp_path / "prompts.csv"
    table.write_text(
        "prompt,custom_id,seed,n,steps\na cat,cat,1,,\na dog,../dog,2,2,\nx,bad,,,999\n"
    )
    run, commands = CliRunner(), build_app()

    def batch(*arguments: str) -> str:
        given = [*arguments, "--url", server.base_url]
        found = run.invoke(commands, ["batch", *given], catch_exceptions=False)
        assert found.exit_code == 0, found.output
        return found.stdout

    with running_server(stepped) as server:
        batch_id = batch("submit", str(table), *(["--files"] if as_files else [])).strip()
        assert "completed: 2 of 3 painted, 1 failed" in batch("watch", batch_id)
        assert batch_id in batch("status", batch_id)
        assert "3 pictures" in batch("results", batch_id, "-o", str(tmp_path / "out"))
        with pytest.raises(FewstrokeError, match="Cannot cancel"):
            batch("cancel", batch_id)
    made = sorted((tmp_path / "out").iterdir())
    assert [path.name for path in made] == ["_dog_1.png", "_dog_2.png", "cat.png"]
    for path in made:
        with Image.open(path) as picture:
            assert picture.size == (128, 128)


@pytest.mark.slow
def test_what_is_wrong_with_a_file_is_printed_by_line(
    tmp_path: Path, stepped: SteppedPainter
) -> None:
    broken = tmp_path / "in.jsonl"
    broken.write_text('{"custom_id": "a"}\n')
    run, commands = CliRunner(), build_app()
    with running_server(stepped) as server:
        where = ["--url", server.base_url]
        batch_id = run.invoke(commands, ["batch", "submit", str(broken), *where]).stdout.strip()
        found = run.invoke(commands, ["batch", "watch", batch_id, *where])
    assert found.exit_code == 1
    assert "line 1: method is required" in found.output


def test_a_server_that_is_not_there_is_told_in_one_line() -> None:
    arguments = ["batch", "status", "batch_1", "--url", "http://127.0.0.1:9/v1"]
    with pytest.raises(FewstrokeError, match="No server answers"):
        CliRunner().invoke(build_app(), arguments, catch_exceptions=False)


def test_a_table_becomes_requests(tmp_path: Path) -> None:
    table = tmp_path / "p.csv"
    table.write_text('\ufeffprompt,guidance,size\na cat,4.5,\n"one, two",,64x64\n', "utf-8")
    name, content = from_csv(table)
    assert name == "p.jsonl"
    rows = [json.loads(line) for line in content.splitlines()]
    assert [row["custom_id"] for row in rows] == ["1", "2"]
    assert [row["body"] for row in rows] == [
        {"prompt": "a cat", "guidance": 4.5},
        {"prompt": "one, two", "size": "64x64"},
    ]


@pytest.mark.parametrize("table", ["words\na\n", "prompt,seed\na,seven\n"])
def test_a_table_that_is_none_is_refused(tmp_path: Path, table: str) -> None:
    path = tmp_path / "p.csv"
    path.write_text(table)
    with pytest.raises(InputError):
        from_csv(path)
