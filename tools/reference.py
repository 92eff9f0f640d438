"""Writes docs/reference.md from the code: every command with its help, every error with its code.

`reference.py` rewrites the page; `reference.py --check` fails when the page is not what the code
says. Settings are not here: docs/operations.md has them.
"""

import inspect
import textwrap
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path

import typer.main
from generated_page import settle
from rich.text import Text

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
    settle(PAGE, "\n".join([HEADER, *_commands(), *_errors()]) + "\n")


def _commands() -> Iterator[str]:
    yield "## Commands\n"
    root = typer.main.get_command(build_app())
    for context in _walk(typer.Context(root, info_name="fewstroke", **root.context_settings)):
        command = context.command
        usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
        records = [parameter.get_help_record(context) for parameter in command.get_params(context)]
        yield f"### {context.command_path}\n\n{_plain(command.help)}\n"
        yield "\n".join(["```text", usage, *_columns(filter(None, records)), "```\n"])
        if command.epilog:
            lines = [line.strip() for line in _plain(command.epilog).splitlines() if line.strip()]
            title, *examples = lines
            if not examples:  # "Example: the command"
                title, example = title.split(": ", 1)
                examples = [example]
            yield "\n".join([f"{title}:\n", "```text", *examples, "```\n"])


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


def _walk(context: typer.Context) -> Iterator[typer.Context]:
    yield context
    for name, command in sorted(getattr(context.command, "commands", {}).items()):
        yield from _walk(typer.Context(command, info_name=name, parent=context))


def _columns(rows: Iterable[tuple[str, str]], width: int = 34) -> Iterator[str]:
    for left, right in rows:
        first, *rest = textwrap.wrap(" ".join(right.split()), 98 - width) or [""]
        is_wide = len(left) > width - 4
        if is_wide:
            yield f"  {left}"
        yield f"  {'' if is_wide else left:{width - 2}}{first}".rstrip()
        yield from (f"{'':{width}}{line}" for line in rest)


def _plain(markup: str | None) -> str:
    return Text.from_markup(inspect.cleandoc(markup or "")).plain


def _tree(kind: type[FewstrokeError]) -> set[type[FewstrokeError]]:
    return {kind} | {one for child in kind.__subclasses__() for one in _tree(child)}


if __name__ == "__main__":
    main()
