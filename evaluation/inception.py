"""Features of the Inception network that published Frechet distances are measured with.

Its weights are not ours to ship: the file `inception-2015-12-05.pt` that comes with StyleGAN's
metrics is given by its path.
"""

import warnings
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from core.errors import CheckpointError
from distill.features import FeatureMap, FeatureNetwork

INCEPTION_WIDTH = 2048


class InceptionFeatures(FeatureNetwork):
    """The pooled features of Inception v3, one vector a picture; it resizes pictures itself.

    TorchScript is read by torch's own C++ reader: no Python of the file is run.

    Args:
        path: The TorchScript file.

    Raises:
        CheckpointError: If it is missing, no TorchScript, or answers otherwise.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.input_range, self.channels, self.width = "pixels", 3, INCEPTION_WIDTH
        try:
            with warnings.catch_warnings():
                # that TorchScript is deprecated: the weights are published in no other form
                warnings.filterwarnings("ignore", message="`torch.jit.load` is")
                self.network = torch.jit.load(str(path), map_location="cpu").eval()
            answer = self.network(torch.zeros(1, 3, 32, 32), return_features=True)
        except (RuntimeError, ValueError, OSError) as error:
            raise CheckpointError(
                f"{path} is not the TorchScript of Inception v3 ({str(error).splitlines()[0]}): "
                "give the file inception-2015-12-05.pt of StyleGAN's metrics.",
                param="inception",
            ) from error
        if tuple(answer.shape) != (1, INCEPTION_WIDTH):
            raise CheckpointError(
                f"{path} answers with {tuple(answer.shape)} for one picture, Inception v3 with "
                f"(1, {INCEPTION_WIDTH}): give the file inception-2015-12-05.pt.",
                param="inception",
            )

    def look(self, pictures: Float[Tensor, "b c h w"]) -> FeatureMap:
        """Return the pooled features, of pictures as they would be stored: in whole 0..255."""
        stored = ((pictures.clamp(-1, 1) + 1) * 127.5).round()
        vector: Tensor = self.network(stored, return_features=True)
        return FeatureMap(map=vector[:, :, None, None], vector=vector)
