import pytest
import torch

from core.errors import InputError
from core.seeding import torch_generator
from distill.features import FeatureMap, FeatureNetwork
from evaluation.distances import features, frechet_distance, kernel_distance, space_name


def draw(count, width=3, seed=0):
    return torch.randn(count, width, generator=torch_generator(seed))


def exactly(rows, mean, spread):
    """Return rows whose sample mean and covariance are exact: mean and spread^2 * identity."""
    rows = (rows - rows.mean(0)).double()
    whitened = rows @ torch.linalg.inv(torch.linalg.cholesky(rows.T.cov())).T
    return (whitened * spread + torch.tensor(mean, dtype=torch.float64)).float()


def test_frechet_distance_of_two_gaussians_is_the_closed_form():
    real = exactly(draw(400), (0.0, 0.0, 0.0), 1.0)
    painted = exactly(draw(300, seed=1), (1.0, -2.0, 0.5), 3.0)
    expected = 1 + 4 + 0.25 + 3 * (3 - 1) ** 2
    assert frechet_distance(real, painted).value == pytest.approx(expected, rel=1e-4)


def test_a_set_is_at_no_frechet_distance_from_itself():
    rows = draw(200)
    assert frechet_distance(rows, rows).value == pytest.approx(0, abs=1e-5)


def test_kernel_distance_of_a_set_from_itself_is_the_estimators_closed_form():
    # Unbiased over independent sets; here each picture meets itself once in the mixed term alone.
    rows = draw(200)
    kernel = (rows @ rows.T / rows.shape[1] + 1) ** 3
    met_itself = kernel.diagonal().mean()
    met_others = (kernel.sum() - kernel.diagonal().sum()) / (200 * 199)
    expected = 2 / 200 * float(met_others - met_itself)
    assert kernel_distance(rows, rows.flip(0)).value == pytest.approx(expected, rel=1e-4)


def test_farther_sets_are_farther_in_both_distances():
    real = draw(300)
    near, far = draw(300, seed=1) + 0.3, draw(300, seed=2) + 1.5
    for distance in (frechet_distance, kernel_distance):
        assert distance(real, near).value < distance(real, far).value


def test_the_interval_holds_the_value_and_narrows_with_pictures():
    real = draw(2000)
    few, many = (frechet_distance(real, draw(n, seed=1) + 0.5) for n in (100, 2000))
    assert few.low <= few.value <= few.high
    assert many.high - many.low < few.high - few.low


def test_distances_are_functions_of_their_seed():
    real, painted = draw(120), draw(120, seed=1)
    torch.manual_seed(5)
    first = (frechet_distance(real, painted), kernel_distance(real, painted, num_subsets=3))
    torch.manual_seed(6)
    assert (frechet_distance(real, painted), kernel_distance(real, painted, num_subsets=3)) == first


def test_one_picture_is_no_set():
    with pytest.raises(InputError, match="at least 2"):
        frechet_distance(draw(1), draw(5))


class Means(FeatureNetwork):
    input_range, channels, width = "pixels", 2, 2

    def __init__(self):
        super().__init__()
        self.factor = torch.nn.Parameter(torch.ones(()))

    def look(self, pictures):
        return FeatureMap(map=pictures * self.factor, vector=pictures.mean((2, 3)))


def test_features_come_in_order_whatever_the_batch_and_the_space_has_a_name():
    pictures = torch.arange(10.0).view(10, 1, 1, 1).expand(10, 2, 3, 3)
    taken = features(Means(), pictures, batch_size=3)
    assert taken[:, 0].tolist() == list(range(10))
    assert space_name(Means()).startswith("means-")
