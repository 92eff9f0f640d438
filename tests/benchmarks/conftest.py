"""A tiny random checkpoint to measure."""

from tests.pipelines.conftest import folder, make_folder, pytest_configure

__all__ = ["folder", "make_folder", "pytest_configure"]
