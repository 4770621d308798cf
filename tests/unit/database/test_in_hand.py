"""Work goes on to its end although whoever asked for it is gone, and nobody complains."""

import asyncio
from typing import Any

import pytest

from orderkeep.database.in_hand import InHand
from orderkeep.database.transaction import StoreUnavailableError


async def test_whoever_asked_hears_of_a_failure() -> None:
    async def work() -> None:
        message = "away"
        raise StoreUnavailableError(message)

    with pytest.raises(StoreUnavailableError, match="away"):
        await InHand().run(work())


async def test_a_failure_that_nobody_is_left_to_hear_of_is_no_complaint_of_the_loop() -> None:
    complaints: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, context: complaints.append(context))
    in_hand, may_go_on = InHand(), asyncio.Event()
    has_failed = asyncio.Event()

    async def work() -> None:
        await may_go_on.wait()
        has_failed.set()
        message = "away"
        raise StoreUnavailableError(message)

    asking = asyncio.create_task(in_hand.run(work()))
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    may_go_on.set()
    await in_hand.end(within_s=10.0)

    assert has_failed.is_set()
    assert in_hand._tasks == set()
    # What was not looked at is told of when it is forgotten.
    del asking
    await asyncio.sleep(0)
    assert complaints == []
