import asyncio
from collections.abc import Callable

import pytest

from app.worker import UNMEASURED_RETRY_S, DeviceWorker, cost_of
from core.errors import GenerationCancelledError, QueueFullError, ShuttingDownError
from pipelines.spec import GenerationSpec
from tests.app.conftest import SteppedGenerator

SPEC = GenerationSpec(prompt="a red apple", num_steps=10)


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  (another thread brings it about)
            await asyncio.sleep(0.002)


def test_cost_grows_with_pixels_steps_and_guidance() -> None:
    twice = [
        GenerationSpec(prompt="a", num_steps=20),
        GenerationSpec(prompt="a", num_steps=10, width=256),
    ]
    assert [cost_of(spec) for spec in twice] == [2 * cost_of(SPEC)] * 2
    assert cost_of(GenerationSpec(prompt="a", num_steps=20, guidance_scale=1.0)) == cost_of(SPEC)


def test_before_anything_was_timed_a_refusal_says_so_by_a_fixed_time(
    stepped: SteppedGenerator,
) -> None:
    async def scenario() -> None:
        worker = DeviceWorker(stepped, queue_capacity=1)
        stepped.stop_before_each_step()
        running = asyncio.create_task(worker.generate([SPEC]))
        await _until(lambda: worker.num_waiting == 0 and stepped.is_cancelled() is False)
        await asyncio.sleep(0.05)
        waiting = asyncio.create_task(worker.generate([SPEC]))
        await _until(lambda: worker.num_waiting == 1)
        assert worker.backlog_s() is None
        with pytest.raises(QueueFullError) as caught:
            await worker.generate([SPEC])
        assert caught.value.retry_after_s == UNMEASURED_RETRY_S
        stepped.run_freely()
        assert len(await running) == len(await waiting) == 1
        assert worker.backlog_s() == 0
        await worker.close()

    asyncio.run(scenario())


def test_closing_stops_the_running_work_and_takes_no_more(stepped: SteppedGenerator) -> None:
    async def scenario() -> None:
        worker = DeviceWorker(stepped, queue_capacity=3)
        stepped.stop_before_each_step()
        running = asyncio.create_task(worker.generate([SPEC]))
        stepped.allow(2)
        await _until(lambda: stepped.steps_done == 2)
        waiting = asyncio.create_task(worker.generate([SPEC]))
        await _until(lambda: worker.num_waiting == 1)
        closing = asyncio.create_task(worker.close())
        await _until(stepped.is_cancelled)
        stepped.run_freely()
        await closing
        with pytest.raises(GenerationCancelledError):
            await running
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert stepped.steps_done == 2
        with pytest.raises(ShuttingDownError):
            await worker.generate([SPEC])

    asyncio.run(scenario())
