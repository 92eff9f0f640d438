"""How many bits: the precision of a model, which layer gets which, and how one layer is stored."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import pairwise
from typing import Literal

from core.errors import CheckpointError, InputError

MIN_BITS, MAX_BITS = 1, 8

LOW_BIT = "fewstroke"
"""The `quant_method` of our `quantization_config`."""

Role = Literal["block", "vector", "outer", "unused"]
"""What a layer is, as its inputs and its place tell:

    block   inside the repeated blocks, hears tokens or pixels
    vector  hears one vector per sample: time embedding, adaLN, pooled text
    outer   outside of the blocks: patches, words, the output projection
    unused  never called while calibrating
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Precision:
    """Bits of a model.

    Attributes:
        weights: Average bits of a weight inside the blocks, 1..8.
        activations: Bits of what these weights meet, 2..8; None leaves them in float.
    """

    weights: int
    activations: int | None

    def __post_init__(self) -> None:
        """Refuse widths that no grid has.

        Raises:
            InputError: If a width is out of range.
        """
        if not MIN_BITS <= self.weights <= MAX_BITS:
            raise InputError(
                f"weights take 1 to 8 bits, not {self.weights}.", param="precision.weights"
            )
        if self.activations is not None and not 2 <= self.activations <= MAX_BITS:
            raise InputError(
                f"activations take 2 to 8 bits, not {self.activations}; leave them out for float.",
                param="precision.activations",
            )

    def __str__(self) -> str:
        return f"w{self.weights}a{self.activations or 16}"


def parse_precision(text: str) -> Precision:
    """Read a precision as papers write it.

    Args:
        text: "w4a8", "W2A4"; "w4a16" keeps activations in float.

    Returns:
        The precision.

    Raises:
        InputError: If the text is of another form.
    """
    found = re.fullmatch(r"w(\d+)a(\d+)", text.strip().lower())
    if found is None:
        raise InputError(
            f"{text!r} is no precision: write w4a8, or w4a16 for float activations.",
            param="precision",
        )
    weights, activations = int(found[1]), int(found[2])
    return Precision(weights=weights, activations=None if activations == 16 else activations)


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """Which layers get the asked width, and what the others get; by role, never by model name.

    Attributes:
        outer_bits: Width of layers outside of the blocks; None leaves them in float.
        vector_bits: Width of layers that hear one vector per sample; None leaves them in float.
        overrides: (pattern, width) pairs over layer names with * and ?, the first that fits wins;
            width None leaves a layer in float.
    """

    outer_bits: int | None = 8
    vector_bits: int | None = 8
    overrides: tuple[tuple[str, int | None], ...] = ()

    def bits(self, name: str, role: Role, asked: int) -> int | None:
        """Return the weight bits of a layer.

        Args:
            name: The layer's path in the network.
            role: What it is.
            asked: Weight bits that the precision asks for.

        Returns:
            Bits, or None where the layer stays in float.
        """
        for pattern, width in self.overrides:
            if fnmatchcase(name, pattern):
                return width
        return {
            "block": asked,
            "vector": self.vector_bits,
            "outer": self.outer_bits,
            "unused": None,
        }[role]


def check_overrides(policy: Policy, names: Iterable[str]) -> None:
    """Refuse exceptions that fit no layer: a slip of the pen would else change nothing, silently.

    Args:
        policy: Its overrides are looked at.
        names: All layers that can be quantized.

    Raises:
        InputError: If a pattern fits none of the names, or all layers are left in float.
    """
    known = list(names)
    widths = {name: policy.bits(name, "block", MAX_BITS) for name in known}
    if known and all(width is None for width in widths.values()):
        raise InputError("The policy leaves every layer in float: relax it.", param="keep")
    for pattern, _ in policy.overrides:
        if not any(fnmatchcase(name, pattern) for name in known):
            examples = ", ".join(known[:: max(1, len(known) // 4)][:4])
            raise InputError(
                f"No layer is named {pattern!r}. Layers are named like {examples}.", param="keep"
            )


def parse_override(text: str) -> tuple[str, int | None]:
    """Read one exception of a policy.

    Args:
        text: "pattern=bits" or "pattern=float", such as "*.ff.net.2=8".

    Returns:
        Pattern and width, for `Policy.overrides`.

    Raises:
        InputError: If the text is of another form or the width out of range.
    """
    pattern, equals, width = text.rpartition("=")
    is_width = width.isdecimal() and MIN_BITS <= int(width) <= MAX_BITS
    if not equals or not pattern or not (width == "float" or is_width):
        raise InputError(
            f"{text!r} is no exception: write pattern=bits with 1 to 8 bits, or pattern=float.",
            param="keep",
        )
    return pattern, None if width == "float" else int(width)


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerFormat:
    """How one layer is stored; all that is needed to read its bytes.

    Attributes:
        widths: Output channels by bits, ascending; a span of at most four widths.
        group_size: Inputs that share one scale; 0 is the whole row.
        smoothed: Whether inputs are divided by a scale of their own per channel.
        activation_bits: Bits of the inputs; 0 leaves them in float.
        num_ranges: Stored input ranges: 0 is one per token, measured while running; 1 is one for
            ever; more is one per timestep of the manifest.
        rank: Rank of a float branch beside the low-bit weight; 0 is none.
        checksum: CRC-32 of the layer's stored tensors.
    """

    widths: Mapping[int, int]
    group_size: int = 0
    smoothed: bool = False
    activation_bits: int = 0
    num_ranges: int = 0
    rank: int = 0
    checksum: int = 0

    def to_dict(self) -> dict[str, object]:
        """Return the format as JSON holds it, without what is as usual."""
        entry: dict[str, object] = {"widths": {str(b): n for b, n in sorted(self.widths.items())}}
        for key in ("group_size", "smoothed", "activation_bits", "num_ranges", "rank"):
            if getattr(self, key):
                entry[key] = getattr(self, key)
        return entry | {"checksum": f"{self.checksum:08x}"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """What a low-bit transformer says about itself in its config.json.

    Attributes:
        method: Name of the method that made it.
        precision: What was asked for, such as "w3a8".
        timesteps: Timesteps that stored input ranges belong to, descending.
        layers: Formats by layer name.
        float_layers: Linear and convolution layers that were left in float.
        num_parameters: Parameters of the float network.
    """

    method: str
    precision: str
    layers: Mapping[str, LayerFormat]
    num_parameters: int
    timesteps: tuple[float, ...] = ()
    float_layers: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, object]:
        """Return the manifest as JSON holds it."""
        return {
            "method": self.method,
            "precision": self.precision,
            "num_parameters": self.num_parameters,
            "timesteps": list(self.timesteps),
            "layers": {name: layer.to_dict() for name, layer in self.layers.items()},
            "float_layers": list(self.float_layers),
        }


def read_manifest(entry: Mapping[str, object], where: str) -> Manifest:
    """Check and take over what a config.json says.

    Args:
        entry: The object under `quantization_config`.
        where: The file that it stands in, for messages.

    Returns:
        The manifest.

    Raises:
        CheckpointError: If a field is missing or cannot be; the message names file and field.
    """
    layers = entry.get("layers")
    if not isinstance(layers, Mapping) or not layers:
        raise CheckpointError(
            f"{where}: quantization_config.layers is {layers!r}, not a table of layers. Copy or "
            "download the checkpoint again."
        )
    timesteps = _read_timesteps(entry.get("timesteps", []), where)
    names, method = entry.get("float_layers", []), entry.get("method")
    if not isinstance(method, str) or not method:
        raise CheckpointError(f"{where}: quantization_config.method is {method!r}, not a name.")
    precision = str(entry.get("precision"))
    try:
        heard = parse_precision(precision).activations
    except InputError as error:
        raise CheckpointError(f"{where}: quantization_config.precision: {error.message}") from error
    manifest = Manifest(
        method=method,
        precision=precision,
        num_parameters=_whole(
            entry.get("num_parameters"), f"{where}: quantization_config.num_parameters"
        ),
        timesteps=timesteps,
        layers={str(name): _read_layer(str(name), part, where) for name, part in layers.items()},
        float_layers=tuple(map(str, names)) if isinstance(names, list) else (),
    )
    for name, layer in manifest.layers.items():
        _check_inputs(name, layer, manifest, heard, where)
    return manifest


def _read_timesteps(given: object, where: str) -> tuple[float, ...]:
    at = f"{where}: quantization_config.timesteps is {given!r}"
    if not isinstance(given, list) or not all(isinstance(each, int | float) for each in given):
        raise CheckpointError(f"{at}, not a list of numbers.")
    falls = all(later < earlier for earlier, later in pairwise(given))
    if not falls or not all(0 <= each < math.inf for each in given):
        raise CheckpointError(f"{at}: they must fall, and none be below 0.")
    return tuple(float(each) for each in given)


def _check_inputs(
    name: str, layer: LayerFormat, manifest: Manifest, asked: int | None, where: str
) -> None:
    at = f"{where}: quantization_config.layers[{name!r}]"
    least, most = (0, 0) if asked is None else (asked, MAX_BITS)
    if not least <= layer.activation_bits <= most:
        raise CheckpointError(
            f"{at}.activation_bits is {layer.activation_bits}, but quantization_config.precision "
            f"{manifest.precision!r} asks for {least} to {most}."
        )
    if layer.num_ranges > 1 and layer.num_ranges != len(manifest.timesteps):
        raise CheckpointError(
            f"{at}.num_ranges is {layer.num_ranges}, but quantization_config.timesteps has "
            f"{len(manifest.timesteps)} entries."
        )


def _read_layer(name: str, entry: object, where: str) -> LayerFormat:
    at = f"{where}: quantization_config.layers[{name!r}]"
    if not isinstance(entry, Mapping):
        raise CheckpointError(f"{at} is {entry!r}, not an object.")
    given = entry.get("widths")
    if not isinstance(given, Mapping) or not given:
        raise CheckpointError(f"{at}.widths is {given!r}: channels by bits are needed.")
    widths: dict[int, int] = {}
    for key, count in given.items():
        bits = int(key) if str(key).isdecimal() else 0
        if not MIN_BITS <= bits <= MAX_BITS or not isinstance(count, int) or count < 1:
            raise CheckpointError(f"{at}.widths has {key!r}: {count!r}; widths are 1 to 8 bits.")
        widths[bits] = count
    if max(widths) - min(widths) > 3:
        raise CheckpointError(f"{at}.widths spans {sorted(widths)}: at most four widths in a row.")
    numbers = {
        key: _whole(entry.get(key, 0), f"{at}.{key}")
        for key in ("group_size", "activation_bits", "num_ranges", "rank")
    }
    if numbers["activation_bits"] > MAX_BITS:
        raise CheckpointError(f"{at}.activation_bits is {numbers['activation_bits']}: 0 to 8.")
    try:
        checksum = int(str(entry.get("checksum")), 16)
    except ValueError as error:
        raise CheckpointError(
            f"{at}.checksum is {entry.get('checksum')!r}: eight hex digits are needed."
        ) from error
    return LayerFormat(
        widths=dict(sorted(widths.items())),
        smoothed=entry.get("smoothed") is True,
        checksum=checksum,
        **numbers,
    )


def _whole(value: object, at: str) -> int:
    if not isinstance(value, int) or value < 0:
        raise CheckpointError(f"{at} is {value!r}: a whole number of at least 0 is needed.")
    return value
