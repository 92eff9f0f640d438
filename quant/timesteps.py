"""Which timestep a forward pass is at, told by its own argument and never by counting calls."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from inspect import signature
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from core.errors import UnsupportedError


class Timesteps:
    """The timesteps that input ranges were stored for, and where the running pass lies among them.

    Args:
        table: Timesteps in the order of sampling, strictly falling; may be empty.
    """

    def __init__(self, table: Sequence[float]) -> None:
        self.table = tuple(table)
        self._places: Tensor | None = None  # of rows at different timesteps
        self._place: float | None = None  # of rows at one timestep

    def set(self, timestep: Tensor) -> None:
        """Note the timesteps of the rows that are about to run.

        Args:
            timestep: One per row, or one for all.
        """
        if len(self.table) < 2:
            return
        times = timestep.detach().float().reshape(-1)
        table = torch.tensor(self.table[::-1], device=times.device)  # rising, for searchsorted
        times = times.clamp(table[0], table[-1])
        low = torch.searchsorted(table, times, right=True).sub(1).clamp(0, len(table) - 2)
        rising = low + (times - table[low]) / (table[low + 1] - table[low])
        places = len(table) - 1 - rising
        is_one = bool((places == places[0]).all())
        self._place, self._places = (float(places[0]), None) if is_one else (None, places)

    @contextmanager
    def of_row(self, place: int) -> Iterator[None]:
        """Let layers hear one row of the pass alone.

        Args:
            place: Which of its rows.

        Yields:
            While the ranges are that row's.
        """
        if self._places is None:  # all rows are at one timestep
            yield
            return
        places, self._places = self._places, None
        self._place = float(places[place])
        try:
            yield
        finally:
            self._place, self._places = None, places

    def pick(self, ranges: Float[Tensor, "k t"], num_rows: int) -> Float[Tensor, "k b"]:
        """Return each row's entry of a table over the timesteps, between two entries their mix.

        Args:
            ranges: A column for each timestep of the table, or one for all.
            num_rows: Rows that the layer hears.

        Returns:
            One column for each row, or a single one where all rows are at the same timestep.

        Raises:
            UnsupportedError: If the layer runs outside of its network, or with rows that are not
                those of the pass.
        """
        if ranges.shape[1] == 1:
            return ranges
        if self._place is not None:
            before, share = int(self._place), self._place % 1
            if share == 0:
                return ranges[:, before : before + 1]
            return torch.lerp(ranges[:, before, None], ranges[:, before + 1, None], share)
        if self._places is None:
            raise UnsupportedError(
                "A layer with input ranges per timestep was called outside of its transformer: "
                "call the transformer with its timestep."
            )
        if len(self._places) != num_rows:
            raise UnsupportedError(
                f"A layer hears {num_rows} rows in a pass of {len(self._places)} different "
                "timesteps: quantize with activations per token."
            )
        first = self._places.long().clamp(max=ranges.shape[1] - 2)
        shares = (self._places - first).to(ranges.dtype)
        return torch.lerp(ranges[:, first], ranges[:, first + 1], shares)


def watch_timestep(transformer: nn.Module, listener: Callable[[Tensor], None]) -> RemovableHandle:
    """Tell a listener the timestep of every forward pass, before it runs.

    Args:
        transformer: A diffusion transformer whose forward takes `timestep`.
        listener: Told the argument as a tensor.

    Returns:
        A handle that ends it.

    Raises:
        UnsupportedError: If the forward takes no timestep.
    """
    parameters = signature(transformer.forward).parameters
    if "timestep" not in parameters:
        raise UnsupportedError(
            f"{type(transformer).__name__}.forward takes {', '.join(parameters)} but no timestep."
        )
    teller = _Teller(listener, list(parameters).index("timestep"))
    return transformer.register_forward_pre_hook(teller, with_kwargs=True)


class _Teller:
    # An object and no closure: a deep copy of the network then tells the copy's own listener.
    def __init__(self, listener: Callable[[Tensor], None], position: int) -> None:
        self._listener, self._position = listener, position

    def __call__(self, _: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        here = len(args) > self._position
        given = args[self._position] if here else kwargs.get("timestep")
        if given is not None:
            self._listener(given if isinstance(given, Tensor) else torch.tensor(given))
