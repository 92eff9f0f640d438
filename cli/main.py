"""The `fewstroke` command: what commands there are, and how failures end."""

import sys
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from cli import demo, generate, serve
from core.errors import FewstrokeError

USAGE_ERROR = 2

# Groups of commands that stand on packages of their own, and are there if these are.
_GROUPS = {"train": "cli.train", "evaluate": "cli.evaluate"}


def main() -> None:
    """Run one command; a failure that we raise on purpose ends in one red line and status 2."""
    try:
        build_app()()
    except FewstrokeError as error:
        line = Text.assemble(("error: ", "bold red"), (error.message, "red"))
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
    app.command(epilog=serve.EPILOG)(serve.serve)
    app.command(epilog=generate.EPILOG)(generate.generate)
    app.command(epilog=demo.EPILOG)(demo.demo)
    for name, module in _GROUPS.items():
        if find_spec(module) is not None:
            app.add_typer(import_module(module).app, name=name)
    return app


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
