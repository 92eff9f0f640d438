"""Batches as their owners see them: created, listed, cancelled. What workers do is in `jobs.py`."""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import uuid4

from sqlalchemy import select

from app.errors import NotFoundError
from app.storage.database import Database
from app.storage.files import ENDED, is_there
from app.storage.paging import Page, take_page
from app.storage.tables import Batch, File
from core.errors import InputError

ENDPOINTS = ("/v1/images/generations", "/v1/plans")
INPUT_PURPOSE = "batch"
OUTPUT_PURPOSE = "batch_output"

_WINDOW = re.compile(r"([1-9][0-9]{0,6})([smhd])")
_SECONDS_OF = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
MAX_WINDOW_S = 30 * 86_400


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchOrder:
    """What a batch is asked for with.

    Attributes:
        input_file_id: The file whose lines are its requests.
        endpoint: What all of them are requests to.
        completion_window: How long it may take: a number and s, m, h or d ("24h").
        metadata: Words of the caller, kept and shown.
        results: How pictures are delivered: "b64_json" or "file_id".
        output_expires_after_s: Seconds after which its files are deleted; None keeps them.
        webhook_url: Who is told when it has ended; None for the server's own address, if any.
    """

    input_file_id: str
    endpoint: str
    completion_window: str = "24h"
    metadata: Mapping[str, str] = field(default_factory=dict)
    results: str = "b64_json"
    output_expires_after_s: int | None = None
    webhook_url: str | None = None


class Batches:
    """Every batch; nobody sees those of another owner.

    Args:
        database: Where the rows are.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._listeners: list[Callable[[], None]] = []

    def listen(self, wake: Callable[[], None]) -> None:
        """Tell somebody in this process whenever there is something new to do.

        Args:
            wake: Called from any thread.
        """
        self._listeners.append(wake)

    def create(self, order: BatchOrder, *, owner: str) -> Batch:
        """Take a batch in; it stands in the database when this returns.

        Its lines are checked by a worker afterwards, as OpenAI does; what is wrong with them
        stands in `errors` then.

        Args:
            order: What is asked for.
            owner: Whose it is.

        Returns:
            Its row.

        Raises:
            NotFoundError: If this owner has no such input file.
            InputError: If the file is for something else, or another value does not fit.
        """
        window_s = window_in_seconds(order.completion_window)
        if order.endpoint not in ENDPOINTS:
            raise InputError(
                f"Batches cannot call {order.endpoint[:80]!r}. Known: {', '.join(ENDPOINTS)}.",
                param="endpoint",
            )
        now = time.time()
        batch = Batch(
            id=f"batch_{uuid4().hex}",
            owner=owner,
            endpoint=order.endpoint,
            input_file_id=order.input_file_id,
            completion_window=order.completion_window,
            results=order.results,
            details=dict(order.metadata) or None,
            output_expires_after_s=order.output_expires_after_s,
            webhook_url=order.webhook_url,
            status="validating",
            created_at=now,
            expires_at=now + window_s,
        )
        with self._database.write() as session:
            file = session.scalar(
                select(File)
                .where(File.id == order.input_file_id, File.owner == owner, is_there())
                .with_for_update()  # so that its bytes are not swept between here and the commit
            )
            if file is None:
                raise NotFoundError(
                    f"No such File object: {order.input_file_id[:80]}", param="input_file_id"
                )
            if file.purpose != INPUT_PURPOSE:
                raise InputError(
                    f"The file has purpose {file.purpose!r}; upload it with {INPUT_PURPOSE!r}.",
                    param="input_file_id",
                )
            session.add(batch)
        self._tell()
        return batch

    def get(self, batch_id: str, *, owner: str) -> Batch:
        """Return the row of a batch.

        Args:
            batch_id: Its id.
            owner: Who asks.

        Raises:
            NotFoundError: If this owner has no such batch.
        """
        with self._database.read() as session:
            batch = session.scalar(select(Batch).where(Batch.id == batch_id, Batch.owner == owner))
        if batch is None:
            raise NotFoundError(f"No such Batch object: {batch_id[:80]}", param="id")
        return batch

    def page(self, page: Page, *, owner: str) -> tuple[Sequence[Batch], bool]:
        """Return batches of an owner, and whether there are more.

        Args:
            page: Which of them. NotFoundError is raised where it begins after no batch of theirs.
            owner: Whose.
        """
        with self._database.read() as session:
            query = select(Batch).where(Batch.owner == owner)
            return take_page(session, Batch, query, page, owner=owner)

    def cancel(self, batch_id: str, *, owner: str) -> Batch:
        """Stop a batch: nothing more is begun, and what was finished is delivered.

        Args:
            batch_id: Its id.
            owner: Who asks.

        Returns:
            Its row; asking again changes nothing.

        Raises:
            NotFoundError: If this owner has no such batch.
            InputError: If it has ended, or is being ended.
        """
        with self._database.write() as session:
            batch = session.scalar(
                select(Batch).where(Batch.id == batch_id, Batch.owner == owner).with_for_update()
            )
            if batch is None:
                raise NotFoundError(f"No such Batch object: {batch_id[:80]}", param="id")
            if batch.status in {*ENDED, "finalizing"} - {"cancelled"}:
                raise InputError(f"Cannot cancel a batch with status {batch.status!r}.", param="id")
            if batch.status not in {"cancelling", "cancelled"}:
                batch.status = "cancelling"
                batch.cancelling_at = time.time()
                # whoever was validating it finds its name gone, and stops
                batch.lease_token = batch.lease_expires_at = None
        self._tell()
        return batch

    def _tell(self) -> None:
        for wake in self._listeners:
            wake()


def window_in_seconds(window: str) -> int:
    """Read a completion window.

    Args:
        window: A number and a unit, such as "24h".

    Returns:
        Seconds.

    Raises:
        InputError: If it is none, or longer than thirty days.
    """
    found = _WINDOW.fullmatch(window)
    seconds = int(found[1]) * _SECONDS_OF[found[2]] if found else 0
    if not 0 < seconds <= MAX_WINDOW_S:
        raise InputError(
            f"{window[:40]!r} is no completion window: give 24h, or another number of s, m, h "
            "or d, up to 30d.",
            param="completion_window",
        )
    return seconds
