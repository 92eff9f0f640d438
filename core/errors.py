"""The one error tree: every exception that Fewstroke raises on purpose.

    FewstrokeError                what we raise on purpose; anything else is a bug
      ConfigError                 this set-up cannot work; only at start-up
      InputError                  this request cannot be served as asked
        UnknownNameError          a name that nothing is filed under; lists the known ones
      CapacityError               fine, but not now: try again after `retry_after_s`
        QueueFullError
        DeviceMemoryError
        ShuttingDownError
      DeadlineError               the answer would come too late
      GenerationCancelledError    the caller left; nobody reads this answer
      CheckpointError             a model folder that is missing, broken, foreign or unsafe
      NumericsError               a NaN or infinity; names the tensor, the step, the role
      MissingAssetError           something outside Python that must be installed, and how
      UnsupportedError            this hardware or model class cannot do that

`code` is stable and machine-readable. `retryable` says whether the same call may succeed later.
Nothing here knows HTTP: `app/errors.py` maps this tree to statuses.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import ClassVar


class FewstrokeError(Exception):
    """An error raised on purpose, with a message that says what to do.

    Args:
        message: What is wrong, with the offending value, and the way out.
        param: The request field or setting at fault, as a dotted path; None where no single one is.
    """

    code: ClassVar[str] = "internal_error"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


class ConfigError(FewstrokeError):
    """The set-up cannot work; raised at start-up, before any work is accepted."""

    code = "config_error"


class InputError(FewstrokeError, ValueError):
    """A request that cannot be served as asked."""

    code = "invalid_value"


class UnknownNameError(InputError):
    """A name that nothing is filed under.

    Args:
        kind: What was looked up, as a noun ("scheduler").
        name: The name that was asked for.
        known: The names that exist.
        param: The request field or setting at fault.
    """

    code = "unknown_name"

    def __init__(
        self, kind: str, name: str, known: Iterable[str], *, param: str | None = None
    ) -> None:
        names = sorted(known)
        guess = get_close_matches(name, names, n=1)
        hint = f" Did you mean {guess[0]!r}?" if guess else ""
        super().__init__(
            f"Unknown {kind} {name!r}.{hint} Known: {', '.join(names) or 'none'}.", param=param
        )
        self.kind = kind
        self.name = name


class CapacityError(FewstrokeError):
    """The request is fine, but cannot be taken now.

    Args:
        message: What is full.
        retry_after_s: Honest estimate, in seconds, of when to try again.
    """

    code = "capacity_exceeded"
    retryable = True

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class QueueFullError(CapacityError):
    """The bounded queue in front of a device is full."""

    code = "queue_full"


class DeviceMemoryError(CapacityError):
    """The device ran out of memory for this one request."""

    code = "out_of_memory"


class ShuttingDownError(CapacityError):
    """The server is draining and takes no new work."""

    code = "shutting_down"


class DeadlineError(FewstrokeError):
    """The answer would come after the caller has stopped waiting."""

    code = "deadline_exceeded"
    retryable = True


class GenerationCancelledError(FewstrokeError):
    """The caller left or cancelled; the work stopped between two steps."""

    code = "cancelled"


class CheckpointError(FewstrokeError):
    """A model folder that is missing, truncated, of the wrong class, or unsafe to load."""

    code = "checkpoint_error"


class NumericsError(FewstrokeError):
    """A NaN or an infinity where a finite number must stand."""

    code = "numerics_error"


class MissingAssetError(FewstrokeError):
    """Something outside Python (a font, a tool) is not installed; the message says how to."""

    code = "missing_asset"


class UnsupportedError(FewstrokeError):
    """This hardware, model class or build cannot do what was asked."""

    code = "unsupported"


JSON_KINDS = {
    kind: words
    for words, kinds in {
        "a JSON object": ("dict_type", "model_type", "model_attributes_type", "mapping_type"),
        "a list": ("list_type", "tuple_type", "set_type"),
        "a text": ("string_type",),
        "true or false": ("bool_type",),
    }.items()
    for kind in kinds
}
"""What pydantic's findings ask for, in the words of JSON and not of Python."""
