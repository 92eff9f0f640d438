"""The database: one object, two ways in (`read`, `write`), and migrations before anything else.

Calls block. SQLite is a library that blocks, and its asyncio drivers are a thread behind a queue;
so routes are plain functions that FastAPI runs in threads, workers call through
`asyncio.to_thread`, and the same code serves the command line and Alembic.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.util.exc import CommandError
from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import Double

from core.errors import CapacityError, ConfigError

BUSY_TIMEOUT_MS = 30_000
"""How long a connection to SQLite waits for another process's transaction to end."""

SILENT_TRANSACTION_MS = 15_000
"""How long PostgreSQL keeps the locks of a process that fell silent in a transaction."""

SQLITE_PRAGMAS = (
    f"busy_timeout={BUSY_TIMEOUT_MS}",  # first: the next ones may have to wait
    "journal_mode=WAL",  # readers and the writer do not wait for each other
    "synchronous=FULL",  # what was committed survives a power cut, not only a crash
    "foreign_keys=ON",
    "journal_size_limit=67108864",
)

_MIGRATION_LOCK = 0x6665_7773  # any number, as long as all servers use the same


class DatabaseUnavailableError(CapacityError):
    """The database cannot be reached, or cannot write: its disk is full or read-only."""

    code = "database_unavailable"


class Database:
    """A pool of connections to SQLite or PostgreSQL, its schema brought up to date.

    Args:
        url: `sqlite:///file` or `postgresql://user:password@host/name`. ConfigError says what is
            wrong with it, or with what it names.
    """

    def __init__(self, url: str) -> None:
        self.engine = _open_engine(url, SQLITE_PRAGMAS)
        # SQLite fixes this for a connection, PostgreSQL for a transaction
        self._hasty_engine = (
            _open_engine(url, (*SQLITE_PRAGMAS, "synchronous=NORMAL"))
            if self.is_sqlite
            else self.engine
        )

    @property
    def is_sqlite(self) -> bool:
        """Whether this is SQLite, where one transaction writes at a time."""
        return self.engine.dialect.name == "sqlite"

    @contextmanager
    def read(self) -> Iterator[Session]:
        """Open a transaction that sees one state of the database and changes nothing.

        Yields:
            A session. Where the database fails, here and in `write`, DatabaseUnavailableError
            is raised.
        """
        with _told_plainly(), self.engine.connect() as connection:
            connection.execution_options(writes=False)
            with connection.begin(), Session(connection) as session:
                yield session

    @contextmanager
    def write(self, *, is_durable: bool = True) -> Iterator[Session]:
        """Open a transaction that is committed when the block ends, or rolled back if it raises.

        SQLite is locked for other writers from the start, so that nothing read in the block can
        change before it ends; PostgreSQL locks what is read `with_for_update`.

        Args:
            is_durable: Whether a power cut must not undo it. What only says who works on what
                may be undone, and need not wait for the disk; it is never undone alone.

        Yields:
            A session.
        """
        engine = self.engine if is_durable else self._hasty_engine
        with (
            _told_plainly(),
            engine.connect() as connection,
            connection.begin(),
            Session(connection) as session,
        ):
            if not is_durable and not self.is_sqlite:
                session.execute(text("SET LOCAL synchronous_commit TO off"))
            yield session
            session.flush()

    def migrate(self) -> None:
        """Bring the schema up to date; processes that start together do this one by one.

        Raises:
            ConfigError: If the database was written by a newer version.
        """
        with self.write() as session:
            connection = session.connection()
            if not self.is_sqlite:
                connection.execute(text(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})"))
            try:
                command.upgrade(migration_config(connection), "head")
            except CommandError as error:
                raise ConfigError(
                    f"The database is not one of this version: {error}. Start the version that "
                    "wrote it, or name another database.",
                    param="database_url",
                ) from error

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()
        self._hasty_engine.dispose()


class now_s(FunctionElement[float]):  # noqa: N801  (reads as the SQL function that it is)
    """The database's own clock in Unix seconds, so that clocks of workers need not agree."""

    type = Double()
    inherit_cache = True
    name = "now_s"


@compiles(now_s, "sqlite")
def _now_in_sqlite(_element: now_s, _compiler: SQLCompiler, **_options: Any) -> str:  # noqa: ANN401
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(now_s, "postgresql")
def _now_in_postgresql(
    _element: now_s,
    _compiler: SQLCompiler,
    **_options: Any,  # noqa: ANN401
) -> str:
    return "CAST(extract(epoch FROM clock_timestamp()) AS double precision)"


def migration_config(connection: Connection) -> Config:
    """Return what Alembic needs to work on an open connection.

    Args:
        connection: Inside a transaction.

    Returns:
        Its configuration; there is no alembic.ini.
    """
    config = Config()
    # options are %-formatted, and folders may hold a percent sign
    folder = str(Path(__file__).with_name("migrations"))
    config.set_main_option("script_location", folder.replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def _open_engine(url: str, pragmas: tuple[str, ...]) -> Engine:
    try:
        parsed = make_url(url)
        if parsed.drivername in {"postgres", "postgresql"}:
            parsed = parsed.set(drivername="postgresql+psycopg")
        if parsed.get_backend_name() not in {"sqlite", "postgresql"}:
            raise ConfigError(
                f"The database {parsed.drivername!r} is not known: give sqlite:///file or "
                "postgresql://user:password@host/name.",
                param="database_url",
            )
        engine = create_engine(parsed, pool_size=8, max_overflow=24, pool_pre_ping=True)
    except ArgumentError as error:
        raise ConfigError(
            f"The database URL cannot be read: {error}. Give sqlite:///file or "
            "postgresql://user:password@host/name.",
            param="database_url",
        ) from error
    except ModuleNotFoundError as error:
        raise ConfigError(
            "PostgreSQL needs its driver: pip install 'fewstroke[postgres]'.", param="database_url"
        ) from error
    if engine.dialect.name == "sqlite":
        _set_up_sqlite(engine, pragmas)
    else:
        _set_up_postgres(engine)
    return engine


def _set_up_sqlite(engine: Engine, pragmas: tuple[str, ...]) -> None:
    if engine.url.database:
        try:
            Path(engine.url.database).expanduser().parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"Cannot make the folder of the database {engine.url.database}: {error.strerror}. "
                "Set FEWSTROKE_DATA_DIR to a folder that can be written.",
                param="data_dir",
            ) from error

    @event.listens_for(engine, "connect")
    def set_pragmas(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
        connection.isolation_level = None  # the driver begins no transactions of its own
        cursor = connection.cursor()
        for pragma in pragmas:
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("writes", True)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _set_up_postgres(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def limit_silence(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
        cursor = connection.cursor()
        cursor.execute(f"SET idle_in_transaction_session_timeout = {SILENT_TRANSACTION_MS}")
        cursor.close()
        connection.commit()


@contextmanager
def _told_plainly() -> Iterator[None]:
    # a full disk, a read-only file, a lost connection: no bug of ours, and it may pass
    try:
        yield
    except DBAPIError as error:
        is_away = isinstance(error, OperationalError | InterfaceError)
        if not is_away and not error.connection_invalidated:
            raise
        raise DatabaseUnavailableError(
            f"The database cannot be used now: {_first_line(error)}.", retry_after_s=5.0
        ) from error


def _first_line(error: DBAPIError) -> str:
    lines = str(error.orig).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error.orig).__name__
