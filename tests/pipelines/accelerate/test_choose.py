"""Which backend is taken, and what is said when it cannot be."""

from importlib import metadata
from pathlib import Path

import pytest

from core.errors import ConfigError, UnknownNameError
from pipelines.accelerate import choose, openvino_runtime
from pipelines.accelerate.choose import AUTO, BACKENDS
from pipelines.text_to_image import TextToImage


def load(folder: Path, backend: str, dtype: str | None = None) -> TextToImage:
    return TextToImage.load(folder, device="cpu", dtype=dtype, backend=backend)


def test_an_unknown_backend_is_refused_with_the_known_ones(folder: Path) -> None:
    with pytest.raises(UnknownNameError, match="openvino, openvino-int8, openvino-lean, torch"):
        load(folder, "opemvino")


@pytest.mark.parametrize("backend", ["openvino", "openvino-int8"])
def test_a_named_backend_that_is_missing_says_what_to_install(
    folder: Path, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(openvino_runtime, "version", missing)
    with pytest.raises(ConfigError, match=r"pip install 'fewstroke\[openvino\]'"):
        load(folder, backend)
    assert load(folder, AUTO).networks.execution.backend == "torch"
    assert load(folder, AUTO).networks.execution.fallbacks == {}


def test_a_version_that_is_too_old_counts_as_missing_and_auto_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino_runtime, "version", lambda _: "2023.3.0")
    with pytest.raises(ConfigError, match=r"2023\.3\.0 is older than"):
        load(folder, "openvino")
    execution = load(folder, AUTO).networks.execution
    assert (execution.backend, execution.fallbacks) == ("torch", {"backend": 1})


@pytest.mark.skipif(openvino_runtime.why_not() is not None, reason=str(openvino_runtime.why_not()))
def test_auto_is_exact_and_keeps_to_the_number_format_that_was_asked_for(folder: Path) -> None:
    execution = load(folder, AUTO).networks.execution
    assert execution.backend == "openvino"
    assert execution.tolerance == choose.EXACT
    assert load(folder, AUTO, "bfloat16").networks.execution.backend == "torch"


def test_every_backend_says_whether_it_is_there() -> None:
    assert BACKENDS.get("torch").why_not() is None
    for name in BACKENDS:
        assert isinstance(BACKENDS.get(name).why_not(), str | None)
