"""Clients that ask, wait for the answer and ask again; and what they saw."""

import asyncio
import itertools
import math
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import httpx2

PROMPTS = (
    "a red apple",
    "a blue cup left of a yellow star",
    "two green trees above a brown dog, watercolor",
    "a small orange cat on a sandy beach at night, with a red umbrella to its right, pixel art",
)


@dataclass(kw_only=True, slots=True)
class Seen:
    """What clients saw of a server.

    Attributes:
        seconds: How long each answered request took.
        elapsed_s: How long the clients were at it.
        failures: Status codes of answers that were no pictures.
    """

    seconds: list[float] = field(default_factory=list)
    elapsed_s: float = 0.0
    failures: list[int] = field(default_factory=list)

    def add(self, other: "Seen") -> None:
        """Take another round of the same load in.

        Args:
            other: What was seen in it.
        """
        self.seconds += other.seconds
        self.elapsed_s += other.elapsed_s
        self.failures += other.failures

    @property
    def rps(self) -> float:
        """Answered requests a second."""
        return len(self.seconds) / self.elapsed_s

    def quantile_s(self, share: float) -> float:
        """Return the time within which a share of the requests was answered, in seconds.

        Args:
            share: 0..1; the nearest rank is taken.
        """
        return sorted(self.seconds)[max(0, math.ceil(share * len(self.seconds)) - 1)]

    @property
    def median_s(self) -> float:
        """Median time of a request, in seconds."""
        return statistics.median(self.seconds)


async def press(
    base_url: str, *, num_clients: int, num_requests: int, steps: int, guidance: float
) -> Seen:
    """Let clients ask one server, each for its next picture when it has its last one.

    Args:
        base_url: The server, with its `/v1`.
        num_clients: Clients at once.
        num_requests: Requests in all.
        steps: Denoising steps of each picture.
        guidance: Guidance scale of each picture.

    Returns:
        What they saw.
    """
    seen = Seen()
    asked: Iterator[int] = iter(range(num_requests))
    prompts = itertools.cycle(PROMPTS)

    async def ask_on(client: httpx2.AsyncClient) -> None:
        for seed in asked:
            body = {"prompt": next(prompts), "seed": seed, "steps": steps, "guidance": guidance}
            began = time.perf_counter()
            answer = await client.post(f"{base_url}/images/generations", json=body)
            if answer.status_code != 200:
                seen.failures.append(answer.status_code)
                continue
            assert answer.json()["data"][0]["b64_json"]
            seen.seconds.append(time.perf_counter() - began)

    started = time.perf_counter()
    limits = httpx2.Limits(max_connections=num_clients)
    async with httpx2.AsyncClient(timeout=600, limits=limits) as client:
        await asyncio.gather(*(ask_on(client) for _ in range(num_clients)))
    seen.elapsed_s = time.perf_counter() - started
    return seen
