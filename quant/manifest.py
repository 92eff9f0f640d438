"""What a low-bit transformer says about itself in its config.json, and how that is checked."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from core.errors import CheckpointError, InputError
from quant.precision import MAX_BITS, parse_precision

LOW_BIT = "fewstroke"
"""The `quant_method` of our `quantization_config`."""

METHOD_NAMES = (
    "minmax",
    "rtn",
    "svdquant",
    "efficientdm",
    "omq",
    "trd",
    "mpq",
    "mpq_plus",
    "mpq_budget",
    "mpq_release",
)
"""Methods that a folder may name; `quant.recipes` says what they are."""


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
        checksum: CRC-32 of all that stands above and of the layer's stored tensors, its bias aside.
    """

    widths: Mapping[int, int]
    group_size: int = 0
    smoothed: bool = False
    activation_bits: int = 0
    num_ranges: int = 0
    rank: int = 0
    checksum: int = 0

    def stated(self) -> dict[str, object]:
        """Return the format as JSON holds it, without its checksum and without what is as usual."""
        entry: dict[str, object] = {"widths": {str(b): n for b, n in sorted(self.widths.items())}}
        for key in ("group_size", "smoothed", "activation_bits", "num_ranges", "rank"):
            if getattr(self, key):
                entry[key] = getattr(self, key)
        return entry

    def to_dict(self) -> dict[str, object]:
        """Return the format as JSON holds it, without what is as usual."""
        return self.stated() | {"checksum": f"{self.checksum:08x}"}


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
        checksum: CRC-32 of all that stands above, layers aside, and of the tensors that stay in
            float, biases included; `write_low_bit` sets it.
    """

    method: str
    precision: str
    layers: Mapping[str, LayerFormat]
    num_parameters: int
    timesteps: tuple[float, ...] = ()
    float_layers: tuple[str, ...] = ()
    checksum: int = 0

    def stated(self) -> dict[str, object]:
        """Return what it says of the whole network as JSON holds it, without its checksum."""
        return {
            "method": self.method,
            "precision": self.precision,
            "num_parameters": self.num_parameters,
            "timesteps": list(self.timesteps),
            "float_layers": list(self.float_layers),
        }

    def to_dict(self) -> dict[str, object]:
        """Return the manifest as JSON holds it."""
        layers = {name: layer.to_dict() for name, layer in self.layers.items()}
        return self.stated() | {"layers": layers, "checksum": f"{self.checksum:08x}"}


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
    method, names = entry.get("method"), entry.get("float_layers", [])
    if method not in METHOD_NAMES:
        raise CheckpointError(
            f"{where}: quantization_config.method is {method!r}; known are "
            f"{', '.join(METHOD_NAMES)}."
        )
    if not isinstance(names, list):
        raise CheckpointError(
            f"{where}: quantization_config.float_layers is {names!r}, not a list of names."
        )
    precision = str(entry.get("precision"))
    try:
        heard = parse_precision(precision).activations
    except InputError as error:
        raise CheckpointError(f"{where}: quantization_config.precision: {error.message}") from error
    manifest = Manifest(
        method=str(method),
        precision=precision,
        num_parameters=_whole(
            entry.get("num_parameters"), f"{where}: quantization_config.num_parameters"
        ),
        timesteps=timesteps,
        layers={str(name): _read_layer(str(name), part, where) for name, part in layers.items()},
        float_layers=tuple(map(str, names)),
        checksum=_checksum(entry.get("checksum"), f"{where}: quantization_config.checksum"),
    )
    for name, layer in manifest.layers.items():
        _check_inputs(name, layer, manifest, heard, where)
    return manifest


def _read_timesteps(given: object, where: str) -> tuple[float, ...]:
    at = f"{where}: quantization_config.timesteps is {given!r}"
    if not isinstance(given, list) or not all(type(each) in {int, float} for each in given):
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
            f"{manifest.precision!r} asks for {least if least == most else f'{least} to {most}'}."
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
        if not re.fullmatch("[1-8]", str(key)) or type(count) is not int or count < 1:
            raise CheckpointError(
                f"{at}.widths has {key!r:.20}: {count!r:.20}; widths are 1 to 8 bits, with the "
                "number of their channels."
            )
        widths[int(key)] = count
    if max(widths) - min(widths) > 3:
        raise CheckpointError(f"{at}.widths spans {sorted(widths)}: at most four widths in a row.")
    numbers = {
        key: _whole(entry.get(key, 0), f"{at}.{key}")
        for key in ("group_size", "activation_bits", "num_ranges", "rank")
    }
    if numbers["activation_bits"] > MAX_BITS:
        raise CheckpointError(f"{at}.activation_bits is {numbers['activation_bits']}: 0 to 8.")
    smoothed = entry.get("smoothed", False)
    if not isinstance(smoothed, bool):
        raise CheckpointError(f"{at}.smoothed is {smoothed!r}: true or false.")
    return LayerFormat(
        widths=dict(sorted(widths.items())),
        smoothed=smoothed,
        checksum=_checksum(entry.get("checksum"), f"{at}.checksum"),
        **numbers,
    )


def _whole(value: object, at: str) -> int:
    if type(value) is not int or value < 0:
        raise CheckpointError(f"{at} is {value!r}: a whole number of at least 0 is needed.")
    return value


def _checksum(value: object, at: str) -> int:
    if not isinstance(value, str) or not re.fullmatch("[0-9a-f]{8}", value):
        raise CheckpointError(f"{at} is {value!r}: eight hex digits are needed.")
    return int(value, 16)
