"""`fewstroke batch`: many pictures from one file, on a server that may be stopped at any time."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from cli.batch_files import PLANS, ResultFolder, input_from
from core.errors import FewstrokeError

if TYPE_CHECKING:
    from openai import OpenAI
    from openai.types import Batch

POLL_S = 1.0
ENDED = {"completed", "failed", "expired", "cancelled"}

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
    epilog=_epilog(
        "fewstroke batch submit prompts.csv",
        "fewstroke batch submit in.jsonl",
        "fewstroke batch submit prompts.csv --plans",
    )
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
    plans: Annotated[
        bool, typer.Option("--plans", help="Plan the prompts of a table, and paint nothing.")
    ] = False,
    window: Annotated[
        str, typer.Option(help="Time after which what is not painted expires: 90s, 30m, 24h, 7d.")
    ] = "24h",
    webhook_url: Annotated[
        str | None, typer.Option(help="Who is told when it has ended; see docs/batches.md.")
    ] = None,
    wait: Annotated[
        float, typer.Option(min=0, help="Seconds to wait for a server that is starting.")
    ] = 0.0,
    url: Url = DEFAULT_URL,
    key: Key = "none",
) -> None:
    """Upload a file, begin to work on it, and print the batch's id."""
    content, endpoint = input_from(file, wants_plans=plans)
    extensions = {"results": "file_id" if files else None, "webhook_url": webhook_url}
    with _client(url, key) as client:
        _wait_for(client, wait)
        uploaded = client.files.create(file=content, purpose="batch")
        batch = client.batches.create(
            input_file_id=uploaded.id,
            endpoint=cast(Literal["/v1/images/generations"], endpoint),  # plans are our own
            completion_window=cast(Literal["24h"], window),  # we take others than OpenAI does
            extra_body={name: value for name, value in extensions.items() if value},
        )
    typer.echo(batch.id)


@app.command(epilog=_epilog("fewstroke batch status batch_0123"))
def status(batch_id: BatchId, *, url: Url = DEFAULT_URL, key: Key = "none") -> None:
    """Print how far a batch is."""
    with _client(url, key) as client:
        batch = client.batches.retrieve(batch_id)
    typer.echo(describe(batch))
    _end_with(batch)


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
    """Write every picture, or plan, as a file called as its line.

    Lines that failed are said at the end, and the exit code is 1 then.
    """
    from core.progress import progress

    num_files = 0
    with _client(url, key) as client:
        batch = client.batches.retrieve(batch_id)
        _check_ended(batch)
        _end_with(batch)
        folder = ResultFolder(output, lambda file_id: client.files.content(file_id).content)
        total = batch.request_counts.completed if batch.request_counts else None
        with progress("Fetching", total=total, unit="lines") as report:
            for row in _rows(client, batch.output_file_id):
                num_files += folder.save(row)
                report.advance()
        failures = [
            f"{row['custom_id']}: {_reason(row)}" for row in _rows(client, batch.error_file_id)
        ]
    typer.echo(f"{num_files} files in {output}")
    _end_with_failures(failures)


def describe(batch: "Batch") -> str:
    """Return one line about a batch.

    Args:
        batch: The batch.
    """
    counts = batch.request_counts
    if counts is None or counts.total == 0:
        return f"{batch.id} {batch.status}"
    failed = f", {counts.failed} failed" if counts.failed else ""
    done = "planned" if batch.endpoint == PLANS else "painted"
    return f"{batch.id} {batch.status}: {counts.completed} of {counts.total} {done}{failed}"


def _until_ended(client: "OpenAI", batch_id: str) -> "Batch":
    from core.progress import progress

    batch = client.batches.retrieve(batch_id)
    while batch.status == "validating":
        time.sleep(POLL_S)
        batch = client.batches.retrieve(batch_id)
    done, total = _counted(batch)
    with progress("Working", total=total or None, done=done, unit="lines") as report:
        while batch.status not in ENDED:
            time.sleep(POLL_S)
            batch = client.batches.retrieve(batch_id)
            now, _ = _counted(batch)
            report.advance(now - done, note=batch.status)
            done = now
    return batch


def _end_with(batch: "Batch") -> None:
    for error in (batch.errors.data or ()) if batch.errors else ():
        where = "" if error.line is None else f"line {error.line}: "
        typer.echo(f"{where}{error.message} ({error.code})", err=True)
    if batch.status == "failed":
        raise typer.Exit(1)


def _end_with_failures(failures: list[str]) -> None:
    for failure in failures:
        typer.echo(failure, err=True)
    if failures:
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


def _reason(row: dict[str, Any]) -> str:
    error = row["error"] or row["response"]["body"]["error"]
    return str(error["message"])


def _wait_for(client: "OpenAI", seconds: float) -> None:
    from openai import APIConnectionError

    give_up_at = time.monotonic() + seconds
    while time.monotonic() < give_up_at:
        with suppress(APIConnectionError):
            client.with_options(max_retries=0).models.list()
            return
        time.sleep(POLL_S)


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
        said = error.body if isinstance(error.body, dict) else {}
        raise BatchFailedError(str(said.get("message") or error.message)) from error
