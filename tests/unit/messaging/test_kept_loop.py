"""A loop ends only when it is told to."""

import asyncio

import pytest
from structlog.testing import capture_logs

from orderkeep.messaging.kept_loop import keep_running


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orderkeep.messaging.kept_loop.PAUSE_BASE_S", 0.001)
    monkeypatch.setattr("orderkeep.messaging.kept_loop.PAUSE_MAX_S", 0.004)


async def test_a_loop_that_falls_over_stands_up_again():
    stop = asyncio.Event()
    is_well = asyncio.Event()
    starts = []

    async def run(stop: asyncio.Event) -> None:
        starts.append(1)
        if len(starts) < 4:
            raise ZeroDivisionError
        is_well.set()
        await stop.wait()

    with capture_logs() as logs:
        kept_task = asyncio.create_task(
            keep_running(run, name="test", stop=stop, draw_jitter=lambda: 0.5)
        )
        async with asyncio.timeout(10):
            await is_well.wait()
        stop.set()
        await kept_task

    assert [line["event"] for line in logs] == ["loop_failed"] * 3
    assert logs[0]["loop"] == "test"
    assert logs[0]["exc_info"]
    assert [line["pause_s"] for line in logs] == [0.0, 0.0, 0.0]


async def test_a_loop_that_ends_untold_is_started_again():
    stop = asyncio.Event()
    starts = []

    async def run(stop: asyncio.Event) -> None:
        starts.append(1)
        if len(starts) == 2:
            stop.set()

    with capture_logs() as logs:
        async with asyncio.timeout(10):
            await keep_running(run, name="test", stop=stop, draw_jitter=lambda: 0.5)

    assert len(starts) == 2
    assert [line["event"] for line in logs] == ["loop_ended"]


async def test_nothing_is_started_once_all_is_told_to_stop():
    stop = asyncio.Event()
    stop.set()

    async def run(_stop: asyncio.Event) -> None:
        raise AssertionError

    await keep_running(run, name="test", stop=stop, draw_jitter=lambda: 0.5)


async def test_a_pause_ends_with_the_stop_event(monkeypatch: pytest.MonkeyPatch):
    stop = asyncio.Event()
    has_failed = asyncio.Event()

    async def run(_stop: asyncio.Event) -> None:
        has_failed.set()
        raise ZeroDivisionError

    monkeypatch.setattr("orderkeep.messaging.kept_loop.PAUSE_BASE_S", 100)
    monkeypatch.setattr("orderkeep.messaging.kept_loop.PAUSE_MAX_S", 100)
    task = asyncio.create_task(keep_running(run, name="test", stop=stop, draw_jitter=lambda: 0.5))
    await has_failed.wait()
    stop.set()

    async with asyncio.timeout(10):
        await task
