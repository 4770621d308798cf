"""Runs what a process is made of until told to stop.

Invariant: on the way out requests are finished first, then the messages in hand. Correctness does
not rest on that: a kill at any instant loses nothing.
"""

import asyncio
from collections.abc import Mapping

import structlog

from orderkeep.contracts.topology import TOPOLOGY
from orderkeep.messaging.broker import BrokerRefusedError
from orderkeep.messaging.kept_loop import keep_running
from orderkeep.web.health import Readiness
from orderkeep.web.server import Listener, serve
from orderkeep.wiring import chance
from orderkeep.wiring.parts import Run
from orderkeep.wiring.preparation import WrongSetupError
from orderkeep.wiring.shop import Shop

log = structlog.get_logger()

_QUEUES = frozenset(queue.name for queue in TOPOLOGY.queues)

# What no waiting mends: a person has to, and is told how.
FATAL_ERRORS = (BrokerRefusedError, WrongSetupError)


# What there is to do with some settings only: a fleet that is split by parts names it all the same.
_AT_TIMES = {"webhooks": "ORDERKEEP_WEBHOOK_URLS is unset, so nobody is told"}


class UnknownLoopError(Exception):
    """A name of nothing that this process could do; the message says what there is."""


async def run_shop(
    shop: Shop, *, listener: Listener, stop: asyncio.Event, shutdown_s: float
) -> None:
    """Run the shop until the stop event is set, then finish what is in hand.

    Args:
        shop: What to run.
        listener: Where HTTP is answered.
        stop: Set to end.
        shutdown_s: How long the end may take: half of it for requests, the rest for messages.

    Raises:
        BrokerRefusedError: the broker has been set up so that messages would go wrong.
        WrongSetupError: a database that was away at the start is not as it should be.
    """
    # Requests end before the loops: an order in hand still needs its intake.
    stop_loops = asyncio.Event()
    running = [
        asyncio.create_task(_keep(run, name=name, stop=stop_loops, stop_all=stop), name=name)
        for name, run in shop.loops.items()
    ]
    announcing = asyncio.create_task(_announce_shutdown(shop.readiness, stop=stop))
    try:
        await serve(
            shop.app.asgi, listener, stop=stop, shutdown_s=shutdown_s / 2, door=shop.app.door
        )
    finally:
        announcing.cancel()
        stop_loops.set()
        _, late = await asyncio.wait(running, timeout=max(shutdown_s / 2, 0.1))
        for task in late:
            log.warning("loop_cancelled", loop=task.get_name())
            task.cancel()
        ended = await asyncio.gather(*running, return_exceptions=True)
    for outcome in ended:
        if isinstance(outcome, FATAL_ERRORS):
            raise outcome


def chosen_loops(loops: Mapping[str, Run], names: tuple[str, ...]) -> dict[str, Run]:
    """Return the loops that are named; a name may also be that of a kind, such as `dispatchers`.

    Raises:
        UnknownLoopError: a name is that of nothing here.
    """
    kinds = {
        "dispatchers": {name for name in loops if name.endswith("-dispatcher")},
        "retention": {name for name in loops if name.endswith("-retention")},
        "reconciliation": {name for name in loops if name.endswith("-reconciliation")},
        "consumers": {name for name in loops if name in _QUEUES},
    }
    chosen: set[str] = set()
    for name in names:
        found = kinds.get(name, {name} & loops.keys())
        if not found and name in _AT_TIMES:
            log.warning("nothing_to_do", only=name, hint=_AT_TIMES[name])
            continue
        if not found:
            allowed = ", ".join(sorted([*kinds, *loops]))
            message = f"there is nothing named {name!r} to do here; there is: {allowed}"
            raise UnknownLoopError(message)
        chosen |= found
    return {name: run for name, run in loops.items() if name in chosen}


async def _keep(run: Run, *, name: str, stop: asyncio.Event, stop_all: asyncio.Event) -> None:
    try:
        await keep_running(
            run, name=name, stop=stop, draw_jitter=chance.draw_jitter, fatal=FATAL_ERRORS
        )
    except FATAL_ERRORS:
        stop_all.set()
        raise


async def _announce_shutdown(readiness: Readiness, *, stop: asyncio.Event) -> None:
    await stop.wait()
    readiness.begin_shutdown()
    log.info("shutting_down")
