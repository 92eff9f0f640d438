"""Small labelled photos from a file that the user gives by its path.

The file is an `.npz` of JPEGs: keys `jpeg` (all files on end), `offset` (where each begins, and
the end), `label` and `name`.
"""

import hashlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

from core.errors import CheckpointError, InputError
from core.seeding import numpy_generator
from training.autoencoder import to_tensor
from training.method import Batch


class PixelSource:
    """Batches of photos and labels, drawn with replacement; a function of the step.

    Args:
        path: The file.
        batch_size: Pictures a batch.
        seed: Seed of the draws.
        flips: Whether half of the pictures are mirrored.
        shifts_px: Largest shift in each direction, over mirrored edges; for classifiers.
        num_pictures: Draw from the first so many only; None for all.

    Attributes:
        names: What the classes are called.
        num_pictures: How many are drawn from.

    Raises:
        CheckpointError: If the file is missing or of another make.
    """

    def __init__(
        self,
        path: Path,
        *,
        batch_size: int,
        seed: int = 0,
        flips: bool = True,
        shifts_px: int = 0,
        num_pictures: int | None = None,
    ) -> None:
        self._path = path
        try:
            with np.load(path, allow_pickle=False) as file:
                self._bytes, self._offsets = file["jpeg"], file["offset"]
                self._labels = file["label"].astype(np.int64)
                self.names = [str(name) for name in file["name"]]
                _check_photos(self._bytes, self._offsets, self._labels, len(self.names))
        except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
            why = str(error) if isinstance(error, KeyError) or path.suffix == ".npz" else "no .npz"
            raise CheckpointError(
                f"{path} is no file of JPEGs ({why}): give an .npz with the keys jpeg, offset, "
                "label and name.",
                param="data",
            ) from error
        self.num_pictures = min(len(self._labels), num_pictures or len(self._labels))
        self._batch_size, self._seed = batch_size, seed
        self._flips, self._shifts_px = flips, shifts_px

    def __call__(self, step: int) -> Batch:
        """Return the photos and labels of a step.

        Args:
            step: From 0.
        """
        rng = numpy_generator(self._seed, "photos", step)
        rows = rng.integers(self.num_pictures, size=self._batch_size)
        pictures = [self._varied(self._decode(int(row)), rng) for row in rows]
        return {
            "pixels": to_tensor(np.stack(pictures)),
            "labels": torch.from_numpy(self._labels[rows]),
        }

    def digest(self) -> str:
        """Return a short name of what the file holds."""
        content = hashlib.sha256(self._bytes.tobytes())
        content.update(self._labels.tobytes())
        return content.hexdigest()[:16]

    def check_count(self, count: int) -> None:
        """Refuse to be asked for more pictures than there are.

        Args:
            count: How many are wanted.

        Raises:
            InputError: If there are fewer.
        """
        if count > self.num_pictures:
            raise InputError(
                f"{count} pictures are wanted, {self._path} holds {self.num_pictures}.",
                param="num_pictures",
            )

    def first(self, count: int) -> Batch:
        """Return the first pictures of the file as they are.

        Args:
            count: How many; all if there are fewer.
        """
        rows = range(min(count, self.num_pictures))
        return {
            "pixels": to_tensor(np.stack([self._decode(row) for row in rows])),
            "labels": torch.from_numpy(self._labels[: len(rows)]),
        }

    def _decode(self, row: int) -> UInt8[np.ndarray, "h w 3"]:
        data = self._bytes[self._offsets[row] : self._offsets[row + 1]].tobytes()
        try:
            return np.asarray(Image.open(BytesIO(data)).convert("RGB"))
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"{self._path}: picture {row} is no JPEG ({error}): copy the file again.",
                param="data",
            ) from error

    def _varied(
        self, picture: UInt8[np.ndarray, "h w 3"], rng: np.random.Generator
    ) -> UInt8[np.ndarray, "h w 3"]:
        if self._flips and rng.random() < 0.5:
            picture = picture[:, ::-1]
        if self._shifts_px:
            far = self._shifts_px
            height, width = picture.shape[:2]
            padded = np.pad(picture, ((far, far), (far, far), (0, 0)), mode="reflect")
            top, left = rng.integers(0, 2 * far + 1, size=2)
            picture = padded[top : top + height, left : left + width]
        return picture


def _check_photos(data: Any, offsets: Any, labels: Any, num_classes: int) -> None:  # noqa: ANN401
    """Refuse arrays that do not belong together.

    Raises:
        ValueError: If one does not fit; it says which.
    """
    if data.dtype != np.uint8 or data.ndim != 1:
        raise ValueError("jpeg must be a row of bytes")
    if labels.ndim != 1 or not len(labels) or not ((labels >= 0) & (labels < num_classes)).all():
        raise ValueError(f"label must name one of the {num_classes} classes for each picture")
    if offsets.shape != (len(labels) + 1,) or (np.diff(offsets) <= 0).any():
        raise ValueError("offset must rise, one more than there are pictures")
    if offsets[0] < 0 or offsets[-1] > len(data):
        raise ValueError("offset reaches beyond the bytes of jpeg")
