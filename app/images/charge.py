"""What a request costs its key."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from app.access.auth import Caller
from app.deps import Service
from core.errors import CapacityError, GenerationCancelledError


class Charge:
    """What a request costs its key, taken at once and given back if the server did not serve it.

    Args:
        service: Has the accounts.
        caller: Who pays.
        cost_units: How much.
    """

    def __init__(self, service: Service, caller: Caller, cost_units: float) -> None:
        self._quotas = service.quotas
        self._caller = caller
        self._cost_units = cost_units

    async def take(self) -> None:
        """Take it; what the key does not have is raised."""
        if self._caller.is_limited:
            await asyncio.to_thread(self._quotas.charge, self._caller, self._cost_units)

    @asynccontextmanager
    async def given_back_on_error(self) -> AsyncIterator[None]:
        """Give it back if the block raises, as `give_back_for` does."""
        try:
            yield
        except Exception as error:
            await self.give_back_for(error)
            raise

    async def give_back_for(self, error: Exception) -> None:
        """Give it back, unless the caller left by themselves or asked for what cannot be.

        Args:
            error: What ended the request.
        """
        is_theirs = isinstance(error, GenerationCancelledError)
        if self._caller.is_limited and not is_theirs:
            # an account that cannot be reached now must not hide the error itself
            with suppress(CapacityError):
                await asyncio.to_thread(self._quotas.refund, self._caller, self._cost_units)
