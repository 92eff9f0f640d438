"""Both databases, and all parts of a worker around them, without a server or a model."""

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from app.batches.batches import Batches, BatchOrder
from app.batches.jobs import JobRunner, JobTools, worker_name
from app.batches.leases import Leases
from app.batches.leftovers import Leftovers
from app.batches.lines import Call
from app.batches.stages import StageLimits, Stages
from app.batches.webhooks import WebhookOutbox, WebhookSender
from app.storage.blobs import BlobStore
from app.storage.database import Database
from app.storage.files import Files
from app.storage.tables import Batch, File

ENDPOINT = "/v1/images/generations"
OWNER = "anonymous"


@dataclass
class Lab:
    """One database and one storage, and as many workers as a test wants."""

    database: Database
    store: BlobStore
    files: Files
    batches: Batches
    calls: list[Call] = field(default_factory=list)

    def upload(self, *lines: bytes, owner: str = OWNER) -> File:
        content = b"".join(line + b"\n" for line in lines)
        return self.files.create(
            io.BytesIO(content), owner=owner, filename="in.jsonl", purpose="batch"
        )

    def submit(self, *lines: bytes, owner: str = OWNER, **order: Any) -> Batch:
        file = self.upload(*lines, owner=owner)
        given = {"endpoint": ENDPOINT} | order
        return self.batches.create(BatchOrder(input_file_id=file.id, **given), owner=owner)

    def leases(self, lease_s: float = 30.0) -> Leases:
        return Leases(self.database, worker=worker_name(), lease_s=lease_s)

    def stages(self, url: str | None = None, **changes: Any) -> Stages:
        limits = StageLimits(**({"max_lines": 50_000, "max_line_bytes": 1 << 20} | changes))
        return Stages(
            self.database,
            self.files,
            WebhookOutbox(url),
            worker=worker_name(),
            lease_s=30.0,
            limits=limits,
        )

    def run_stages(self) -> None:
        stages = self.stages()
        while stages.run_next():
            pass

    def accepted(self, *lines: bytes, **options: Any) -> Batch:
        batch = self.submit(*lines, **options)
        self.run_stages()
        return self.batches.get(batch.id, owner=batch.owner)

    def runner(
        self,
        answer: Callable[[Call], Any] | None = None,
        *,
        sender: WebhookSender | None = None,
        lease_s: float = 30.0,
        **options: Any,
    ) -> JobRunner:
        tools = JobTools(
            files=self.files,
            leases=self.leases(lease_s),
            stages=self.stages(),
            leftovers=Leftovers(self.database, self.store),
            sender=sender,
            answer=answer or self.answer,
        )
        return JobRunner(tools, **({"concurrency": 4, "max_tries": 10} | options))

    async def answer(self, call: Call) -> Mapping[str, Any]:
        self.calls.append(call)
        return {"data": [{"b64_json": "UE5H", "seed": call.body["seed"]}]}

    def output(self, batch: Batch, name: str = "output") -> list[dict[str, Any]]:
        file_id = batch.output_file_id if name == "output" else batch.error_file_id
        if file_id is None:
            return []
        content = b"".join(self.files.chunks(self.files.get(file_id, owner=batch.owner)))
        return [json.loads(line) for line in content.splitlines()]


@pytest.fixture
def lab(database: Database, tmp_path: Path) -> Lab:
    return make_lab(database, str(tmp_path / "store"))


def make_lab(database: Database, storage: str) -> Lab:
    """A lab whose files lie in a folder, or wherever a URL says."""
    store = BlobStore(storage)
    files = Files(database, store, max_bytes=1 << 20)
    return Lab(database=database, store=store, files=files, batches=Batches(database))


def line(custom_id: str, url: str = ENDPOINT, method: str = "POST", **body: Any) -> bytes:
    """One line of an input file."""
    content = {"custom_id": custom_id, "method": method, "url": url}
    return json.dumps(content | {"body": {"prompt": "a red apple"} | body}).encode()


def lines(count: int) -> list[bytes]:
    """Good lines."""
    return [line(f"line-{k}") for k in range(count)]
