"""OpenVINO itself: found, imported quietly, and asked to run one compiled network."""

import sys
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from core.errors import ConfigError

OLDEST = (2026, 4)
INSTALL = "pip install 'fewstroke[openvino]'"
REPORTER = "openvino_telemetry"

Array = np.ndarray[Any, np.dtype[Any]]


def is_installed() -> bool:
    """Return whether OpenVINO is there, of whatever version."""
    return _version() is not None


def why_not() -> str | None:
    """Return why OpenVINO cannot be used here, and what to install; None if it can."""
    found = _version()
    if found is None:
        return f"openvino is not installed: {INSTALL}."
    if tuple(int(part) for part in found.split(".")[:2]) < OLDEST:
        wanted = ".".join(map(str, OLDEST))
        return f"openvino {found} is older than {wanted}: {INSTALL} --upgrade."
    return None


@lru_cache(maxsize=1)
def load_openvino() -> Any:  # noqa: ANN401 - a module
    """Import OpenVINO without letting it report to its makers.

    Its import sends usage data unless somebody opted out. It asks a package of its own to do that
    and goes on in silence where that is missing, so it is made to miss it.

    Returns:
        The module.

    Raises:
        ConfigError: If it is not installed or too old.
    """
    reason = why_not()
    if reason is not None:
        raise ConfigError(reason, param="backend")
    if REPORTER in sys.modules:
        return import_module("openvino")
    sys.modules[REPORTER] = None  # type: ignore[assignment]  # the documented way to hide a module
    try:
        return import_module("openvino")
    finally:
        del sys.modules[REPORTER]


@lru_cache(maxsize=1)
def core() -> Any:  # noqa: ANN401 - openvino.Core
    """Return the one runtime of this process."""
    return load_openvino().Core()


def abilities() -> list[str]:
    """Return what the processor computes in hardware, in OpenVINO's words."""
    return sorted(core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


def machine_key() -> dict[str, object]:
    """Return what a compiled network depends on beside itself: library and processor."""
    return {
        "openvino": load_openvino().get_version(),
        "cpu": core().get_property("CPU", "FULL_DEVICE_NAME"),
        "abilities": abilities(),
    }


class CompiledNetwork:
    """A network for one row at a time; several rows run side by side and never meet.

    One row gets all threads. Several rows get threads of their own, for small networks lose more
    time in waiting for each other's threads than they win by sharing a row. Sums that several
    threads share may come out otherwise than those of one; where they do, rows run in turn.

    Args:
        compile_for: Compiles the network for so many rows side by side.
        num_lanes: Most rows that run side by side.
    """

    def __init__(self, compile_for: Callable[[int], Any], num_lanes: int) -> None:
        self._compile_for = compile_for
        self._num_lanes = num_lanes
        self._request: Any = None  # on all threads
        self._queue: Any = None  # on lanes

    def __call__(self, rows: Sequence[Sequence[Array]]) -> list[Array]:
        """Run rows.

        Args:
            rows: Inputs of each row, in the order of the network's parameters.

        Returns:
            One output per row, in order.
        """
        if len(rows) == 1 or self._num_lanes == 1:
            return self._in_turn(rows)
        is_tried = self._queue is not None
        outputs = self._side_by_side(rows)
        if is_tried:
            return outputs
        in_turn = self._in_turn(rows)
        if not all(map(np.array_equal, outputs, in_turn)):
            self._num_lanes, self._queue = 1, None
        return in_turn

    def _in_turn(self, rows: Sequence[Sequence[Array]]) -> list[Array]:
        if self._request is None:
            self._request = self._compile_for(1).create_infer_request()
        return [self._request.infer(list(row), share_inputs=True)[0] for row in rows]

    def _side_by_side(self, rows: Sequence[Sequence[Array]]) -> list[Array]:
        if self._queue is None:
            compiled = self._compile_for(self._num_lanes)
            self._queue = load_openvino().AsyncInferQueue(compiled, self._num_lanes)
        outputs: dict[int, Array] = {}

        def keep(request: Any, place: int) -> None:  # noqa: ANN401 - openvino.InferRequest
            outputs[place] = request.get_output_tensor().data.copy()

        self._queue.set_callback(keep)
        for place, row in enumerate(rows):
            self._queue.start_async(list(row), userdata=place, share_inputs=True)
        self._queue.wait_all()
        return [outputs[place] for place in range(len(rows))]


def _version() -> str | None:
    try:
        return version("openvino")
    except PackageNotFoundError:
        return None
