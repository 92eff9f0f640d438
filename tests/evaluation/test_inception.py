from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from core.errors import CheckpointError
from core.seeding import torch_generator
from evaluation.distances import features, frechet_distance, space_name
from evaluation.inception import INCEPTION_WIDTH, InceptionFeatures

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")


class Means(nn.Module):
    """Answers as the published file does, with brightness in every feature."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.arange(1.0, width + 1) / width)

    # As TorchScript has it: no argument by keyword alone.
    def forward(self, img: Tensor, return_features: bool = False) -> Tensor:  # noqa: FBT001, FBT002
        assert return_features
        return img.mean(dim=(1, 2, 3))[:, None] * self.weight


def saved(width: int, path: Path) -> Path:
    torch.jit.script(Means(width)).save(str(path))
    return path


def test_pictures_are_seen_in_whole_numbers_up_to_255(tmp_path):
    network = InceptionFeatures(saved(INCEPTION_WIDTH, tmp_path / "inception.pt"))
    pictures = torch.stack([torch.full((3, 32, 32), value) for value in (-1.0, 0.003, 1.0)])
    seen = features(network, pictures)
    assert seen[:, -1].tolist() == [0, 128, 255]
    assert seen.shape == (3, INCEPTION_WIDTH)
    assert space_name(network).startswith("inceptionfeatures-")


def test_the_distance_of_a_set_from_itself_is_zero_in_its_space(tmp_path):
    network = InceptionFeatures(saved(INCEPTION_WIDTH, tmp_path / "inception.pt"))
    pictures = torch.rand(8, 3, 32, 32, generator=torch_generator(0)) * 2 - 1
    seen = features(network, pictures)[:, -4:]
    assert frechet_distance(seen, seen).value == pytest.approx(0, abs=1e-6)
    assert frechet_distance(seen, seen + 2).value == pytest.approx(16, rel=1e-3)


def test_another_file_is_refused_by_name(tmp_path):
    other = tmp_path / "other.pt"
    with pytest.raises(CheckpointError, match=r"other.pt.*inception-2015-12-05.pt"):
        InceptionFeatures(other)
    other.write_bytes(b"no network")
    with pytest.raises(CheckpointError, match="TorchScript"):
        InceptionFeatures(other)
    with pytest.raises(CheckpointError, match=r"\(1, 7\)"):
        InceptionFeatures(saved(7, tmp_path / "narrow.pt"))
    torch.jit.script(nn.Linear(3, 3)).save(str(other))
    with pytest.raises(CheckpointError, match="TorchScript"):
        InceptionFeatures(other)
