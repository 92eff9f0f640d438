"""How far painted pictures are from real ones as sets, in a feature space that is named.

Both distances are torchmetrics'. They are fed with features, not pictures: the feature network is
one of our own, and its name stands beside every figure. Figures of two networks, or of one network
at two numbers of pictures, are not comparable.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from core.errors import InputError, NumericsError
from core.seeding import torch_generator
from distill.features import Classifier, FeatureNetwork
from training.networks import weights_digest

NUM_RESAMPLES = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Distance:
    """A distance and how sure it is.

    Attributes:
        value: The distance.
        low: Lower end of the 95 % interval.
        high: Upper end.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """Return the figure with its interval."""
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def frechet_distance(
    real: Float[Tensor, "n d"], painted: Float[Tensor, "m d"], *, seed: int = 0
) -> Distance:
    """Return the distance of two Gaussians fitted to features.

    The interval is the value and twice the spread over 20 resamples of the painted pictures. It
    knows nothing of other seeds of the training: three runs are compared by their three values.

    Args:
        real: Features of real pictures, more rows than columns or the fit is poor.
        painted: Features of painted pictures.
        seed: Of the resamples.

    Source:
        Heusel et al., arXiv 1706.08500. Differs: features of a named network of our own.
    """
    _check(real, painted)
    generator = torch_generator(seed, "resamples")
    value = _frechet(real, painted)
    resampled = []
    for _ in range(NUM_RESAMPLES):
        rows = torch.randint(len(painted), (len(painted),), generator=generator)
        resampled.append(_frechet(real, painted[rows]))
    spread = 1.96 * float(torch.tensor(resampled).std())
    return Distance(value=value, low=max(0.0, value - spread), high=value + spread)


def kernel_distance(
    real: Float[Tensor, "n d"],
    painted: Float[Tensor, "m d"],
    *,
    num_subsets: int = 50,
    seed: int = 0,
) -> Distance:
    """Return the squared kernel distance, which has no bias at few pictures; it may be below 0.

    The interval is the mean and one standard deviation over subsets, as is the custom.

    Args:
        real: Features of real pictures.
        painted: Features of painted pictures.
        num_subsets: Random subsets; each has up to 1000 pictures.
        seed: Of the subsets.

    Source:
        Binkowski et al., arXiv 1801.01401. Differs: features of a named network of our own.
    """
    from torchmetrics.image.kid import KernelInceptionDistance

    _check(real, painted)
    size = min(1000, len(real), len(painted))
    with warnings.catch_warnings():
        # that all features are kept in memory: they are there already
        warnings.filterwarnings("ignore", message="Metric `Kernel Inception Distance` will save")
        metric = KernelInceptionDistance(
            feature=_Given(real.shape[1]), subsets=num_subsets, subset_size=size
        )
    metric.update(real, real=True)
    metric.update(painted, real=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # it draws its subsets globally
        mean, deviation = metric.compute()
    value, spread = float(mean), float(deviation)
    return Distance(value=value, low=value - spread, high=value + spread)


@torch.no_grad()
def features(
    network: FeatureNetwork, pictures: Float[Tensor, "b c h w"], *, batch_size: int = 250
) -> Float[Tensor, "b v"]:
    """Return one feature vector per picture, on the CPU.

    Args:
        network: What looks.
        pictures: In its range.
        batch_size: Pictures a forward pass.
    """
    device = next(network.parameters()).device
    parts: Sequence[Tensor] = [
        network(part.to(device)).vector.cpu() for part in pictures.split(batch_size)
    ]
    return torch.cat(list(parts))


def space_name(network: FeatureNetwork) -> str:
    """Return the name of a feature space, to stand beside its figures.

    Args:
        network: What looks.
    """
    kind = type(network).__name__.lower()
    data = f"-{network.shape.trained_on}" if isinstance(network, Classifier) else ""
    return f"{kind}{data}-{weights_digest(network)[:8]}"


class _Given(nn.Module):
    """Passes features on: they were taken already."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width

    def forward(self, given: Tensor) -> Tensor:
        return given


def _frechet(real: Tensor, painted: Tensor) -> float:
    from torchmetrics.image.fid import FrechetInceptionDistance

    metric = FrechetInceptionDistance(feature=_Given(real.shape[1])).set_dtype(torch.float64)
    metric.update(real.double(), real=True)
    metric.update(painted.double(), real=False)
    return max(0.0, float(metric.compute()))


def _check(real: Tensor, painted: Tensor) -> None:
    for name, features_ in (("real", real), ("painted", painted)):
        if not torch.isfinite(features_).all():
            raise NumericsError(
                f"Features of {name} pictures are not finite: what painted them is broken."
            )
    if min(len(real), len(painted)) < 2:
        raise InputError(
            f"{len(real)} real and {len(painted)} painted pictures: a distance needs at least 2 "
            "of each.",
            param="num_pictures",
        )
