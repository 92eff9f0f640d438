"""`fewstroke batch`, from a table of prompts to a folder of pictures."""

import json
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from cli.batch_files import ResultFolder, from_csv, input_from
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

    def batch(*arguments: str, code: int = 0) -> str:
        given = [*arguments, "--url", server.base_url]
        found = run.invoke(commands, ["batch", *given], catch_exceptions=False)
        assert found.exit_code == code, found.output
        return found.stdout

    with running_server(stepped) as server:
        batch_id = batch("submit", str(table), *(["--files"] if as_files else [])).strip()
        assert "completed: 2 of 3 painted, 1 failed" in batch("watch", batch_id)
        assert batch_id in batch("status", batch_id)
        # one line failed: a script must be able to see that
        assert "3 files" in batch("results", batch_id, "-o", str(tmp_path / "out"), code=1)
        with pytest.raises(FewstrokeError, match=r"^Cannot cancel"):
            batch("cancel", batch_id)
    made = sorted((tmp_path / "out").iterdir())
    assert [path.name for path in made] == ["_dog_1.png", "_dog_2.png", "cat.png"]
    for path in made:
        with Image.open(path) as picture:
            assert picture.size == (128, 128)


@pytest.mark.slow
@pytest.mark.parametrize("is_table", [True, False])
def test_a_list_of_sentences_becomes_a_folder_of_plans(
    tmp_path: Path, stepped: SteppedPainter, *, is_table: bool
) -> None:
    sentences = tmp_path / ("in.csv" if is_table else "in.jsonl")
    line = {"custom_id": "pair", "method": "POST", "url": "/v1/plans"}
    line["body"] = {"prompt": "a red apple left of a blue cat"}
    table = "prompt,custom_id\na red apple left of a blue cat,pair\n"
    sentences.write_text(table if is_table else json.dumps(line))
    run, commands = CliRunner(), build_app()
    with running_server(stepped) as server:
        where = ["--url", server.base_url]

        def batch(*arguments: str) -> str:
            given = ["batch", *arguments, *where]
            return run.invoke(commands, given, catch_exceptions=False).stdout

        wanted = ["--plans"] if is_table else []
        batch_id = batch("submit", str(sentences), "--wait", "5", *wanted).strip()
        assert "completed: 1 of 1 planned" in batch("watch", batch_id)
        batch("results", batch_id, "-o", str(tmp_path / "out"))
    (made,) = (tmp_path / "out").iterdir()
    assert made.name == "pair.json"
    plan = json.loads(made.read_text())
    assert ["apple" in str(plan["objects"][0]), "cat" in str(plan["objects"][1])] == [True, True]


def test_plans_of_lines_that_say_what_they_want_are_refused(tmp_path: Path) -> None:
    lines = tmp_path / "in.jsonl"
    lines.write_text("{}")
    with pytest.raises(InputError, match="--plans is for tables"):
        input_from(lines, wants_plans=True)
    table = tmp_path / "p.csv"
    table.write_text("prompt,seed\na,1\n")
    with pytest.raises(InputError, match=r"unknown column 'seed'.*known are prompt"):
        input_from(table, wants_plans=True)


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


@pytest.mark.parametrize(
    ("table", "told"),
    [
        (b"words\na\n", "no column 'prompt'; its header is words"),
        (b"prompt;seed\na;1\n", "prompt;seed"),
        (b"prompt,sed\na,1\n", "unknown column 'sed'"),
        (b"prompt,seed\na,seven\n", "seed is 'seven'"),
        (b"prompt\na red apple, watercolor\n", "commas into quotes"),
        (b"prompt\nr\xe9d\n", "not UTF-8"),
        (b"", "header is empty"),
    ],
)
def test_a_table_that_is_none_is_refused(tmp_path: Path, table: bytes, told: str) -> None:
    path = tmp_path / "p.csv"
    path.write_bytes(table)
    with pytest.raises(InputError, match=told):
        from_csv(path)


def test_no_result_takes_the_place_of_another(tmp_path: Path) -> None:
    def row(name: str, *contents: str) -> dict[str, Any]:
        pictures = [{"b64_json": b64encode(each.encode()).decode()} for each in contents]
        return {"custom_id": name, "response": {"body": {"data": pictures}}}

    folder = ResultFolder(tmp_path / "out", str.encode)
    rows = [row("a/b", "1"), row("a_b", "2"), row("y", "3", "4"), row("y_1", "5"), row("..", "6")]
    assert sum(map(folder.save, rows)) == 6
    by_id = {"custom_id": "f", "response": {"body": {"data": [{"file_id": "7"}]}}}
    plan = {"custom_id": "a_b", "response": {"body": {"plan": 8}}}
    assert folder.save(by_id) + folder.save(plan) == 2
    contents = {path.name: path.read_text() for path in (tmp_path / "out").iterdir()}
    assert sorted(contents.values()) == ["1", "2", "3", "4", "5", "6", "7", '{\n "plan": 8\n}']
    assert {"a_b.bin", "a_b_2.bin", "y_1.bin", "y_1_2.bin", "_.bin", "a_b_3.json"} < contents.keys()
