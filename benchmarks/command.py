"""How a benchmark is called: what is wrong with its options is said in one line."""

from collections.abc import Callable

import typer

from cli.main import fail
from core.errors import FewstrokeError


def run_command(main: Callable[..., None]) -> None:
    """Run a benchmark with the words of the command line.

    A failure that we raise on purpose ends in one red line and status 2, as `fewstroke` ends.

    Args:
        main: Its options are the command's.
    """
    app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
    app.command()(main)
    try:
        app()
    except FewstrokeError as error:
        fail(error.message)
