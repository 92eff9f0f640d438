import pytest

from core import errors
from core.errors import CapacityError, FewstrokeError, InputError, QueueFullError, UnknownNameError


def test_an_error_carries_its_message_and_the_field_at_fault():
    error = InputError("steps is 0: give 1 to 100.", param="steps")
    assert str(error) == error.message == "steps is 0: give 1 to 100."
    assert error.param == "steps"


def test_an_error_without_a_field_says_so_with_none():
    assert InputError("The body is not JSON.").param is None


def test_input_errors_are_value_errors_for_callers_who_know_only_python():
    with pytest.raises(ValueError, match="Unknown colour"):
        raise UnknownNameError("colour", "grue", ["green", "blue"])


def test_a_miss_among_nothing_says_that_nothing_is_known():
    assert UnknownNameError("model", "x", []).message == "Unknown model 'x'. Known: none."


def test_a_full_queue_says_when_to_come_back():
    error = QueueFullError("8 of 8 places are taken.", retry_after_s=2.5)
    assert isinstance(error, CapacityError)
    assert error.retryable
    assert error.retry_after_s == 2.5


def test_only_errors_that_time_can_mend_are_retryable():
    retryable = {kind.code for kind in _tree(FewstrokeError) if kind.retryable}
    assert retryable == {
        "capacity_exceeded",
        "queue_full",
        "out_of_memory",
        "shutting_down",
        "deadline_exceeded",
    }


def test_the_tree_in_the_docstring_is_the_tree():
    drawn = {line.split()[0] for line in errors.__doc__.splitlines() if line.startswith("    ")}
    assert drawn == {kind.__name__ for kind in _tree(FewstrokeError)}


def _tree(kind: type[FewstrokeError]) -> set[type[FewstrokeError]]:
    """The errors of core alone: other packages may add their own below."""
    below = {one for child in kind.__subclasses__() for one in _tree(child)}
    return {one for one in below | {kind} if one.__module__ == errors.__name__}
