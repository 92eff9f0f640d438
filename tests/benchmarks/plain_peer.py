"""A peer that changes nothing, for tests of how peers are asked."""

import sys
from typing import Any

import torch

from benchmarks.peers import low_bit_pipelines


def plain(pipe: Any) -> float:
    return sum(part.nbytes for part in pipe.transformer.parameters()) / 1e6


if __name__ == "__main__":
    low_bit_pipelines.PEERS["plain"] = (plain, torch.float32)
    low_bit_pipelines.main(*sys.argv[1:])
