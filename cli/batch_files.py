"""Tables of prompts that become input files, and results that become files of one's own."""

import base64
import csv
import io
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from core.errors import InputError

IMAGES: Final = "/v1/images/generations"
PLANS: Final = "/v1/plans"
COLUMNS: Final[Mapping[str, Callable[[str], Any]]] = {
    "prompt": str,
    "custom_id": str,
    "seed": int,
    "steps": int,
    "n": int,
    "guidance": float,
    "size": str,
    "negative_prompt": str,
}
PLAN_COLUMNS: Final = frozenset({"prompt", "custom_id", "size"})
SUFFIXES = {b"\x89PNG": ".png", b"RIFF": ".webp", b"\xff\xd8\xff": ".jpg"}
MAX_NAME = 150
MAX_LINE_BYTES = 1 << 20


def input_from(path: Path, *, wants_plans: bool = False) -> tuple[Path | tuple[str, bytes], str]:
    """Return what to upload, and the endpoint that its lines are for.

    Args:
        path: A table of prompts, or JSONL in OpenAI's form, which is uploaded as it is.
        wants_plans: Whether a table's prompts are planned and not painted.

    Raises:
        InputError: If plans are wanted of lines that say themselves what they want.
    """
    if path.suffix.lower() == ".csv":
        endpoint = PLANS if wants_plans else IMAGES
        return from_csv(path, endpoint), endpoint
    if wants_plans:
        raise InputError(
            f"--plans is for tables; each line of {path} says itself what it asks for: give it the "
            f'"url" "{PLANS}".',
            param="plans",
        )
    return path, _first_url(path)


def from_csv(path: Path, endpoint: str = IMAGES) -> tuple[str, bytes]:
    """Turn a table of prompts into an input file.

    Args:
        path: A CSV file in UTF-8 with a header.
        endpoint: IMAGES or PLANS.

    Returns:
        Name and content of the input file; lines without a custom_id are numbered from 1.

    Raises:
        InputError: If it is not UTF-8, has no column `prompt` or one that is not known, a row has
            more cells than the header, or a number is none.
    """
    try:
        table = csv.DictReader(io.StringIO(path.read_text("utf-8-sig")), skipinitialspace=True)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8 (byte {error.start}): save it as UTF-8.", param="file"
        ) from error
    names = [name.strip() for name in table.fieldnames or ()]
    table.fieldnames = names
    known = [name for name in COLUMNS if endpoint == IMAGES or name in PLAN_COLUMNS]
    if "prompt" not in names or (unknown := set(names) - set(known)):
        trouble = (
            f"the unknown column {min(unknown)!r}" if "prompt" in names else "no column 'prompt'"
        )
        raise InputError(
            f"{path} has {trouble}; its header is {', '.join(names) or 'empty'}, known are "
            f"{', '.join(known)}, with commas between.",
            param="file",
        )
    lines = [_line(row, number, endpoint) for number, row in enumerate(table, start=1)]
    return f"{path.stem}.jsonl", "\n".join(map(json.dumps, lines)).encode()


def _line(row: Mapping[str | None, Any], number: int, endpoint: str) -> dict[str, Any]:
    if None in row:
        raise InputError(
            f"Row {number} has more cells than the header: put texts with commas into quotes, "
            '"a red apple, watercolor".',
            param="file",
        )
    body = {}
    for name, text in row.items():
        if name and text:
            try:
                body[name] = COLUMNS[name](text)
            except ValueError as error:
                raise InputError(
                    f"Row {number}: {name} is {text!r}, and no number.", param=name
                ) from error
    custom_id = body.pop("custom_id", str(number))
    return {"custom_id": custom_id, "method": "POST", "url": endpoint, "body": body}


def _first_url(path: Path) -> str:
    # the server looks at every line, and says what is wrong and where
    with path.open("rb") as lines, suppress(ValueError, AttributeError):
        if json.loads(lines.readline(MAX_LINE_BYTES)).get("url") == PLANS:
            return PLANS
    return IMAGES


class ResultFolder:
    """Writes results as files that are called as their lines.

    Args:
        folder: Made if missing.
        fetch: Returns the bytes of a file by its id.
    """

    def __init__(self, folder: Path, fetch: Callable[[str], bytes]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._fetch = fetch
        self._taken: set[str] = set()

    def save(self, row: Mapping[str, Any]) -> int:
        """Write what one line of an output file holds.

        Args:
            row: The line: pictures, or a plan.

        Returns:
            How many files were written.
        """
        body, name = row["response"]["body"], str(row["custom_id"])
        if "data" not in body:
            self._place(name, ".json").write_text(json.dumps(body, indent=1), "utf-8")
            return 1
        pictures = body["data"]
        for number, picture in enumerate(pictures, start=1):
            content = self._picture(picture)
            suffix = next((s for start, s in SUFFIXES.items() if content.startswith(start)), ".bin")
            own = f"{name}_{number}" if len(pictures) > 1 else name
            self._place(own, suffix).write_bytes(content)
        return len(pictures)

    def _picture(self, picture: Mapping[str, Any]) -> bytes:
        if picture.get("b64_json"):
            return base64.b64decode(picture["b64_json"])
        return self._fetch(picture["file_id"])

    def _place(self, custom_id: str, suffix: str) -> Path:
        # a custom_id may hold anything; a file name may not, and none is given twice
        plain = "".join(c if c.isalnum() or c in "-_." else "_" for c in custom_id)
        stem = name = plain.lstrip(".")[:MAX_NAME] or "_"
        count = 1
        while name.lower() in self._taken:
            count += 1
            name = f"{stem}_{count}"
        self._taken.add(name.lower())
        return self._folder / f"{name}{suffix}"
