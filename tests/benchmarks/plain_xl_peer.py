"""A stand-in for the peers of XL's shape that changes nothing, and a peer that fails."""

import sys
from collections.abc import Mapping

import torch
from diffusers import PixArtTransformer2DModel
from torch import Tensor

from benchmarks.peers import xl


def plain(
    name: str, network: PixArtTransformer2DModel, call: Mapping[str, Tensor]
) -> tuple[xl.Step, float]:
    if name == "sdnq_uint4":
        raise ValueError("no bits")
    return xl.eager_step(network, call, torch.float32), 1.0


if __name__ == "__main__":
    xl.PREPARERS = dict.fromkeys(xl.PREPARERS, plain)
    xl.main(*sys.argv[1:])
