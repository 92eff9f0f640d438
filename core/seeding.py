"""Random streams that depend on nothing but their seed and their name."""

import hashlib

import numpy as np
import torch

MAX_SEED = 2**63 - 1


def torch_generator(seed: int, *stream: str | int) -> torch.Generator:
    """Return a CPU generator for one image, sample or purpose.

    Args:
        seed: 0..2**63 - 1.
        stream: Names that separate independent streams of the same seed ("noise", "dropout", 3).
            Without any, the generator is seeded with `seed` itself, as a user of torch expects.

    Returns:
        A fresh generator; two calls with equal arguments draw equal numbers.
    """
    return torch.Generator("cpu").manual_seed(_derive(seed, stream) if stream else seed)


def numpy_generator(seed: int, *stream: str | int) -> np.random.Generator:
    """Return a numpy generator for one stream of a seed.

    Args:
        seed: 0..2**63 - 1.
        stream: Names that separate independent streams of the same seed.

    Returns:
        A fresh generator; two calls with equal arguments draw equal numbers.
    """
    return np.random.default_rng(_derive(seed, stream))


def _derive(seed: int, stream: tuple[str | int, ...]) -> int:
    text = "/".join([str(seed), *map(str, stream)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
