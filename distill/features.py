"""Feature networks: what looks at a student's and a teacher's picture and compares them.

A feature network is any module that turns pictures into a `FeatureMap`, says what range its
pictures must be in, and how wide its features are. Three kinds stand here: classifiers of our own
(`distill/classifier.py` trains them), the middle of the teacher itself, and any module by its name.
"""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from core.errors import InputError, UnknownNameError
from training.networks import load_network, save_network

RANGES = ("pixels", "latents")


class FeatureMap(NamedTuple):
    """What a feature network sees.

    Attributes:
        map: One vector per place.
        vector: One vector per picture.
    """

    map: Float[Tensor, "b c h w"]
    vector: Float[Tensor, "b v"]


class FeatureNetwork(ABC, nn.Module):
    """Pictures to features, frozen while a student learns.

    Attributes:
        input_range: "pixels" for -1..1, "latents" for unit spread.
        channels: Channels of the picture.
        width: Channels of the feature map.
    """

    input_range: str
    channels: int
    width: int

    @abstractmethod
    def look(self, pictures: Float[Tensor, "b c h w"]) -> FeatureMap:
        """Return the features of some pictures.

        Args:
            pictures: In the range that the network states.
        """

    def forward(self, pictures: Float[Tensor, "b c h w"]) -> FeatureMap:
        """Return the features of some pictures, in full precision: relations are small numbers.

        Args:
            pictures: In the range that the network states.
        """
        with torch.autocast(pictures.device.type, enabled=False):
            return self.look(pictures.float())

    def check(self, pictures: Float[Tensor, "b c h w"]) -> None:
        """Refuse pictures of another shape or range than the network was trained on.

        Args:
            pictures: A batch of what the teacher was trained on.

        Raises:
            InputError: If channels or range differ.
        """
        if pictures.shape[1] != self.channels:
            raise InputError(
                f"The feature network sees {self.channels} channels, the teacher's pictures have "
                f"{pictures.shape[1]}: train a classifier on the teacher's own kind.",
                param="features",
            )
        low, high, spread = float(pictures.min()), float(pictures.max()), float(pictures.std())
        if self.input_range == "pixels":
            fits, wanted = low >= -1.01 and high <= 1.01 and low < -0.1, "pixels in -1..1"
        else:
            fits, wanted = 0.5 <= spread <= 2.0, "latents of spread 0.5 to 2"
        if not fits:
            raise InputError(
                f"The feature network was trained on {wanted}, and these pictures lie in "
                f"{low:.2f}..{high:.2f} with spread {spread:.2f}: scale them, or train a "
                "classifier on them as they are.",
                param="features",
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassifierShape:
    """What a classifier of ours is.

    Attributes:
        channels: Channels of a picture.
        widths: Channels per level; every level halves the edge, the last is the feature map.
        num_blocks: Residual blocks per level.
        num_classes: Classes of each question that it answers.
        is_dense: Whether it answers for every place of the map, or once a picture.
        input_range: "pixels" or "latents".
        trained_on: Name of the data it knows, refused on another's.
    """

    channels: int
    widths: tuple[int, ...]
    num_blocks: int
    num_classes: tuple[int, ...]
    is_dense: bool
    input_range: str
    trained_on: str

    def __post_init__(self) -> None:
        """Refuse an unknown range.

        Raises:
            UnknownNameError: If the range has another name.
        """
        if self.input_range not in RANGES:
            raise UnknownNameError("range", self.input_range, RANGES, param="input_range")


class Classifier(FeatureNetwork):
    """A residual network without batch statistics: a picture's features depend on it alone.

    Features are taken before the last activation, as the relational paper says.

    Args:
        shape: Its size and what it answers.
    """

    def __init__(self, shape: ClassifierShape) -> None:
        super().__init__()
        self.shape = shape
        self.input_range, self.channels = shape.input_range, shape.channels
        self.width = shape.widths[-1]
        levels: list[nn.Module] = [nn.Conv2d(shape.channels, shape.widths[0], 3, padding=1)]
        before = shape.widths[0]
        for width in shape.widths:
            levels.append(nn.Conv2d(before, width, 3, stride=2, padding=1))
            levels += [ResidualBlock(width) for _ in range(shape.num_blocks)]
            before = width
        self.body = nn.Sequential(*levels, _norm(self.width))
        self.head = nn.Linear(self.width, sum(shape.num_classes))

    def look(self, pictures: Float[Tensor, "b c h w"]) -> FeatureMap:
        """Return the last feature map, and its average after the activation."""
        seen = self.body(pictures)
        return FeatureMap(map=seen, vector=F.silu(seen).mean(dim=(2, 3)))

    def answers(self, pictures: Float[Tensor, "b c h w"]) -> tuple[Float[Tensor, "n k"], ...]:
        """Return the logits of each question, a row per picture or per place of the map.

        Args:
            pictures: In the range that the network states.
        """
        seen = self.body(pictures)
        active = F.silu(seen)
        rows = (
            active.permute(0, 2, 3, 1).flatten(0, 2) if self.shape.is_dense else active.mean((2, 3))
        )
        return self.head(rows).split(list(self.shape.num_classes), dim=-1)


class ResidualBlock(nn.Module):
    """Two convolutions beside the identity.

    Args:
        width: Channels in and out.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            _norm(width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
            _norm(width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return the input plus what the layers add."""
        return x + self.layers(x)


class TransformerFeatures(FeatureNetwork):
    """The middle of the teacher: what it makes of an almost clean latent picture without words.

    For teachers of one's own, where no labels are at hand.

    Args:
        transformer: The teacher, or a copy of it; PixArt-shaped.
        heard: Keyword arguments that stand for no words, of one row.
        time: How noisy the transformer is told that pictures are.

    Source:
        Tang et al., arXiv 2306.03881, section 3. Differs: no noise is added, so that a picture's
        features are always the same.
    """

    def __init__(
        self, transformer: nn.Module, heard: Mapping[str, Tensor], *, time: int = 50
    ) -> None:
        super().__init__()
        config: Any = transformer.config
        self.transformer, self._heard, self._time = transformer, dict(heard), time
        self.input_range, self.channels = "latents", config.in_channels
        self.width = config.num_attention_heads * config.attention_head_dim
        self._patch = config.patch_size
        self._tokens: Tensor | None = None
        blocks: Any = transformer.transformer_blocks
        blocks[len(blocks) // 2].register_forward_hook(self._keep)

    def look(self, pictures: Float[Tensor, "b c h w"]) -> FeatureMap:
        """Return the tokens between the two halves of the transformer, and their average."""
        count, device = len(pictures), pictures.device
        heard = {
            name: value.to(device).expand(count, *value.shape[1:])
            for name, value in self._heard.items()
        }
        times = torch.full((count,), self._time, device=device)
        self.transformer(pictures, timestep=times, **heard)
        assert self._tokens is not None  # the hook has run
        tokens, self._tokens = self._tokens, None
        edge = (pictures.shape[2] // self._patch, pictures.shape[3] // self._patch)
        return FeatureMap(map=tokens.transpose(1, 2).unflatten(2, edge), vector=tokens.mean(dim=1))

    def _keep(self, _block: nn.Module, _inputs: tuple[Tensor, ...], tokens: Tensor) -> None:
        self._tokens = tokens


def save_classifier(classifier: Classifier, folder: Path, *, metrics: Mapping[str, float]) -> Path:
    """Write a classifier as safetensors with its shape.

    Args:
        classifier: Trained.
        folder: Made if missing.
        metrics: What was measured of it, such as its accuracy.

    Returns:
        The folder.
    """
    return save_network(classifier, folder, "classifier", metrics=metrics)


def load_classifier(folder: Path) -> Classifier:
    """Read what `save_classifier` wrote, frozen; a CheckpointError says what is missing.

    Args:
        folder: With classifier.json and classifier.safetensors.
    """
    return load_network(
        folder,
        "classifier",
        lambda **shape: Classifier(ClassifierShape(**shape)),
        command="fewstroke distill classifier",
        param="features",
    )


def load_named(name: str) -> FeatureNetwork:
    """Return what a function of the user's own makes: a feature network by "module:function".

    Args:
        name: An importable module and a function in it that takes nothing.

    Raises:
        InputError: If there is no such function, or it returns something else.
    """
    module, _, function = name.partition(":")
    try:
        network = getattr(importlib.import_module(module), function)()
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise InputError(
            f"{name!r} names no function that can be imported ({error}): give module:function.",
            param="features",
        ) from error
    if not isinstance(network, FeatureNetwork):
        raise InputError(
            f"{name} returned a {type(network).__name__}: derive it from "
            "distill.features.FeatureNetwork.",
            param="features",
        )
    return network.eval().requires_grad_(requires_grad=False)


def _norm(width: int) -> nn.Module:
    return nn.GroupNorm(min(8, width), width)
