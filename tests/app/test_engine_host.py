"""The bridge between the engine's thread and the event loop."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from app.engine_host import EngineHost
from core.errors import GenerationCancelledError, NumericsError, QueueFullError, ShuttingDownError
from pipelines.engine import Engine
from pipelines.events import Done, Failed, Painted, Preview, Queued, Started, StepDone
from pipelines.intake import Intake
from pipelines.orders import Limits, Order
from pipelines.spec import GenerationSpec
from tests.app.conftest import SteppedPainter

SPEC = GenerationSpec(prompt="a red apple", seed=7, num_steps=3)


@asynccontextmanager
async def hosting(painter: SteppedPainter, **limits: Any) -> AsyncIterator[EngineHost]:
    host = EngineHost(Engine(Intake({"default": painter}, Limits(**limits))))
    try:
        yield host
    finally:
        painter.run_freely()
        await host.close()


async def _until_steps(painter: SteppedPainter, num_steps: int) -> None:
    async with asyncio.timeout(20):
        while painter.passes_begun <= num_steps:  # noqa: ASYNC110  (another thread brings it about)
            await asyncio.sleep(0.002)


def test_events_arrive_in_order_on_the_loop(stepped: SteppedPainter) -> None:
    async def scenario() -> None:
        async with hosting(stepped) as host:
            order = Order(wants_steps=True, num_previews=1)
            async with host.submit([SPEC], order) as request:
                events = [event async for event in request]
            kinds = [type(event) for event in events]
            assert kinds[:2] == [Queued, Started]
            assert kinds[-2:] == [Painted, Done]
            assert kinds.count(StepDone) == 3
            assert kinds.count(Preview) == 1

    asyncio.run(scenario())


def test_who_wants_only_the_end_gets_results_or_the_error(stepped: SteppedPainter) -> None:
    async def scenario() -> None:
        async with hosting(stepped) as host:
            (result,) = await host.generate([SPEC])
            assert result.spec == SPEC
            stepped.failure = NumericsError("NaN.")
            with pytest.raises(NumericsError):
                await host.generate([SPEC])
            stepped.failure = None
            assert await host.generate([SPEC])

    asyncio.run(scenario())


def test_a_cancelled_task_takes_its_request_along_before_the_next_step(
    stepped: SteppedPainter,
) -> None:
    async def scenario() -> None:
        async with hosting(stepped) as host:
            stepped.stop_before_each_step()
            task = asyncio.create_task(host.generate([SPEC]))
            stepped.allow(1)
            await _until_steps(stepped, 1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert host.state().is_idle
            stepped.run_freely()
            await host.generate([SPEC])
            assert stepped.steps_done == 1 + 3
            assert host.intake.counters.cancelled == 1

    asyncio.run(scenario())


def test_leaving_the_block_cancels_and_is_told(stepped: SteppedPainter) -> None:
    async def scenario() -> None:
        async with hosting(stepped) as host:
            stepped.stop_before_each_step()
            async with host.submit([SPEC]) as request:
                pass
            events = [event async for event in request]
            assert isinstance(events[-1], Failed)
            assert isinstance(events[-1].error, GenerationCancelledError)

    asyncio.run(scenario())


def test_the_loop_turns_while_the_engine_computes(stepped: SteppedPainter) -> None:
    async def scenario() -> None:
        async with hosting(stepped) as host:
            stepped.stop_before_each_step()
            task = asyncio.create_task(host.generate([SPEC]))
            await _until_steps(stepped, 0)
            assert threading.current_thread() is threading.main_thread()
            assert host.state().num_running == 1
            stepped.run_freely()
            assert await task

    asyncio.run(scenario())


def test_a_full_queue_refuses_on_the_spot(stepped: SteppedPainter) -> None:
    async def scenario() -> None:
        async with hosting(stepped, max_waiting=1) as host:
            stepped.stop_before_each_step()
            running = asyncio.create_task(host.generate([SPEC]))
            await _until_steps(stepped, 0)
            waiting = asyncio.create_task(host.generate([SPEC]))
            await asyncio.sleep(0.01)
            assert host.state().num_waiting == 1
            with pytest.raises(QueueFullError):
                host.submit([SPEC])
            stepped.run_freely()
            assert len(await running) == len(await waiting) == 1

    asyncio.run(scenario())


def test_draining_finishes_what_was_taken_and_says_if_it_could_not(
    stepped: SteppedPainter,
) -> None:
    async def scenario() -> None:
        async with hosting(stepped) as host:
            stepped.stop_before_each_step()
            task = asyncio.create_task(host.generate([SPEC]))
            await _until_steps(stepped, 0)
            assert not await host.drain(0.05)
            with pytest.raises(ShuttingDownError):
                host.submit([SPEC])
            stepped.run_freely()
            assert await host.drain(20.0)
            assert await task

    asyncio.run(scenario())


def test_closing_ends_the_rest_and_the_thread(stepped: SteppedPainter) -> None:
    async def scenario() -> None:
        async with hosting(stepped) as host:
            stepped.stop_before_each_step()
            task = asyncio.create_task(host.generate([SPEC]))
            await _until_steps(stepped, 0)
            closing = asyncio.create_task(host.close())
            with pytest.raises(ShuttingDownError):
                await task
            stepped.run_freely()
            await closing
            assert stepped.steps_done == 0

    asyncio.run(scenario())


def test_a_loop_that_has_gone_does_not_hurt_the_engine(stepped: SteppedPainter) -> None:
    engine = Engine(Intake({"default": stepped}, Limits()))
    host = EngineHost(engine)
    stepped.stop_before_each_step()

    async def leave_at_once() -> None:
        host.submit([SPEC])

    asyncio.run(leave_at_once())
    stepped.run_freely()
    assert engine.intake.wait_until_idle(20.0)
    assert asyncio.run(host.generate([SPEC]))
    asyncio.run(host.close())
