"""The tiny model of the other tests on the other backends."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.text_to_image import TextToImage


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where compiled networks are kept while these tests run."""
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture(scope="session")
def load(folder: Path, kept: Path) -> Callable[..., TextToImage]:
    """Load the tiny model on a backend."""

    def on(backend: str, path: Path = folder, cache_dir: Path | None = kept) -> TextToImage:
        return TextToImage.load(path, device="cpu", backend=backend, cache_dir=cache_dir)

    return on


@pytest.fixture(scope="session")
def compiled(load: Callable[..., TextToImage]) -> TextToImage:
    return load("openvino")


@pytest.fixture(scope="session")
def rounded(load: Callable[..., TextToImage]) -> TextToImage:
    return load("openvino-int8")
