"""Which backend computes a model. Add one by filing it in `BACKENDS`."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from core.errors import ConfigError, UnsupportedError
from core.registry import Registry
from pipelines.accelerate.execution import Execution
from pipelines.accelerate.networks import Networks, TorchNetworks
from pipelines.accelerate.openvino_runtime import is_installed, why_not
from pipelines.accelerate.shelf import Shelf
from pipelines.accelerate.torch_compiled import TorchCompiledNetworks
from pipelines.accelerate.torch_compiled import why_not as no_compiler
from pipelines.components import Components
from pipelines.model_info import ModelInfo
from quant.precision import MAX_BITS
from quant.store import packed_layers

AUTO = "auto"

EXACT = 1e-4
"""Largest distance from plain torch where nothing is rounded but float32 itself."""

ROUNDED = 0.1
"""Largest distance from plain torch where inputs of matrix products are rounded to eight bits."""

COARSE = 0.2
"""The same for fewer bits or stored ranges, where the least difference of float sums moves an input
to the next code, and all that follows with it: two exact computations differ by the rounding."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Setup:
    """What a backend gets to work with.

    Attributes:
        info: What the model is.
        parts: Its networks in torch.
        cache_dir: Where compiled networks are kept; None keeps none.
    """

    info: ModelInfo
    parts: Components
    cache_dir: Path | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Backend:
    """A way to compute a model.

    Attributes:
        make: Takes the networks over.
        why_not: Says why it cannot be used on this machine; None if it can.
    """

    make: Callable[[Setup], Networks]
    why_not: Callable[[], str | None]


BACKENDS: Registry[Backend] = Registry("backend")


def make_networks(
    name: str, info: ModelInfo, parts: Components, *, cache_dir: str | Path | None = None
) -> Networks:
    """Hand a model to a backend.

    Args:
        name: A registered backend, or "auto" for the fastest that is installed and rounds nothing
            that the model does not; what is low-bit already may have its decoder, and what lies
            between its products, computed in bfloat16.
        info: What the model is.
        parts: Its networks in torch.
        cache_dir: Where compiled networks are kept for the next start; None keeps none.

    Returns:
        The networks. A backend that is there but cannot take this model is replaced by torch,
        which `execution.fallbacks` then says.

    Raises:
        ConfigError: If the backend was named and is not there. An UnknownNameError lists the known.
    """
    folder = Path(cache_dir).expanduser() if cache_dir else None
    setup = Setup(info=info, parts=parts, cache_dir=folder)
    chosen = _wanted(parts) if name == AUTO else name
    backend = BACKENDS.get(chosen, param="backend")
    why = backend.why_not()
    if why is None:
        try:
            return backend.make(setup)
        except UnsupportedError as error:
            why = error.message
    elif name != AUTO:
        raise ConfigError(f"Backend {chosen!r} cannot be used: {why}", param="backend")
    plain = _torch(setup)
    if name != AUTO or is_installed():  # or else nobody expected it
        plain.execution.fall_back("backend", f"{chosen} cannot take {info.name}: {why}")
    return plain


def _wanted(parts: Components) -> str:
    return "openvino" if _is_plain_cpu(parts) else "torch"


def _is_plain_cpu(parts: Components) -> bool:
    return parts.device.type == "cpu" and parts.dtype == torch.float32


def _torch(setup: Setup) -> Networks:
    return TorchNetworks(setup.parts, setup.info.latent_factor)


def _torch_compiled(setup: Setup) -> Networks:
    parts = setup.parts
    tolerance = _tolerance(parts, rounds=parts.dtype != torch.float32)
    return TorchCompiledNetworks(
        parts,
        setup.info.latent_factor,
        execution=Execution("torch-compiled", tolerance=tolerance),
        revision=setup.info.revision,
        cache_dir=setup.cache_dir,
    )


def _openvino(setup: Setup) -> Networks:
    return _compiled("openvino", setup)


def _openvino_int8(setup: Setup) -> Networks:
    return _compiled("openvino-int8", setup, weights=True)


def _openvino_lean(setup: Setup) -> Networks:
    return _compiled("openvino-lean", setup, codes=False)


def _compiled(name: str, setup: Setup, *, weights: bool = False, codes: bool = True) -> Networks:
    from pipelines.accelerate.openvino_networks import OpenvinoNetworks, Rounding

    parts = setup.parts
    if not _is_plain_cpu(parts):
        raise ConfigError(
            f"Backend {name!r} computes on the CPU in float32, not on {parts.device} in "
            f"{parts.dtype}: leave device and dtype out, or take backend torch.",
            param="backend",
        )
    return OpenvinoNetworks(
        parts,
        setup.info.latent_factor,
        execution=Execution(name, tolerance=_tolerance(parts, rounds=weights)),
        revision=setup.info.revision,
        shelf=Shelf(setup.cache_dir) if setup.cache_dir else None,
        rounding=Rounding(
            weights=weights,
            # Bfloat16 moves a pixel by less than one level, inputs of few bits by several.
            decoder=weights or _rounds_inputs(parts),
            codes=codes,
        ),
    )


def _rounds_inputs(parts: Components) -> bool:
    return any(layer.form.activation_bits for layer in packed_layers(parts.transformer).values())


def _tolerance(parts: Components, *, rounds: bool) -> float:
    forms = [layer.form for layer in packed_layers(parts.transformer).values()]
    if any(form.num_ranges or 0 < form.activation_bits < MAX_BITS for form in forms):
        return COARSE
    return ROUNDED if rounds or _rounds_inputs(parts) else EXACT


BACKENDS.add("torch", Backend(make=_torch, why_not=lambda: None))
BACKENDS.add("torch-compiled", Backend(make=_torch_compiled, why_not=no_compiler))
BACKENDS.add("openvino", Backend(make=_openvino, why_not=why_not))
BACKENDS.add("openvino-int8", Backend(make=_openvino_int8, why_not=why_not))
BACKENDS.add("openvino-lean", Backend(make=_openvino_lean, why_not=why_not))
