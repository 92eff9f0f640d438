"""`fewstroke batch`: many pictures from one file, on a server that may be stopped at any time."""

import csv
import io
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from core.errors import FewstrokeError, InputError

if TYPE_CHECKING:
    from openai import OpenAI
    from openai.types import Batch

ENDPOINT: Final = "/v1/images/generations"
POLL_S = 1.0
ENDED = {"completed", "failed", "expired", "cancelled"}
SUFFIXES = {b"\x89PNG": ".png", b"RIFF": ".webp", b"\xff\xd8\xff": ".jpg"}
NUMBERS = {"seed": int, "steps": int, "n": int, "guidance": float}

app = typer.Typer(
    help="Many pictures from one file: submit, status, watch, results, cancel.",
    no_args_is_help=True,
)

Url = Annotated[str, typer.Option("--url", help="Address of the server, ending in /v1.")]
Key = Annotated[
    str, typer.Option("--key", envvar="FEWSTROKE_API_KEY", help="API key, if the server wants one.")
]
BatchId = Annotated[str, typer.Argument(help="What submit printed.", show_default=False)]
DEFAULT_URL = "http://127.0.0.1:8000/v1"


class BatchFailedError(FewstrokeError):
    """The server refused a call, was not reached, or did not accept the input file."""

    code = "batch_failed"


def _epilog(*examples: str) -> str:
    lines = "\n\n".join(f"[cyan]{example}[/cyan]" for example in examples)
    return f"[bold]Examples[/bold]\n\n{lines}\n"


@app.command(
    epilog=_epilog("fewstroke batch submit prompts.csv", "fewstroke batch submit in.jsonl")
)
def submit(
    file: Annotated[
        Path,
        typer.Argument(
            help="JSONL in OpenAI's form, or CSV with a column `prompt` and any of `custom_id`, "
            "`seed`, `steps`, `n`, `guidance`, `size`, `negative_prompt`.",
            exists=True,
            dir_okay=False,
            show_default=False,
        ),
    ],
    *,
    files: Annotated[
        bool, typer.Option("--files", help="Keep each picture as a file of its own.")
    ] = False,
    url: Url = DEFAULT_URL,
    key: Key = "none",
) -> None:
    """Upload a file, begin to work on it, and print the batch's id."""
    content = from_csv(file) if file.suffix.lower() == ".csv" else file
    with _client(url, key) as client:
        uploaded = client.files.create(file=content, purpose="batch")
        batch = client.batches.create(
            input_file_id=uploaded.id,
            endpoint=ENDPOINT,
            completion_window="24h",
            extra_body={"results": "file_id"} if files else None,
        )
    typer.echo(batch.id)


@app.command(epilog=_epilog("fewstroke batch status batch_0123"))
def status(batch_id: BatchId, *, url: Url = DEFAULT_URL, key: Key = "none") -> None:
    """Print how far a batch is."""
    with _client(url, key) as client:
        typer.echo(describe(client.batches.retrieve(batch_id)))


@app.command(epilog=_epilog("fewstroke batch cancel batch_0123"))
def cancel(batch_id: BatchId, *, url: Url = DEFAULT_URL, key: Key = "none") -> None:
    """Stop a batch; what was painted can be fetched."""
    with _client(url, key) as client:
        typer.echo(describe(client.batches.cancel(batch_id)))


@app.command(epilog=_epilog("fewstroke batch watch batch_0123"))
def watch(batch_id: BatchId, *, url: Url = DEFAULT_URL, key: Key = "none") -> None:
    """Show how a batch comes along, with the time that is left, until it has ended."""
    with _client(url, key) as client:
        batch = _until_ended(client, batch_id)
    typer.echo(describe(batch))
    for error in (batch.errors.data or ()) if batch.errors else ():
        where = "" if error.line is None else f"line {error.line}: "
        typer.echo(f"{where}{error.message} ({error.code})", err=True)
    _end_with(batch)


@app.command(epilog=_epilog("fewstroke batch results batch_0123 -o pictures"))
def results(
    batch_id: BatchId,
    *,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder for the pictures; made if missing.")
    ] = Path("pictures"),
    url: Url = DEFAULT_URL,
    key: Key = "none",
) -> None:
    """Write every picture as a file that is called as its line, and say what failed."""
    from core.progress import progress

    output.mkdir(parents=True, exist_ok=True)
    num_pictures = 0
    with _client(url, key) as client:
        batch = client.batches.retrieve(batch_id)
        _check_ended(batch)
        total = batch.request_counts.completed if batch.request_counts else None
        with progress("Fetching", total=total, unit="lines") as report:
            for row in _rows(client, batch.output_file_id):
                num_pictures += _save(client, row, output)
                report.advance()
        for row in _rows(client, batch.error_file_id):
            typer.echo(f"{row['custom_id']}: {_reason(row)}", err=True)
    typer.echo(f"{num_pictures} pictures in {output}")


def from_csv(path: Path) -> tuple[str, bytes]:
    """Turn a table of prompts into an input file.

    Args:
        path: A CSV file in UTF-8 with a header.

    Returns:
        Name and content of the input file; lines without a custom_id are numbered from 1.

    Raises:
        InputError: If there is no column `prompt`, or a number is none.
    """
    rows = csv.DictReader(io.StringIO(path.read_text("utf-8-sig")))
    if "prompt" not in (rows.fieldnames or ()):
        raise InputError(f"{path} has no column `prompt`.", param="file")
    lines = []
    for number, row in enumerate(rows, start=1):
        body: dict[str, Any] = {name: text for name, text in row.items() if name and text}
        name = body.pop("custom_id", str(number))
        for field in NUMBERS.keys() & body.keys():
            body[field] = _number(field, body[field], number)
        lines.append({"custom_id": name, "method": "POST", "url": ENDPOINT, "body": body})
    return f"{path.stem}.jsonl", "\n".join(map(json.dumps, lines)).encode()


def describe(batch: "Batch") -> str:
    """Return one line about a batch.

    Args:
        batch: The batch.
    """
    counts = batch.request_counts
    if counts is None or counts.total == 0:
        return f"{batch.id} {batch.status}"
    failed = f", {counts.failed} failed" if counts.failed else ""
    return f"{batch.id} {batch.status}: {counts.completed} of {counts.total} painted{failed}"


def _until_ended(client: "OpenAI", batch_id: str) -> "Batch":
    from core.progress import progress

    batch = client.batches.retrieve(batch_id)
    while batch.status == "validating":
        time.sleep(POLL_S)
        batch = client.batches.retrieve(batch_id)
    done, total = _counted(batch)
    with progress("Painting", total=total or None, done=done, unit="lines") as report:
        while batch.status not in ENDED:
            time.sleep(POLL_S)
            batch = client.batches.retrieve(batch_id)
            now, _ = _counted(batch)
            report.advance(now - done, note=batch.status)
            done = now
    return batch


def _end_with(batch: "Batch") -> None:
    if batch.status == "failed":
        raise typer.Exit(1)


def _check_ended(batch: "Batch") -> None:
    if batch.status not in ENDED:
        raise BatchFailedError(f"{batch.id} is {batch.status}: see `fewstroke batch watch`.")


def _counted(batch: "Batch") -> tuple[int, int]:
    counts = batch.request_counts
    return (counts.completed + counts.failed, counts.total) if counts else (0, 0)


def _rows(client: "OpenAI", file_id: str | None) -> Iterator[dict[str, Any]]:
    if file_id is None:
        return
    with client.files.with_streaming_response.content(file_id) as response:
        for text in response.iter_lines():
            if text:
                yield json.loads(text)


def _save(client: "OpenAI", row: dict[str, Any], output: Path) -> int:
    import base64

    data = row["response"]["body"]["data"]
    for index, picture in enumerate(data):
        if picture.get("b64_json"):
            content = base64.b64decode(picture["b64_json"])
        else:
            content = client.files.content(picture["file_id"]).content
        suffix = next((s for start, s in SUFFIXES.items() if content.startswith(start)), ".bin")
        # a custom_id may hold anything; a file name may not
        name = "".join(c if c.isalnum() or c in "-_." else "_" for c in row["custom_id"])
        number = f"_{index + 1}" if len(data) > 1 else ""
        (output / f"{name.lstrip('.')[:150]}{number}{suffix}").write_bytes(content)
    return len(data)


def _reason(row: dict[str, Any]) -> str:
    error = row["error"] or row["response"]["body"]["error"]
    return str(error["message"])


def _number(field: str, text: str, number: int) -> float:
    try:
        return NUMBERS[field](text)
    except ValueError as error:
        raise InputError(
            f"Row {number}: {field} is {text!r}, and no number.", param=field
        ) from error


@contextmanager
def _client(url: str, key: str) -> Iterator["OpenAI"]:
    from openai import APIConnectionError, APIStatusError, OpenAI

    try:
        with OpenAI(base_url=url, api_key=key) as client:
            yield client
    except APIConnectionError as error:
        raise BatchFailedError(
            f"No server answers at {url}: start one with `fewstroke serve`, or name it with --url."
        ) from error
    except APIStatusError as error:
        raise BatchFailedError(error.message) from error
