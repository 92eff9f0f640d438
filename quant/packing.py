"""Codes of 1 to 8 bits in bytes, without gaps, as pure functions."""

import torch
from jaxtyping import UInt8
from torch import Tensor

from core.errors import InputError

# A width is stored as planes of 4, 2 and 1 bits, lowest bits first: 3 = 2 + 1.
PLANES = {
    1: (1,),
    2: (2,),
    3: (2, 1),
    4: (4,),
    5: (4, 1),
    6: (4, 2),
    7: (4, 2, 1),
    8: (8,),
}


def pack(codes: UInt8[Tensor, " n"], bits: int) -> UInt8[Tensor, " m"]:
    """Pack codes into bytes, without a gap between them.

    A plane of p bits holds 8 / p codes a byte; codes that share a byte stand a whole plane apart,
    so that unpacking is one shift and one mask over contiguous memory.

    Args:
        codes: Each below 2**bits.
        bits: 1..8.

    Returns:
        `packed_bytes(len(codes), bits)` bytes.
    """
    planes, low = [], 0
    for plane in _planes(bits):
        piece = (codes >> low) & (2**plane - 1)
        low += plane
        num_bytes = -(-len(codes) // (8 // plane))
        piece = torch.nn.functional.pad(piece, (0, num_bytes * (8 // plane) - len(codes)))
        packed = torch.zeros(num_bytes, dtype=torch.uint8, device=codes.device)
        for index, part in enumerate(piece.view(8 // plane, num_bytes)):
            packed |= part << (plane * index)
        planes.append(packed)
    return torch.cat(planes)


def unpack(packed: UInt8[Tensor, " m"], bits: int, num_codes: int) -> UInt8[Tensor, " n"]:
    """Return the codes that `pack` packed.

    Args:
        packed: Bytes.
        bits: 1..8.
        num_codes: How many codes there are.

    Returns:
        Codes.

    Raises:
        InputError: If there are too many or too few bytes.
    """
    if len(packed) != packed_bytes(num_codes, bits):
        raise InputError(
            f"{num_codes} codes of {bits} bits take {packed_bytes(num_codes, bits)} bytes, not "
            f"{len(packed)}.",
            param="packed",
        )
    codes: Tensor | None = None
    start = low = 0
    for plane in _planes(bits):
        num_bytes = -(-num_codes // (8 // plane))
        part = packed[start : start + num_bytes]
        if plane < 8:
            shifts = torch.arange(0, 8, plane, dtype=torch.uint8, device=packed.device)
            part = ((part >> shifts[:, None]) & (2**plane - 1)).view(-1)[:num_codes]
        codes = part if codes is None else codes | (part << low)
        start, low = start + num_bytes, low + plane
    assert codes is not None
    return codes


def packed_bytes(num_codes: int, bits: int) -> int:
    """Return how many bytes codes take.

    Args:
        num_codes: At least 0.
        bits: 1..8.

    Returns:
        Bytes; less than one more per plane than num_codes * bits / 8.
    """
    return sum(-(-num_codes // (8 // plane)) for plane in _planes(bits))


def _planes(bits: int) -> tuple[int, ...]:
    if bits not in PLANES:
        raise InputError(f"Codes take 1 to 8 bits, not {bits}.", param="bits")
    return PLANES[bits]
