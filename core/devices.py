"""What this machine computes on: device, precision, threads, memory, and its name in a record."""

import os
import platform
import resource
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Literal, cast, get_args

import psutil
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from core.errors import ConfigError, InputError, UnknownNameError, UnsupportedError

Precision = Literal["bf16", "no"]
"""As accelerate names them."""


def best_device() -> torch.device:
    """Return the fastest device that is there: CUDA, then Apple's MPS, then the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def usable_device(name: str | None) -> torch.device:
    """Return a device by its name, after something was put on it.

    Args:
        name: "cpu", "cuda", "cuda:1", "mps"; None takes the fastest that is there.

    Raises:
        ConfigError: If it is not here, or is no device.
    """
    if name is None:
        return best_device()
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"Device {name!r} cannot be used here ({reason}): try 'cpu'.", param="device"
        ) from error
    return device


def multiplies_bfloat16(device: torch.device) -> bool:
    """Return whether a device computes products of bfloat16 in hardware.

    Processors without such instructions (AVX2 and older) are slower in bfloat16 than in float32 by
    a factor of 70, measured on AMD's Zen 3.

    Args:
        device: Where networks are to run.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    return any(has and "bf16" in name for name, has in torch.cpu.get_capabilities().items())


def has_byte_units() -> bool:
    """Return whether this processor multiplies bytes in units that sum up in 32 bits."""
    has = torch.cpu.get_capabilities()
    if has.get("architecture") != "x86_64":
        return True
    return any(has.get(name) for name in ("avx512_vnni", "avx_vnni", "amx_int8"))


def byte_product_bits() -> int:
    """Return how many bits a signed factor of a byte product may have on this processor: 8 or 7.

    x86 without VNNI adds pairs of such products in 16 bits, where two large ones overflow in
    silence: 255 * 127 * 2 does not fit, 255 * 64 * 2 does.
    """
    return 8 if has_byte_units() else 7


def training_precision(asked: str, device: torch.device) -> Precision:
    """Return the precision of matrix products and convolutions in training.

    Args:
        asked: "bf16", "no" (float32), or "auto" for bf16 where the device multiplies it.
        device: Where training runs.

    Raises:
        UnknownNameError: If the precision has another name.
        UnsupportedError: If bf16 is asked of a GPU that has none.
    """
    if asked == "auto":
        return "bf16" if multiplies_bfloat16(device) else "no"
    if asked not in get_args(Precision):
        known = ("auto", *get_args(Precision))
        raise UnknownNameError("precision", asked, known, param="precision")
    if asked == "bf16" and device.type == "cuda" and not multiplies_bfloat16(device):
        name = torch.cuda.get_device_name(device)
        raise UnsupportedError(f"{name} has no bfloat16: use precision=no.", param="precision")
    return cast("Precision", asked)


def autocast(device: torch.device, precision: str) -> AbstractContextManager[None]:
    """Return the context in which a forward pass computes in the given precision.

    Args:
        device: Where the pass runs.
        precision: As `training_precision` takes it. bf16 runs matrix products and convolutions in
            bfloat16 and keeps weights, sums and normalisations in float32.

    Returns:
        A context manager; enter a fresh one for every block.
    """
    if training_precision(precision, device) == "no":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def training_attention(device: torch.device) -> AbstractContextManager[None]:
    """Return a context in which attention is trained the fastest way for a device.

    On the CPU, torch's fused attention has a slow backward pass: plain matrix products took a
    quarter off a whole training step (64 tokens, width 256, bf16, one core).

    Args:
        device: Where the networks are.
    """
    if device.type == "cpu":
        return sdpa_kernel(SDPBackend.MATH)
    return nullcontext()


def usable_cores() -> int:
    """Return how many CPU cores this process may use: affinity and container quota included."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    quota = _container_cores(Path("/sys/fs/cgroup/cpu.max"))
    return cores if quota is None else max(1, min(cores, quota))


def limit_threads(num_threads: int | None = None) -> int:
    """Give torch a number of CPU threads.

    One busy process may have every core. Two busy processes on the same cores slow each other
    many times over, because each waits for threads that the other keeps from running: divide
    the cores between them, at one thread each if need be.

    Args:
        num_threads: At least 1; None takes every core that the process may use.

    Returns:
        The number of threads now in use.

    Raises:
        InputError: If the number is below 1.
    """
    if num_threads is not None and num_threads < 1:
        raise InputError(f"{num_threads} threads: give at least 1.", param="num_threads")
    torch.set_num_threads(num_threads or usable_cores())
    return torch.get_num_threads()


def resident_bytes() -> int:
    """Return the memory that this process holds now, in bytes."""
    return int(psutil.Process().memory_info().rss)


def peak_bytes() -> int:
    """Return the most memory that this process ever held, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # the unit differs


def machine_description() -> str:
    """Return the machine in one line, to stand beside every measured number."""
    gib = psutil.virtual_memory().total / 2**30
    parts = [f"{_cpu_name()}, {usable_cores()} cores, {gib:.0f} GiB"]
    if torch.cuda.is_available():
        parts += [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    parts += [platform.platform(terse=True), f"Python {platform.python_version()}"]
    return "; ".join([*parts, f"torch {torch.__version__}"])


def _container_cores(limit_file: Path) -> int | None:
    if not limit_file.is_file():
        return None
    quota, period = limit_file.read_text("ascii").split()
    return None if quota == "max" else -(-int(quota) // int(period))


def _cpu_name(cpu_file: Path = Path("/proc/cpuinfo")) -> str:
    if cpu_file.is_file():
        for line in cpu_file.read_text("utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
