"""Writes docs/reference.md from the code: every command with its help, every error with its code.

`reference.py` rewrites the page; `reference.py --check` fails when the page is not what the code
says. Settings are not here: docs/operations.md has them.
"""

import difflib
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import click
import typer.main

from cli.main import build_app
from core.errors import FewstrokeError

PAGE = Path(__file__).parents[1] / "docs" / "reference.md"
PACKAGES_WITH_ERRORS = ("app.errors",)

HEADER = """\
# Reference

Written by `make docs` from the code; `make check` fails when it is stale. Settings of the server
are in [operations.md](operations.md).
"""


def main() -> None:
    """Rewrite the page, or compare it."""
    page = "\n".join([HEADER, *_commands(), *_errors()]) + "\n"
    current = PAGE.read_text(encoding="ascii") if PAGE.exists() else ""
    if sys.argv[1:] != ["--check"]:
        PAGE.write_text(page, encoding="ascii")
        print(f"{PAGE.name}: {'rewritten' if page != current else 'up to date'}")
        return
    if page != current:
        changes = difflib.unified_diff(
            current.splitlines(), page.splitlines(), "docs/reference.md", "the code", lineterm=""
        )
        sys.exit("\n".join([*changes, "docs/reference.md is stale: run make docs."]))
    print(f"{PAGE.name}: up to date")


def _commands() -> Iterator[str]:
    yield "## Commands\n"
    for path, command in _walk("fewstroke", typer.main.get_command(build_app())):
        context = click.Context(command, info_name=path, max_content_width=88)
        yield f"### {path}\n\n```text\n{_plain_help(command, context)}\n```\n"


def _errors() -> Iterator[str]:
    for module in PACKAGES_WITH_ERRORS:
        import_module(module)
    yield "## Errors\n"
    yield "`code` is stable. A retryable error may succeed when the same call is made later.\n"
    yield "| code | class | retryable | meaning |\n|---|---|---|---|"
    for kind in sorted(_tree(FewstrokeError), key=lambda kind: kind.code):
        meaning = (kind.__doc__ or "").split("\n\n")[0].strip().replace("\n", " ")
        answer = "yes" if kind.retryable else "no"
        yield f"| `{kind.code}` | `{kind.__name__}` | {answer} | {' '.join(meaning.split())} |"


def _walk(path: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        for name, child in sorted(command.commands.items()):
            yield from _walk(f"{path} {name}", child)


def _plain_help(command: click.Command, context: click.Context) -> str:
    formatter = context.make_formatter()
    click.Command.format_help(command, context, formatter)
    return "\n".join(line.rstrip() for line in formatter.getvalue().strip().splitlines())


def _tree(kind: type[FewstrokeError]) -> set[type[FewstrokeError]]:
    return {kind} | {one for child in kind.__subclasses__() for one in _tree(child)}


if __name__ == "__main__":
    main()
