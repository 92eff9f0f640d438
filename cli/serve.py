"""`fewstroke serve`: the HTTP service."""

from collections.abc import Callable
from typing import Annotated

import typer

from core.large_imports import large_imports

EPILOG = """[bold]Examples[/bold]

[cyan]fewstroke serve[/cyan]

[cyan]fewstroke serve --model ~/models/PixArt-XL-2-512x512 --device cuda --dtype bfloat16[/cyan]

[cyan]fewstroke serve --port 9000 --log-format console[/cyan]

[cyan]fewstroke keys create studio && fewstroke serve --host 0.0.0.0[/cyan]

[cyan]FEWSTROKE_QUEUE_CAPACITY=8 FEWSTROKE_SERVE_VARIANTS=all fewstroke serve[/cyan]
"""


def serve(
    *,
    model: Annotated[
        str | None,
        typer.Option(help="Diffusers folder or hub name.", show_default="the shipped one"),
    ] = None,
    variant: Annotated[str | None, typer.Option(help="Variant of the model.")] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1, mps.", show_default="the fastest")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="float32 or bfloat16.", show_default="what suits the device")
    ] = None,
    backend: Annotated[
        str | None,
        typer.Option(
            help="auto, torch, torch-compiled, openvino, openvino-int8, openvino-lean.",
            show_default="auto",
        ),
    ] = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Port to listen on; 0 takes a free one.", show_default="8000")
    ] = None,
    allow_public: Annotated[
        bool, typer.Option("--allow-public", help="Permit a public host without any API key.")
    ] = False,
    log_format: Annotated[
        str | None, typer.Option(help="json or console.", show_default="json")
    ] = None,
    list_settings: Annotated[
        bool, typer.Option("--list-settings", help="Print every setting as a table and exit.")
    ] = False,
) -> None:
    """Serve OpenAI's image API.

    Every option is also an environment variable, and there are more of those:
    see --list-settings. Ctrl-C or SIGTERM finishes what was accepted, then stops.
    """
    if list_settings:
        from app.settings import settings_table

        typer.echo(settings_table())
        return

    _server()(
        model=model,
        variant=variant,
        device=device,
        dtype=dtype,
        backend=backend,
        host=host,
        port=port,
        allow_public=allow_public or None,
        log_format=log_format,
    )


def _server() -> Callable[..., None]:
    with large_imports():
        from app.main import serve as run_server
    return run_server
