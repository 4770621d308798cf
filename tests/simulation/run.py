"""Runs one seed, and returns what became of it."""

import asyncio
import gc
from collections import Counter
from dataclasses import dataclass

from tests.simulation.breach import Breach
from tests.simulation.dice import stream
from tests.simulation.invariants import check, check_late, digest, missing, race_winners, unrest
from tests.simulation.operator_work import Operator
from tests.simulation.product_log import hear_logs
from tests.simulation.world import World, deadly_points

# After the healing; reconciliation alone waits for 30 s before it misses anything.
_REST_WITHIN_S = 400.0

_LOOK_EVERY_S = 5.0

# Of so many worlds one has every message delivered again at its end.
_REPEATED_ONE_OF = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one seed.

    Attributes:
        orders_count: Orders that buyers asked for; `stored_count` were made.
        digest: Of everything that happened, in order.
    """

    seed: int
    breaches: tuple[Breach, ...]
    digest: str
    orders_count: int
    stored_count: int
    commits_count: int
    virtual_s: float
    faults: Counter[str]
    points: Counter[str]
    races: Counter[str]
    ends: Counter[str]
    asked: Counter[str]


def run_seed(seed: int, *, orders_count: int, is_traced: bool = False) -> Outcome:
    """Run the seed's world to its rest, and look at it."""
    hear_logs(is_shown=is_traced)
    world = World(seed, orders_count=orders_count, is_traced=is_traced)
    is_collecting = gc.isenabled()
    gc.disable()
    try:
        with deadly_points():
            world.loop.run_until_complete(_live(world))
            return _outcome(world)
    finally:
        world.close()
        if is_collecting:
            gc.enable()


async def _live(world: World) -> None:
    shopping = world.start()
    world.broker.keeps_log = stream(world.seed, "repeat").randrange(_REPEATED_ONE_OF) == 0
    while world.loop.now_s < world.heal_at_s:
        await asyncio.sleep(1.0)
        if world.watch.breaches:
            return
    world.heal()
    operator = Operator(world)
    await operator.replay_dead_letters()
    if not await _rest(world, operator, shopping=shopping):
        return
    check(world)
    if world.broker.keeps_log and not world.watch.breaches:
        await _deliver_again(world, operator)


async def _rest(world: World, operator: Operator, *, shopping: list[asyncio.Task[None]]) -> bool:
    """Wait until nothing moves any more; return whether that came in time, and nothing broke."""
    give_up_at_s = world.loop.now_s + _REST_WITHIN_S
    while not world.watch.breaches:
        await asyncio.sleep(_LOOK_EVERY_S)
        check_late(world)
        await operator.settle_cases()
        moving = unrest(world)
        buying_count = sum(not task.done() for task in shopping)
        if buying_count:
            moving.append(f"{buying_count} buyers are not done")
        if not moving:
            moving = [f"{queue} lacks {id_}" for queue, id_ in missing(world)]
        if not moving:
            return not world.watch.breaches
        if world.loop.now_s > give_up_at_s:
            # What is wrong with an order says more than that something is still under way.
            check(world)
            world.watch.breach("I15", "world", f"does not come to rest: {'; '.join(moving[:5])}")
    return False


async def _deliver_again(world: World, operator: Operator) -> None:
    """Deliver every message once more, in any order: nothing may change (I12)."""
    before = digest(world)
    entries = list(world.broker.log)
    stream(world.seed, "again").shuffle(entries)
    world.broker.keeps_log = False
    for queue, entry in entries:
        if entry.message_id is not None:
            world.broker.put_again(queue, entry)
    if await _rest(world, operator, shopping=[]) and digest(world) != before:
        changed = [
            f"{new} was {old}"
            for old, new in zip(before.split("\n"), digest(world).split("\n"), strict=True)
            if old != new
        ]
        world.watch.breach("I12", "world", f"repeated messages changed it: {changed[0][:2000]}")


def _outcome(world: World) -> Outcome:
    return Outcome(
        seed=world.seed,
        breaches=tuple(world.watch.breaches),
        digest=world.trace.digest,
        orders_count=len(world.shoppers),
        stored_count=len(world.watch._lines),
        commits_count=world.watch.commits_count,
        virtual_s=world.loop.now_s,
        faults=world.faults.counts,
        points=world.points_fired,
        races=race_winners(world),
        ends=world.watch.transitions,
        asked=world.front.outcomes,
    )
