"""The `fewstroke` command: what commands there are, and how failures end."""

import sys
from collections.abc import Iterable, Iterator
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from types import ModuleType
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.text import Text

from core.errors import FewstrokeError

USAGE_ERROR = 2

# Each is a module of this package with a function of its name and an EPILOG, in order of the help.
_COMMANDS = ("demo", "generate", "plan", "quantize", "serve", "worker")

# Each is a module of this package with an `app` of several commands.
_GROUPS = ("batch", "keys", "models", "train", "evaluate", "distill")


def main() -> None:
    """Run one command; a failure that we raise on purpose ends in one red line and status 2.

    Raises:
        ModuleNotFoundError: If a part of an installed package is missing: that is a fault of ours.
    """
    try:
        build_app()()
    except FewstrokeError as error:
        fail(error.message)
    except ModuleNotFoundError as error:
        if find_spec((error.name or "").partition(".")[0] or "sys") is not None:
            raise
        fail(
            f"This command needs {error.name}, which is not installed: it trains or measures, and "
            "`make run` installs what serves. Run `make setup`, or pip install '.[train]'."
        )


def fail(message: str) -> NoReturn:
    """End the command with one red line and status 2.

    Args:
        message: What is wrong, and what to do.
    """
    line = Text.assemble(("error: ", "bold red"), (message, "red"))
    Console(stderr=True, soft_wrap=True).print(line)
    sys.exit(USAGE_ERROR)


def build_app() -> typer.Typer:
    """Collect the commands; none of them imports torch before it runs.

    Returns:
        The command-line application.
    """
    app = typer.Typer(
        help="Text to image with a small diffusion transformer.",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    for name, module in _present(_COMMANDS):
        app.command(epilog=module.EPILOG)(getattr(module, name))
    for name, module in _present(_GROUPS):
        app.add_typer(module.app, name=name)
    return app


def _present(names: Iterable[str]) -> Iterator[tuple[str, ModuleType]]:
    # a command is there when the package that it stands on is
    for name in names:
        if find_spec(f"cli.{name}") is not None:
            yield name, import_module(f"cli.{name}")


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"fewstroke {version('fewstroke')}")
        raise typer.Exit


def _options(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and exit.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    pass


if __name__ == "__main__":
    main()
