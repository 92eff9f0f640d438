"""Everybody who paints in `bench_backends`: ours, diffusers, and others in their own processes."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from benchmarks.painted import Paint, Painted
from benchmarks.peer_process import (
    ANY_DEVICE_PEERS,
    CPU_ONLY_PEERS,
    CUDA_ONLY_PEERS,
    PROCESS_PEERS,
    PeerProcess,
)
from benchmarks.peers.stock_pipeline import load_stock, paint_stock
from core.devices import peak_bytes, resident_bytes
from core.errors import UnknownNameError, UnsupportedError
from pipelines.accelerate.choose import AUTO, BACKENDS
from pipelines.noise_schedule import SCHEDULERS
from pipelines.spec import GenerationSpec
from pipelines.store import open_checkpoint
from pipelines.text_to_image import TextToImage

TEACHER = "diffusers_teacher50"
STOCK = ("diffusers_fp32", "diffusers_bf16", "diffusers_compiled", TEACHER)
PEERS = (*STOCK, *PROCESS_PEERS)
LEAN = "ours_lean"
OURS = {
    "ours": AUTO,
    LEAN: "openvino-lean",
    **{f"ours_{name.replace('-', '_')}": name for name in BACKENDS},
}
ON_CPU = (*OURS, *STOCK, *CPU_ONLY_PEERS, *ANY_DEVICE_PEERS)
ON_CUDA = (
    *("ours", "ours_torch", "ours_torch_compiled"),
    *(*STOCK, *ANY_DEVICE_PEERS, *CUDA_ONLY_PEERS),
)
MEGABYTE = 1e6


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """What is measured.

    Attributes:
        model: Checkpoint folder.
        variant: The variant that ours paint with; None for the folder's default.
        peers_variant: The float variant that peers paint with.
        teacher: The variant that takes 50 guided steps.
        cache_dir: Where compiled networks are kept.
        device: Where everybody paints: "cpu" or "cuda".
        lean_variant: The smallest variant, which `ours_lean` paints with, weights packed.
    """

    model: str
    variant: str | None
    peers_variant: str | None
    teacher: str | None
    cache_dir: str
    device: str = "cpu"
    lean_variant: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Painter:
    """Somebody who paints.

    Attributes:
        paint: Paints one picture.
        weights_mb: Size of the transformer's weights; None where it is not known.
    """

    paint: Paint
    weights_mb: float | None


@contextmanager
def painters(subject: Subject, who: Sequence[str]) -> Iterator[Mapping[str, Painter]]:
    """Load everybody who can be measured here.

    Args:
        subject: What is measured.
        who: Names.

    Yields:
        Painters by name; who cannot be loaded is left out, and said. Processes end afterwards.

    Raises:
        UnknownNameError: If nobody has one of the names.
    """
    for name in who:
        if name not in OURS and name not in PEERS:
            raise UnknownNameError("painter", name, (*OURS, *PEERS), param="who")
    found = {}
    with ExitStack() as stack:
        for name in who:
            try:
                found[name] = _load(name, subject, stack)
            except Exception as error:  # noqa: BLE001  (a missing peer must not end the run)
                print(f"{name} is not measured: {error}")
        yield found


def _load(name: str, subject: Subject, stack: ExitStack) -> Painter:
    if name in OURS:
        variant = subject.lean_variant if name == LEAN else subject.variant
        return _ours(subject, OURS[name], variant)
    if name in PROCESS_PEERS:
        threads = torch.get_num_threads()
        peer = PeerProcess(name, subject.model, subject.peers_variant, threads, subject.device)
        stack.callback(peer.close)
        return Painter(paint=peer.paint, weights_mb=peer.weights_mb)
    return _stock(subject, name)


def _ours(subject: Subject, backend: str, variant: str | None) -> Painter:
    painter = TextToImage.load(
        subject.model,
        variant=variant,
        device=subject.device,
        backend=backend,
        cache_dir=subject.cache_dir,
    )
    execution = painter.networks.execution
    if backend not in {AUTO, execution.backend}:
        raise UnsupportedError(f"{backend} takes no {variant}")
    solver = painter.info.default_scheduler

    def painted(spec: GenerationSpec) -> np.ndarray[Any, Any]:
        return np.asarray(painter.generate([replace(spec, scheduler=solver)])[0].image)

    paint = _timed(painted, subject.device)
    return Painter(paint=paint, weights_mb=file_mb(subject.model, variant))


def _stock(subject: Subject, name: str) -> Painter:
    variant = subject.teacher if name == TEACHER else subject.peers_variant
    checkpoint = open_checkpoint(subject.model, variant=variant)
    dtype = torch.bfloat16 if name == "diffusers_bf16" else torch.float32
    order = SCHEDULERS.get(checkpoint.info.default_scheduler)
    pipe = load_stock(subject.model, str(checkpoint.transformer), order, dtype, subject.device)
    if name == "diffusers_compiled":
        pipe.transformer = torch.compile(pipe.transformer)

    def paint(spec: GenerationSpec) -> np.ndarray[Any, Any]:
        is_teacher = name == TEACHER
        asked = replace(spec, num_steps=50, guidance_scale=4.0) if is_teacher else spec
        return paint_stock(pipe, asdict(asked))

    share = 0.5 if dtype == torch.bfloat16 else 1.0
    weights_mb = share * file_mb(subject.model, variant)
    return Painter(paint=_timed(paint, subject.device), weights_mb=weights_mb)


def _timed(paint: Callable[[GenerationSpec], np.ndarray[Any, Any]], device: str) -> Paint:
    def painted(spec: GenerationSpec) -> Painted:
        started = time.perf_counter()
        pixels = paint(spec)
        seconds = time.perf_counter() - started
        held = resident_bytes() if device == "cpu" else torch.cuda.max_memory_reserved(device)
        return Painted(
            seconds=seconds,
            pixels=pixels,
            resident_mb=held / MEGABYTE,
            peak_mb=peak_bytes() / MEGABYTE,
        )

    return painted


def file_mb(model: str, variant: str | None) -> float:
    """Return the size of a transformer's weights as stored, in 10^6 bytes.

    Args:
        model: Checkpoint folder.
        variant: Which variant of it; None for the default.
    """
    folder = open_checkpoint(model, variant=variant).transformer
    return sum(file.stat().st_size for file in folder.glob("*.safetensors")) / MEGABYTE
