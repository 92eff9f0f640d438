"""What one writes first: FastAPI around a plain diffusers pipeline.

    python -m benchmarks.peers.pipeline_server --model checkpoints/emoji-scenes --port 8001

It answers the same request with the same pictures as ours: `POST /v1/images/generations` with
prompt, seed, steps, guidance. Requests go one by one under a lock (`--design lock`), or each in a
thread with a pipeline of its own around the shared networks, as diffusers' example of a server does
(`--design threads`).
"""

import base64
from contextlib import AbstractContextManager, nullcontext
from enum import StrEnum
from io import BytesIO
from threading import Lock
from typing import Annotated, Any

import torch
import typer
import uvicorn
from diffusers import DiffusionPipeline, DPMSolverMultistepScheduler
from fastapi import FastAPI
from pydantic import BaseModel


class Design(StrEnum):
    """How requests share the networks."""

    LOCK = "lock"
    THREADS = "threads"


class Asked(BaseModel):
    """What a client sends."""

    prompt: str
    seed: int = 0
    steps: int = 20
    guidance: float = 4.0


def main(
    *,
    model: Annotated[str, typer.Option(help="Diffusers folder.")],
    port: Annotated[int, typer.Option(help="Where to listen, on loopback.")],
    design: Annotated[Design, typer.Option(help="How requests share the networks.")] = Design.LOCK,
) -> None:
    """Serve a checkpoint's default transformer until told to stop."""
    shared: Any = DiffusionPipeline.from_pretrained(model)
    # a pipeline's scheduler holds one request's state
    turn: AbstractContextManager[Any] = Lock() if design is Design.LOCK else nullcontext()
    app = FastAPI()

    @app.get("/readyz")
    def readyz() -> dict[str, str]:
        return {"status": "ready"}

    @app.post("/v1/images/generations")
    def generate(asked: Asked) -> dict[str, list[dict[str, str]]]:
        with turn:
            scheduler = DPMSolverMultistepScheduler.from_config(shared.scheduler.config)
            pipe = type(shared)(**(shared.components | {"scheduler": scheduler}))
            pipe.set_progress_bar_config(disable=True)
            image = pipe(
                asked.prompt,
                num_inference_steps=asked.steps,
                guidance_scale=asked.guidance,
                generator=torch.Generator().manual_seed(asked.seed),
                use_resolution_binning=False,
                clean_caption=False,
            ).images[0]
        file = BytesIO()
        image.save(file, "PNG")
        return {"data": [{"b64_json": base64.b64encode(file.getvalue()).decode("ascii")}]}

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


if __name__ == "__main__":
    typer.run(main)
