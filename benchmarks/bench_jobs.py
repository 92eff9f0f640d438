"""The queue without a model, a batch of 50,000 lines, and kills: `benchmarks/results/jobs.json`.

    python -m benchmarks.bench_jobs --queue --large --dbos
    python -m benchmarks.bench_jobs --kills 200

`items_per_s_*` counts lines that were claimed in groups and completed with their results, one
worker. `plain_table_items_per_s_*` is a bare table without batches, owners, turns or results, two
statements a claim: what a queue could cost at least. `dbos_items_per_s_*` is DBOS, with
workflows that do nothing.
"""

import io
import json
import os
import resource
import subprocess
import tempfile
import time
import venv
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from sqlalchemy import (
    Column,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    insert,
    select,
    update,
)

from app.batches.batches import Batches, BatchOrder
from app.batches.item_results import ItemResult
from app.batches.jobs import worker_name
from app.batches.leases import Leases
from app.batches.stages import StageLimits, Stages
from app.batches.webhooks import WebhookOutbox
from app.storage.blobs import BlobStore
from app.storage.database import Database
from app.storage.files import Files
from app.storage.tables import Batch
from benchmarks.command import run_command
from benchmarks.kill_jobs import ENDPOINT, kill_under_load
from benchmarks.postgres_cluster import new_database, postgres_cluster
from evaluation.record import check_output, merge

OUTPUT = Path(__file__).parent / "results" / "jobs.json"
OWNER = "benchmark"
GROUP = 64
LARGE_GROUP = 256
DBOS = "dbos==3.4.0"
HEADLINE = (
    "kills_sqlite",
    "kills_postgres",
    "lost",
    "doubled",
    "items_per_s_sqlite",
    "items_per_s_postgres",
    "batch50k_accept_s",
    "batch50k_peak_mb",
)
"""What the file always names; null until it was measured."""


def main(
    *,
    queue: Annotated[
        bool, typer.Option(help="Claim and complete lines, on each database.")
    ] = False,
    large: Annotated[bool, typer.Option(help="Take in and finalise 50,000 lines.")] = False,
    kills: Annotated[int, typer.Option(help="Processes to kill, on each database.")] = 0,
    dbos: Annotated[
        bool, typer.Option(help="Install DBOS in an environment of its own, and measure it.")
    ] = False,
    lines: Annotated[int, typer.Option(help="Lines for --queue.")] = 20_000,
    output: Annotated[Path, typer.Option(help="JSON file to merge into.")] = OUTPUT,
) -> None:
    """Measure what was asked for and write it down."""
    check_output(output)
    known = json.loads(output.read_text("utf-8")) if output.exists() else {}
    figures: dict[str, object] = {name: None for name in HEADLINE if name not in known}
    # how busy the machine was with other things: rates are worth as much as this is low
    figures["load_average_before"] = round(os.getloadavg()[0], 1)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if large:  # first: a process's peak memory never falls
            figures |= measure_large(folder)
        cluster = stack.enter_context(postgres_cluster()) if queue or kills or dbos else ""
        if queue:
            figures |= measure_queue(folder, cluster, lines)
        if dbos:
            figures |= measure_dbos(folder, cluster)
        if kills:
            figures |= measure_kills(folder, cluster, kills)
    merge(output, figures, module="benchmarks.bench_jobs")
    print(json.dumps(figures, indent=1))


def measure_queue(folder: Path, cluster: str, num_lines: int) -> dict[str, object]:
    """Claim and complete lines as fast as one worker can.

    Args:
        folder: For the database of SQLite.
        cluster: A PostgreSQL.
        num_lines: How many.

    Returns:
        Lines per second.
    """
    figures: dict[str, object] = {"queue_group": GROUP, "queue_lines": num_lines}
    for group, suffix in ((GROUP, ""), (LARGE_GROUP, f"_by_{LARGE_GROUP}")):
        for name in ("sqlite", "postgres"):
            place = folder / f"queue-{name}-{group}"
            url = f"sqlite:///{place}.db" if name == "sqlite" else new_database(cluster)
            rate = claim_and_complete(url, place, group, num_lines)
            figures[f"items_per_s_{name}{suffix}"] = round(rate, 1)
    for name, url in (
        ("sqlite", f"sqlite:///{folder / 'plain.db'}"),
        ("postgres", new_database(cluster)),
    ):
        figures[f"plain_table_items_per_s_{name}"] = round(plain_table(url, num_lines), 1)
    return figures


def claim_and_complete(url: str, folder: Path, group: int, num_lines: int) -> float:
    """Take a batch from its first line to its last.

    Args:
        url: An empty database.
        folder: The storage.
        group: Lines of a claim.
        num_lines: Lines of the batch.

    Returns:
        Lines per second.
    """
    with bench(url, folder) as (database, batches, files):
        batch = accept(database, batches, files, num_lines)
        leases = Leases(database, worker=worker_name(), lease_s=60.0)
        started = time.perf_counter()
        while items := leases.claim(group, is_idle=True):
            results = [
                ItemResult(line=item.line, is_success=True, path="p", start=0, num_bytes=1)
                for item in items
            ]
            leases.complete(batch.id, results)
        return num_lines / (time.perf_counter() - started)


def measure_dbos(folder: Path, cluster: str, num_items: int = 1000) -> dict[str, object]:
    """Let DBOS claim and complete workflows that do nothing.

    Args:
        folder: For its environment and the database of SQLite.
        cluster: A PostgreSQL.
        num_items: How many.

    Returns:
        Workflows per second.
    """
    venv.create(folder / "dbos", with_pip=True)
    python = str(folder / "dbos" / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "--quiet", DBOS], check=True)  # noqa: S603
    figures: dict[str, object] = {"dbos_version": DBOS}
    for name in ("sqlite", "postgres"):
        url = f"sqlite:///{folder / 'dbos.db'}" if name == "sqlite" else new_database(cluster)
        command = [python, str(Path(__file__).with_name("peer_dbos.py")), url, str(num_items)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603
        figures[f"dbos_items_per_s_{name}"] = round(float(done.stdout.splitlines()[-1]), 1)
    return figures


def measure_large(folder: Path) -> dict[str, object]:
    """Take in a batch of 50,000 lines, complete them, finalise.

    Args:
        folder: For database and storage.

    Returns:
        Seconds, and the peak memory of this process in megabytes.
    """
    before_mb = _peak_mb()
    with bench(f"sqlite:///{folder / 'large.db'}", folder / "large") as (database, batches, files):
        started = time.perf_counter()
        batch = accept(database, batches, files, 50_000)
        accepted = time.perf_counter()
        complete_all(database, files, batch)
        painted = time.perf_counter()
        stages_of(database, files).run_next()
        finished = time.perf_counter()
        seen = batches.get(batch.id, owner=OWNER)
    assert seen.status == "completed", seen.status
    return {
        "batch50k_accept_s": round(accepted - started, 2),
        "batch50k_finalise_s": round(finished - painted, 2),
        "batch50k_peak_mb": round(_peak_mb(), 1),
        "batch50k_before_mb": round(before_mb, 1),
    }


def measure_kills(folder: Path, cluster: str, num_kills: int) -> dict[str, object]:
    """Kill server and worker under load, on both databases.

    Args:
        folder: For databases, files and logs.
        cluster: A PostgreSQL.
        num_kills: Processes to kill on each.

    Returns:
        Kills, and what was lost, doubled or different over both.
    """
    figures: dict[str, Any] = {"lost": 0, "doubled": 0, "different": 0}
    for name in ("sqlite", "postgres"):
        place = folder / f"kills-{name}"
        place.mkdir()
        url = f"sqlite:///{place / 'kills.db'}" if name == "sqlite" else new_database(cluster)
        seen = kill_under_load(place, url, num_kills=num_kills, seed=num_kills)
        figures[f"kills_{name}"] = seen.kills
        figures[f"kills_{name}_results"] = seen.results
        figures[f"kills_{name}_during"] = dict(sorted(seen.stages.items()))
        figures["lost"] += seen.lost
        figures["doubled"] += seen.doubled
        figures["different"] += seen.different
    return figures


@contextmanager
def bench(url: str, folder: Path) -> Iterator[tuple[Database, Batches, Files]]:
    """Open a database and a storage.

    Args:
        url: The database.
        folder: The storage.

    Yields:
        The database, its batches, its files.
    """
    database = Database(url)
    database.migrate()
    files = Files(database, BlobStore(str(folder)), max_bytes=200 << 20)
    yield database, Batches(database), files
    database.close()


def accept(database: Database, batches: Batches, files: Files, num_lines: int) -> Batch:
    """Upload a file, create its batch, and check its lines.

    Args:
        database: Where.
        batches: Where.
        files: Where.
        num_lines: How many.

    Returns:
        The batch, whose lines can be claimed.
    """
    content = io.BytesIO()
    for k in range(num_lines):
        body = {"prompt": f"picture number {k} of a red apple left of a blue cat", "seed": k}
        row = {"custom_id": f"line-{k}", "method": "POST", "url": ENDPOINT, "body": body}
        content.write(json.dumps(row).encode() + b"\n")
    content.seek(0)
    file = files.create(content, owner=OWNER, filename="in.jsonl", purpose="batch")
    order = BatchOrder(input_file_id=file.id, endpoint=ENDPOINT)
    batch = batches.create(order, owner=OWNER)
    stages_of(database, files).run_next()
    return batches.get(batch.id, owner=OWNER)


def stages_of(database: Database, files: Files) -> Stages:
    """Return who checks and ends batches.

    Args:
        database: Where.
        files: Where.
    """
    return Stages(
        database,
        files,
        WebhookOutbox(),
        worker=worker_name(),
        lease_s=60.0,
        limits=StageLimits(max_lines=50_000, max_line_bytes=1 << 20),
    )


def complete_all(database: Database, files: Files, batch: Batch) -> None:
    """Complete every line of a batch with a result of a kilobyte.

    Args:
        database: Where.
        files: Where.
        batch: Which.
    """
    from app.batches.output import result_line, write_segment

    leases = Leases(database, worker=worker_name(), lease_s=600.0)
    while items := leases.claim(1000, is_idle=True):
        body = {"data": [{"b64_json": "x" * 1000}]}
        contents = [result_line(batch.id, item.custom_id, status=200, body=body) for item in items]
        path, places = write_segment(files.store, batch.id, contents)
        results = [
            ItemResult(line=item.line, is_success=True, path=path, start=start, num_bytes=size)
            for item, (start, size) in zip(items, places, strict=True)
        ]
        leases.complete(batch.id, results)


def plain_table(url: str, num_lines: int) -> float:
    """Claim and complete rows of a bare table, in two statements a claim.

    Args:
        url: An empty database.
        num_lines: How many rows.

    Returns:
        Rows per second.
    """
    database = Database(url)  # for its settings of durability
    item = Table(
        "item", MetaData(), Column("line", Integer, primary_key=True), Column("state", String)
    )
    first = select(item.c.line).where(item.c.state == "pending").order_by(item.c.line).limit(GROUP)
    claim = update(item).where(item.c.line.in_(first.with_for_update(skip_locked=True)))
    with database.write() as session:
        item.metadata.create_all(session.connection())
        Index("by_state", item.c.state, item.c.line).create(session.connection())
        rows = [{"line": line, "state": "pending"} for line in range(num_lines)]
        session.execute(insert(item), rows)
    started = time.perf_counter()
    while True:
        with database.write() as session:
            done = claim.values(state="leased").returning(item.c.line)
            lines = session.execute(done).scalars().all()
        if not lines:
            break
        with database.write() as session:
            found = update(item).where(item.c.line.in_(lines))
            session.execute(found.values(state="completed"))
    rate = num_lines / (time.perf_counter() - started)
    database.close()
    return rate


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    run_command(main)
