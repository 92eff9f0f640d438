"""How many bits: the precision of a model, and which layer gets which."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from core.errors import InputError

MIN_BITS, MAX_BITS = 1, 8

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
                f"activations take 2 to 8 bits, not {self.activations}; 16 leaves them in float.",
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
