"""Three shards of scenes, encoded together by the processes that `torchrun` starts."""

import sys
from pathlib import Path

import torch
from accelerate import PartialState
from diffusers import AutoencoderDC

from scenes.sprites import SpriteSheet
from training.data import encode_scenes

if __name__ == "__main__":
    encode_scenes(
        AutoencoderDC.from_pretrained(sys.argv[1]),
        SpriteSheet(),
        Path(sys.argv[2]),
        num_scenes=48,
        device=torch.device("cpu"),
        shard_scenes=16,
        processes=PartialState(cpu=True),
    )
