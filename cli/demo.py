"""`fewstroke demo`: from nothing to a first picture over HTTP, in one command."""

import base64
import signal
import sys
import time
from os.path import relpath
from pathlib import Path
from shutil import which
from types import FrameType
from typing import Annotated

import typer

from cli.server_process import ServerProcess, running_server

PROMPT = "a red apple left of a blue cat, watercolor"
READY_WITHIN_S = 600.0

EPILOG = """[bold]Examples[/bold]

[cyan]fewstroke demo[/cyan]   serve until Ctrl-C

[cyan]fewstroke demo --once --port 0[/cyan]   end after the picture, on any free port

[cyan]fewstroke demo --model ~/models/PixArt-XL-2-512x512[/cyan]   another model
"""


def demo(
    *,
    once: Annotated[bool, typer.Option("--once", help="End after the first picture.")] = False,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port on loopback; 0 takes a free one.")
    ] = 8000,
    output: Annotated[Path, typer.Option("-o", "--output", help="Where the picture goes.")] = Path(
        "outputs/first-image.png"
    ),
    prompt: Annotated[str, typer.Option(help="What to paint.")] = PROMPT,
    model: Annotated[
        str | None,
        typer.Option(help="Diffusers folder or hub name.", show_default="the shipped one"),
    ] = None,
) -> None:
    """Start a server, ask it for one picture through the openai client, and keep serving."""
    from rich.console import Console

    console = Console(soft_wrap=True, highlight=False)
    signal.signal(signal.SIGTERM, _stop_as_by_ctrl_c)
    output.parent.mkdir(parents=True, exist_ok=True)
    log_file = output.parent / "server.log"
    with running_server(
        port=port, log_file=log_file, model=model, further_variants="all"
    ) as server:
        started = time.perf_counter()
        console.print("Starting a server: it loads the model and paints one picture to warm up.")
        with console.status("Waiting for it ..."):
            server.wait_until_ready(READY_WITHIN_S)
        console.print(f"Ready after {time.perf_counter() - started:.1f} s: {server.base_url}")
        started = time.perf_counter()
        with console.status(f'Asking for "{prompt}" ...'):
            seed = ask(server, prompt, output)
        seconds = time.perf_counter() - started
        console.print(f"Painted [bold]{output.resolve()}[/bold] in {seconds:.1f} s, seed {seed}.")
        if once:
            console.print(f"Ending the server; `make run` keeps it.{_without_server(prompt)}")
            return
        console.print(_how_to_go_on(server.base_url, prompt))
        console.print(f"Serving until Ctrl-C. Log: {log_file.resolve()}")
        try:
            server.process.wait()
        except KeyboardInterrupt:
            console.print("Stopping.")


def ask(server: ServerProcess, prompt: str, output: Path) -> int:
    """Ask a server for one picture as any OpenAI client would.

    Args:
        server: Where to ask.
        prompt: What to paint.
        output: Where the PNG goes.

    Returns:
        The seed that the server drew.
    """
    from openai import OpenAI

    client = OpenAI(base_url=server.base_url, api_key="none-needed", timeout=READY_WITHIN_S)
    answer = client.images.generate(prompt=prompt)
    image = (answer.data or [])[0]
    output.write_bytes(base64.b64decode(image.b64_json or ""))
    return int((image.model_extra or {})["seed"])


def _how_to_go_on(base_url: str, prompt: str) -> str:
    studio = f"{base_url.removesuffix('/v1')}/studio"
    return f"""
In a browser, with regions to move and variants to compare:

  {studio}

From a shell:

  curl {base_url}/images/generations -H 'content-type: application/json' \\
    -d '{{"prompt": "{prompt}", "n": 4, "seed": 7}}'

From Python:

  from openai import OpenAI
  client = OpenAI(base_url="{base_url}", api_key="none-needed")
  answer = client.images.generate(prompt="{prompt}", n=4, extra_body={{"seed": 7}})
{_without_server(prompt)}"""


def _without_server(prompt: str) -> str:
    beside = Path(sys.executable).with_name("fewstroke")
    command = "fewstroke" if which("fewstroke") or not beside.exists() else relpath(beside)
    return f"""
Without a server:

  {command} generate "{prompt}" -o picture.png
"""


def _stop_as_by_ctrl_c(_signal: int, _frame: FrameType | None) -> None:
    # a parent that dies at once would leave its server behind
    raise KeyboardInterrupt
