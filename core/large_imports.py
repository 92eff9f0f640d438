"""Imports of large libraries, in two thirds of the time."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

MANY = 300
"""Modules from which imports are large: what they left behind is never looked at again."""


@contextmanager
def large_imports() -> Iterator[None]:
    """Look for no garbage until the block ends.

    Importing torch, diffusers and transformers makes a million objects that stay; each of the many
    collections on the way looks at all that are there, and finds nothing: a third of the time. The
    first one afterwards, in the midst of a request, would take half a second.

    Yields:
        Nothing.
    """
    was_enabled, num_modules = gc.isenabled(), len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) - num_modules >= MANY:
            gc.freeze()
        if was_enabled:
            gc.enable()
