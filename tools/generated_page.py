"""A page that is written from something else: rewritten, or compared with it."""

import difflib
import sys
from pathlib import Path


def settle(path: Path, text: str) -> None:
    """Rewrite a page; with `--check` on the command line, end with an error if it is stale.

    Args:
        path: The page.
        text: What should stand there.
    """
    current = path.read_text(encoding="utf-8") if path.exists() else ""
    if sys.argv[1:] != ["--check"]:
        path.write_text(text, encoding="utf-8")
        print(f"{path.name}: {'rewritten' if text != current else 'up to date'}")
        return
    if text != current:
        changes = difflib.unified_diff(
            current.splitlines(), text.splitlines(), path.name, "as it should be", lineterm=""
        )
        sys.exit("\n".join([*changes, f"{path.name} is stale: run make docs."]))
    print(f"{path.name}: up to date")
