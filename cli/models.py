"""`fewstroke models`: give a running service new weights, or the earlier ones back."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from core.errors import ConfigError

app = typer.Typer(
    help="New weights for a running service: publish, activate, roll back.", no_args_is_help=True
)

REFRESH_TIMEOUT_S = 1800.0
"""Loading and trying out a large model takes minutes."""

_PUBLISH = """[bold]Examples[/bold]

[cyan]fewstroke models publish runs/student --variant student-4[/cyan]

[cyan]fewstroke models publish runs/teacher-2 --as emoji-scenes[/cyan]
"""

_LIST = """[bold]Examples[/bold]

[cyan]fewstroke models list[/cyan]
"""

_ACTIVATE = """[bold]Examples[/bold]

[cyan]FEWSTROKE_API_KEY=fs-... fewstroke models activate student-4-0123456789ab[/cyan]

[cyan]fewstroke models activate student-4-0123456789ab --server https://images.example.org[/cyan]
"""

_ROLLBACK = """[bold]Examples[/bold]

[cyan]FEWSTROKE_API_KEY=fs-... fewstroke models rollback student-4[/cyan]
"""

Server = Annotated[str, typer.Option(help="Where the service is reached.")]
Key = Annotated[
    str | None,
    typer.Option(
        envvar="FEWSTROKE_API_KEY", help="Key of an operator.", show_default=False, metavar="KEY"
    ),
]


@app.command(epilog=_PUBLISH)
def publish(
    path: Annotated[Path, typer.Argument(help="A checkpoint folder.")],
    *,
    variant: Annotated[
        str | None, typer.Option(help="Which of its variants.", show_default="its default")
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--as", help="Model it is a release of.", show_default="the folder's name"),
    ] = None,
) -> None:
    """Check a checkpoint and copy it to where servers on this machine find it.

    Prints the release's name, which says what it holds: the same files give the same name.
    """
    from app.settings import read_settings
    from app.weights.releases import ReleaseShelf

    shelf = ReleaseShelf(read_settings().releases_folder)
    typer.echo(shelf.publish(path, variant=variant, model=name))


@app.command(name="list", epilog=_LIST)
def list_releases() -> None:
    """List the releases on this machine, the oldest first."""
    from rich.console import Console
    from rich.table import Table

    from app.settings import read_settings
    from app.weights.releases import ReleaseShelf

    shelf = ReleaseShelf(read_settings().releases_folder)
    active = set(shelf.active().values())
    table = Table("release", "model", "variant", "revision", "active")
    for release in shelf.listed():
        mark = "yes" if release.name in active else ""
        table.add_row(release.name, release.model, release.variant, release.revision, mark)
    Console().print(table)


@app.command(epilog=_ACTIVATE)
def activate(
    release: Annotated[str, typer.Argument(help="The release's name.")],
    *,
    server: Server = "http://127.0.0.1:8000",
    api_key: Key = None,
) -> None:
    """Let a running service check a release, try it on a few pictures, and serve it.

    If anything is wrong with it, what was served before is served on.
    """
    _show(_post(server, "activate", {"release": release}, api_key))


@app.command(epilog=_ROLLBACK)
def rollback(
    variant: Annotated[str, typer.Argument(help="The variant.")],
    *,
    server: Server = "http://127.0.0.1:8000",
    api_key: Key = None,
) -> None:
    """Let a running service serve again what a variant was before its last change."""
    _show(_post(server, "rollback", {"variant": variant}, api_key))


def _post(server: str, action: str, body: Mapping[str, str], api_key: str | None) -> dict[str, Any]:
    import httpx2

    url = f"{server.rstrip('/')}/admin/models/{action}"
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        answer = httpx2.post(url, json=dict(body), headers=headers, timeout=REFRESH_TIMEOUT_S)
        content = answer.json()
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
        raise ConfigError(f"{url} did not answer as a service does: {error}.") from error
    if answer.status_code != httpx2.codes.OK:
        raise ConfigError(f"The service refused: {content['error']['message']}")
    return dict(content)


def _show(deployment: Mapping[str, Any]) -> None:
    for variant, served in deployment["served"].items():
        typer.echo(f"{variant}: {served['revision']} ({served['release'] or 'settings'})")
