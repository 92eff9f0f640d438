"""A PostgreSQL of one's own: on a free port, in a temporary folder, gone afterwards."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from sqlalchemy import create_engine, text

from cli.server_process import free_port
from core.errors import MissingAssetError

INSTALLED_AT = Path("/usr/lib/postgresql")


@contextmanager
def postgres_cluster() -> Iterator[str]:
    """Run a cluster.

    Yields:
        What a database URL begins with, without the name of the database.
    """
    initdb, as_user = _find_initdb(), []
    # a socket's path must be short, which the usual folders for temporary files need not be
    folder = Path(tempfile.mkdtemp(prefix="fewstroke-pg-"))
    if os.getuid() == 0:  # PostgreSQL refuses to run as root
        user = _unprivileged_user()
        os.chown(folder, user.pw_uid, user.pw_gid)
        as_user = ["runuser", "-u", user.pw_name, "--"]

    def run(program: str, *arguments: str) -> None:
        command = [*as_user, str(initdb.with_name(program)), *arguments]
        subprocess.run(command, check=True, capture_output=True, cwd=folder)  # noqa: S603

    data, log, port = str(folder / "data"), str(folder / "log"), free_port(0)
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c max_connections=200"
    run("initdb", "-D", data, "-A", "trust", "-U", "fewstroke", "--no-sync", "-E", "UTF8")
    run("pg_ctl", "-D", data, "-o", options, "-w", "-l", log, "start")
    try:
        yield f"postgresql://fewstroke@127.0.0.1:{port}"
    finally:
        run("pg_ctl", "-D", data, "-m", "immediate", "stop")
        shutil.rmtree(folder)


def new_database(cluster: str) -> str:
    """Make an empty database.

    Args:
        cluster: What `postgres_cluster` yields.

    Returns:
        Its URL.
    """
    name = f"fewstroke_{uuid4().hex}"
    engine = create_engine(
        f"{cluster.replace('postgresql', 'postgresql+psycopg')}/postgres",
        isolation_level="AUTOCOMMIT",
    )
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return f"{cluster}/{name}"


def _find_initdb() -> Path:
    on_path = shutil.which("initdb")
    installed = sorted(INSTALLED_AT.glob("*/bin/initdb"))
    if on_path is None and not installed:
        raise MissingAssetError(
            "PostgreSQL's server programs are not installed: apt-get install postgresql"
        )
    return Path(on_path) if on_path else installed[-1]


def _unprivileged_user() -> pwd.struct_passwd:
    found = [user for user in pwd.getpwall() if user.pw_name in {"postgres", "nobody"}]
    if not found or shutil.which("runuser") is None:
        raise MissingAssetError(
            "PostgreSQL does not run as root, and there is no user `postgres` to run it as."
        )
    return found[-1]
