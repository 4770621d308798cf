"""Wake-ups are never missed, and many make one."""

import asyncio

from orderkeep.messaging.signal import Signal, is_set_within


async def test_a_call_before_the_wait_wakes_it():
    signal = Signal()

    signal.set()
    signal.set()

    assert await signal.wait(timeout_s=5)


async def test_a_call_that_was_cleared_wakes_nobody():
    signal = Signal()
    signal.set()

    signal.clear()

    assert not await signal.wait(timeout_s=0)
    assert not await signal.wait(timeout_s=0.001)


async def test_no_time_to_wait_asks_only():
    signal = Signal()
    signal.set()

    assert await signal.wait(timeout_s=0)


async def test_the_stop_event_wakes_as_well():
    signal, stop = Signal(), asyncio.Event()

    async with signal.also_set_by(stop):
        stop.set()

        assert await signal.wait(timeout_s=5)


async def test_the_stop_event_wakes_nobody_once_the_context_is_left():
    signal, stop = Signal(), asyncio.Event()
    async with signal.also_set_by(stop):
        pass

    stop.set()

    assert not await signal.wait(timeout_s=0.001)


async def test_a_pause_tells_whether_it_was_cut_short():
    event = asyncio.Event()

    assert not await is_set_within(event, timeout_s=0.001)
    event.set()
    assert await is_set_within(event, timeout_s=5)
