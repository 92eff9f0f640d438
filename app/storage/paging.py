"""Lists in pages, newest first unless asked otherwise, each beginning after an object by its id."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy import ColumnElement, Select, and_, or_
from sqlalchemy.orm import Session

from app.errors import NotFoundError
from app.storage.tables import Batch, File

Row = TypeVar("Row", File, Batch)


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """Which part of a list, in OpenAI's words.

    Attributes:
        after: Id of the last object of the page before; None for the first page.
        limit: Most objects of a page.
        is_ascending: Whether the oldest come first.
    """

    after: str | None = None
    limit: int = 20
    is_ascending: bool = False


def take_page(
    session: Session, table: type[Row], query: Select[Row], page: Page, *, owner: str
) -> tuple[Sequence[Row], bool]:
    """Read one page of a list.

    Args:
        session: An open transaction.
        table: What is listed.
        query: All of it, in no order.
        page: Which part.
        owner: Who asks; the page may not begin after somebody else's object.

    Returns:
        The rows, and whether there are more behind them.

    Raises:
        NotFoundError: If the page is to begin after an object that is not there.
    """
    if page.after is not None:
        last = session.get(table, page.after)
        if last is None or last.owner != owner:
            raise NotFoundError(
                f"No such {table.__name__} object: {page.after[:80]}", param="after"
            )
        query = query.where(_is_behind(table, last, is_ascending=page.is_ascending))
    columns = (table.created_at, table.id)
    order = columns if page.is_ascending else tuple(column.desc() for column in columns)
    rows = session.scalars(query.order_by(*order).limit(page.limit + 1)).all()
    return rows[: page.limit], len(rows) > page.limit


def _is_behind(table: type[Row], last: Row, *, is_ascending: bool) -> ColumnElement[bool]:
    same_time = table.created_at == last.created_at
    if is_ascending:
        return or_(table.created_at > last.created_at, and_(same_time, table.id > last.id))
    return or_(table.created_at < last.created_at, and_(same_time, table.id < last.id))
