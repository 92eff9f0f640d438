"""Ten times as many clients as there are places: is every refusal honest, and does memory hold?"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import httpx2
import psutil

from cli.server_process import ServerProcess

MEGABYTE = 1e6


@dataclass(slots=True)
class Ledger:
    """What clients saw, in seconds of one clock.

    Attributes:
        painted: When each answered request was sent, and when it was answered.
        refused: When each refusal came, and what its Retry-After said.
        others: Status codes that are neither 200 nor 429 nor 503.
    """

    painted: list[tuple[float, float]] = field(default_factory=list)
    refused: list[tuple[float, float]] = field(default_factory=list)
    others: list[int] = field(default_factory=list)

    def honest_share(self) -> float:
        """Return the share of refusals whose Retry-After was right within a factor of two.

        Right is when the last request that was inside at the refusal was answered. A second of
        slack stands for the header's whole seconds.
        """
        ratios = []
        for moment, said_s in self.refused:
            inside = [end for start, end in self.painted if start <= moment <= end]
            if inside:
                took_s = max(inside) - moment
                ratios.append(took_s / 2 - 1 <= said_s <= 2 * took_s + 1)
        return sum(ratios) / len(ratios)

    def counts(self) -> dict[str, float]:
        """Return how many answers there were of each kind, and how honest the refusals were."""
        return {
            "overload_200": len(self.painted),
            "overload_429_503": len(self.refused),
            "overload_other": len(self.others),
            "overload_honest": round(self.honest_share(), 3),
        }


def measure_overload(
    server: ServerProcess, *, num_clients: int, seconds: float, steps: int, guidance: float
) -> dict[str, float]:
    """Press a server with more clients than it has places for.

    Clients that are refused come back when Retry-After has passed.

    Args:
        server: A warm server.
        num_clients: Clients at once.
        seconds: How long they come.
        steps: Steps of a picture.
        guidance: Guidance scale of a picture.

    Returns:
        overload_200, overload_429_503, overload_other: Answers by status.
        overload_honest: Share of refusals whose Retry-After was right within a factor of two.
        overload_grown_mb: Growth of the server's resident memory from a tenth of the time on to
            the end, in 10^6 bytes; overload_grown_late_mb, in the second half of it.
    """
    process = psutil.Process(server.process.pid)
    ledger = Ledger()
    body = {"prompt": "a red apple", "steps": steps, "guidance": guidance}
    resident: list[int] = []

    async def come_back(client: httpx2.AsyncClient, ends_at: float) -> None:
        while (sent := time.perf_counter()) < ends_at:
            answer = await client.post(f"{server.base_url}/images/generations", json=body)
            now = time.perf_counter()
            if answer.status_code == 200:
                ledger.painted.append((sent, now))
            elif answer.status_code in {429, 503}:
                said_s = float(answer.headers["retry-after"])
                ledger.refused.append((now, said_s))
                await asyncio.sleep(min(said_s, max(0.0, ends_at - now)))
            else:
                ledger.others.append(answer.status_code)

    async def watch(ends_at: float) -> None:
        await asyncio.sleep(seconds / 10)
        while time.perf_counter() < ends_at:
            resident.append(process.memory_info().rss)
            await asyncio.sleep(1)

    async def press() -> None:
        ends_at = time.perf_counter() + seconds
        limits = httpx2.Limits(max_connections=num_clients)
        async with httpx2.AsyncClient(timeout=600, limits=limits) as client:
            clients = (come_back(client, ends_at) for _ in range(num_clients))
            await asyncio.gather(watch(ends_at), *clients)

    asyncio.run(press())
    return {**ledger.counts(), **_growth(resident)}


def _growth(resident: Sequence[int]) -> dict[str, float]:
    first, middle, last = resident[0], resident[len(resident) // 2], resident[-1]
    return {
        "overload_grown_mb": round((last - first) / MEGABYTE, 1),
        "overload_grown_late_mb": round((last - middle) / MEGABYTE, 1),
    }
