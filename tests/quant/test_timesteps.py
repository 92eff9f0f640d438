from copy import deepcopy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from core.errors import UnsupportedError
from quant.timesteps import Timesteps, watch_timestep

TABLE = (900.0, 500.0, 100.0)
RANGES = torch.tensor([[9.0, 5.0, 1.0], [90.0, 50.0, 10.0]])


def pick(*times: float) -> list[list[float]]:
    timesteps = Timesteps(TABLE)
    timesteps.set(torch.tensor(times))
    return timesteps.pick(RANGES, len(times)).tolist()


def test_stored_timesteps_give_their_own_entry():
    for index, time in enumerate(TABLE):
        assert pick(time) == RANGES[:, index : index + 1].tolist()


@given(time=st.floats(100, 900))
def test_between_two_entries_lies_their_mix(time):
    assert pick(time)[0][0] == pytest.approx(time / 100, rel=1e-5)


def test_beyond_the_ends_the_last_entry_holds():
    assert pick(2000.0)[0] == [9.0]
    assert pick(-5.0)[0] == [1.0]


def test_the_order_of_calls_does_not_matter():
    timesteps = Timesteps(TABLE)
    for time in (100.0, 900.0, 100.0, 500.0):
        timesteps.set(torch.tensor([time]))
    assert timesteps.pick(RANGES, 1).tolist() == [[5.0], [50.0]]


def test_each_row_has_its_own_timestep():
    assert pick(900.0, 100.0)[0] == [9.0, 1.0]


def test_a_single_range_needs_no_timestep():
    assert Timesteps(()).pick(RANGES[:, :1], 3).tolist() == [[9.0], [90.0]]
    with pytest.raises(UnsupportedError, match="outside of its transformer"):
        Timesteps(TABLE).pick(RANGES, 1)


class Network(nn.Module):
    def forward(self, x: float, timestep: torch.Tensor | None = None) -> float:
        return x


def test_networks_tell_their_timestep_however_it_is_passed():
    network, seen = Network(), []
    handle = watch_timestep(network, lambda t: seen.append(t.tolist()))
    network(1, torch.tensor([3]))
    network(1, timestep=torch.tensor([4]))
    network(1, timestep=5.0)
    network(1)
    handle.remove()
    network(1, timestep=torch.tensor([6]))
    assert seen == [[3], [4], 5.0]


def test_a_copy_tells_its_own_listener():
    network = Network()
    network.timesteps = Timesteps(TABLE)
    watch_timestep(network, network.timesteps.set)
    copy = deepcopy(network)
    copy(1, torch.tensor([500.0]))
    assert copy.timesteps.pick(RANGES, 1).tolist() == [[5.0], [50.0]]
    with pytest.raises(UnsupportedError):
        network.timesteps.pick(RANGES, 1)


def test_a_network_without_timestep_is_refused():
    with pytest.raises(UnsupportedError, match="takes input but no timestep"):
        watch_timestep(nn.Linear(1, 1), print)
