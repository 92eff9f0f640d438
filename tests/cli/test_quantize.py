import pytest
from typer.testing import CliRunner

from cli.main import build_app
from core.errors import CheckpointError, InputError, UnknownNameError


def call(*words):
    return CliRunner().invoke(build_app(), ["quantize", *map(str, words)], catch_exceptions=False)


def test_help_teaches_by_example():
    assert "Example" in call("--help").output


def test_methods_are_listed_with_what_they_are():
    output = call("--list-methods").output
    assert "mpq_plus" in output
    assert "round to nearest" in output


def test_wrong_words_are_refused_before_any_work(tmp_path):
    with pytest.raises(UnknownNameError, match="efficientdm"):
        call("--method", "efficientdn")
    with pytest.raises(InputError, match="1 to 8 bits, not 9"):
        call("--weights", 9)
    with pytest.raises(InputError, match="pattern=bits"):
        call("--keep", "proj_out")
    with pytest.raises(UnknownNameError, match="rank"):
        call("--set", "ranks=3")
    with pytest.raises(UnknownNameError, match="teacher"):
        call("teecher")
    with pytest.raises(CheckpointError, match="There is no folder"):
        call("--model", tmp_path / "none")
    assert not (tmp_path / "runs").exists()
