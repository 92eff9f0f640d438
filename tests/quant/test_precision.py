import pytest

from core.errors import InputError
from quant.precision import (
    Policy,
    Precision,
    check_overrides,
    parse_override,
    parse_precision,
)


@pytest.mark.parametrize(
    ("text", "weights", "activations"), [("w4a8", 4, 8), ("W2A4", 2, 4), (" w3a16 ", 3, None)]
)
def test_precisions_read_as_papers_write_them(text, weights, activations):
    found = parse_precision(text)
    assert found == Precision(weights=weights, activations=activations)
    assert str(found) == text.strip().lower()


@pytest.mark.parametrize("text", ["w4", "a8w4", "w0a8", "w9a8", "w4a1", "w4a9", ""])
def test_other_precisions_are_refused(text):
    with pytest.raises(InputError):
        parse_precision(text)


def test_roles_decide_and_exceptions_win():
    policy = Policy(vector_bits=None, overrides=(("*.proj_out", None), ("*.ff.*", 8)))
    assert policy.bits("blocks.0.to_q", "block", 3) == 3
    assert policy.bits("blocks.0.ff.net", "block", 3) == 8
    assert policy.bits("x.proj_out", "outer", 3) is None
    assert policy.bits("embed", "outer", 3) == 8
    assert policy.bits("norm", "vector", 3) is None
    assert policy.bits("never", "unused", 3) is None


def test_exceptions_are_read_by_name_and_width():
    assert parse_override("*.ff.*=8") == ("*.ff.*", 8)
    assert parse_override("proj_out=float") == ("proj_out", None)
    for text in ("proj_out", "=8", "proj_out=9", "proj_out=half", "x=0"):
        with pytest.raises(InputError, match="pattern=bits"):
            parse_override(text)


def test_an_exception_that_fits_no_layer_is_refused_with_names_that_would():
    names = ["blocks.0.ff", "blocks.1.ff", "proj_out"]
    check_overrides(Policy(overrides=(("*.ff", 8), ("proj_out", None))), names)
    with pytest.raises(InputError, match=r"No layer is named 'project_out'.*blocks\.0\.ff"):
        check_overrides(Policy(overrides=(("*.ff", 8), ("project_out", None))), names)
