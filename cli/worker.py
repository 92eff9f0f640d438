"""`fewstroke worker`: one more process that works on batches."""

from typing import Annotated

import typer

EPILOG = """[bold]Examples[/bold]

[cyan]fewstroke worker[/cyan]   beside a server on this machine

[cyan]FEWSTROKE_DATABASE_URL=postgresql://fewstroke@db/fewstroke FEWSTROKE_STORAGE=s3://pictures \
fewstroke worker --device cuda[/cyan]
"""


def worker(
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
    log_format: Annotated[
        str | None, typer.Option(help="json or console.", show_default="json")
    ] = None,
) -> None:
    """Work on batches without listening on a port.

    Needs the database and the storage of the server; settings are the same variables. Ctrl-C or
    SIGTERM gives unfinished lines back and stops.
    """
    from app.worker import work

    work(
        model=model,
        variant=variant,
        device=device,
        dtype=dtype,
        backend=backend,
        log_format=log_format,
    )
