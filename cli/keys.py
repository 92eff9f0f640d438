"""`fewstroke keys`: who may ask the service, and how much."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from app.access.auth import KeyRing
    from app.storage.tables import ApiKey

app = typer.Typer(
    help="API keys of the service, in its database: create, list, revoke.", no_args_is_help=True
)

_CREATE = """[bold]Examples[/bold]

[cyan]fewstroke keys create studio[/cyan]

[cyan]fewstroke keys create guest --per-minute 6 --units 500000 --window-s 86400 --days 30[/cyan]

[cyan]fewstroke keys create deploy --admin[/cyan]
"""

_LIST = """[bold]Examples[/bold]

[cyan]fewstroke keys list[/cyan]
"""

_REVOKE = """[bold]Examples[/bold]

[cyan]fewstroke keys revoke 4f1c2ab09d3e[/cyan]
"""


@app.command(epilog=_CREATE)
def create(
    name: Annotated[str, typer.Argument(help="What you call it: who uses it, or for what.")],
    *,
    admin: Annotated[
        bool, typer.Option("--admin", help="May change what is served, under /admin.")
    ] = False,
    per_minute: Annotated[
        int | None, typer.Option(min=1, help="Requests a minute.", show_default="any number")
    ] = None,
    units: Annotated[
        float | None,
        typer.Option(
            min=1,
            help="Cost units in a window: image tokens times steps of all pictures.",
            show_default="any number",
        ),
    ] = None,
    window_s: Annotated[
        int, typer.Option(min=1, help="Length of that window, in seconds.")
    ] = 86_400,
    max_priority: Annotated[
        int, typer.Option(min=-3, max=3, help="Highest priority that it may ask for.")
    ] = 0,
    days: Annotated[
        float | None, typer.Option(min=0, help="Days until it expires.", show_default="never")
    ] = None,
) -> None:
    """Create a key and print it, once: only its hash is kept.

    From the first key on the server asks for one; a running server does so after a restart.
    """
    from app.access.auth import KeyLimits

    limits = KeyLimits(
        is_admin=admin,
        requests_per_minute=per_minute,
        quota_units=units,
        quota_window_s=window_s,
        max_priority=max_priority,
        lifetime_s=None if days is None else days * 86_400,
    )
    typer.echo(_ring().create(name, limits))


@app.command(name="list", epilog=_LIST)
def list_keys() -> None:
    """List every key that was ever made; keys themselves are not kept and cannot be shown."""
    from rich.console import Console
    from rich.table import Column, Table

    table = Table(
        Column("id", overflow="fold"),  # whole on any screen: `revoke` takes it
        *("name", "state", "a minute", "units", "window s", "priority", "created"),
    )
    for key in _ring().listed():
        table.add_row(
            key.id,
            key.name,
            _state(key),
            "any" if key.requests_per_minute is None else str(key.requests_per_minute),
            "any" if key.quota_units is None else f"{key.quota_units:.0f}",
            str(key.quota_window_s) if key.quota_units is not None else "",
            str(key.max_priority),
            _day(key.created_at),
        )
    Console().print(table)


@app.command(epilog=_REVOKE)
def revoke(
    key: Annotated[str, typer.Argument(help="The id that the list shows, or the whole key.")],
) -> None:
    """Stop a key from working, at once and on every replica."""
    _ring().revoke(key)
    typer.echo("Revoked.")


def _ring() -> "KeyRing":
    from app.access.auth import KeyRing
    from app.settings import read_settings
    from app.storage.database import Database

    database = Database(read_settings().database_location)
    database.migrate()
    return KeyRing(database)


def _state(key: "ApiKey") -> str:
    if key.revoked_at is not None:
        return f"revoked {_day(key.revoked_at)}"
    role = "operator" if key.is_admin else "works"
    return role if key.expires_at is None else f"{role} until {_day(key.expires_at)}"


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")
