"""Killed at any step, the kernel loses nothing and does nothing twice."""

import asyncio
import multiprocessing
import signal
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest

from orderkeep.database.sqlite import SqliteDatabase
from tests.integration.messaging import crash_child
from tests.integration.messaging.crash_child import drain
from tests.integration.messaging.shop_kernel import Shop, create_tables, open_shop, parcel, shop_on

# Where, and for the how-manieth time there. The poison is tried again in the fourth commit of the
# consumer at the earliest, and set aside in the seventh.
POINTS = [
    "dispatcher.after_read:1",
    "dispatcher.after_publish:1",
    "dispatcher.after_publish:3",
    "dispatcher.before_settle:2",
    "dispatcher.after_settle:1",
    "delivery.after_take:1",
    "delivery.before_handle:3",
    "delivery.after_handle:2",
    "delivery.before_commit:1",
    "delivery.before_commit:4",
    "delivery.before_commit:7",
    "delivery.after_commit:1",
    "delivery.after_commit:4",
    "delivery.after_commit:7",
    "delivery.after_acknowledge:2",
    "database.before_commit:5",
    "database.after_commit:5",
]

KILLED = -signal.SIGKILL


@pytest.fixture(scope="module")
def children() -> ForkServerContext:
    """Where children come from: a process that has imported what they need, and runs nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", crash_child.__name__])
    return context


async def run_child(children: ForkServerContext, *arguments: str) -> int | None:
    """Return what the child ended with."""
    child = children.Process(target=crash_child.main, args=(list(arguments),))
    child.start()
    try:
        await asyncio.to_thread(child.join, timeout=60)
        return child.exitcode
    finally:
        child.kill()
        child.join()
        child.close()


async def seed(path: Path, *, odd_body: str) -> None:
    """Append two events of each of three parcels, and an odd one among them."""
    database = SqliteDatabase(path)
    await create_tables(database)
    shop = shop_on(database)
    await shop.append(
        *[parcel(number, sequence=1) for number in range(3)],
        parcel(9, body=odd_body),
        *[parcel(number, sequence=2) for number in range(3)],
    )
    await shop.database.close()


async def order_of_effects(shop: Shop) -> dict[str, list[str]]:
    """Return the effects on each parcel, in their order."""
    seen: dict[str, list[str]] = {}
    for row in await shop.rows("SELECT body FROM effects ORDER BY id"):
        aggregate, _, _sequence = row["body"].partition("/")
        seen.setdefault(aggregate, []).append(row["body"])
    return seen


async def check(path: Path, *, reason: str) -> None:
    """See that each event took effect once and in order, and the odd one is set aside once."""
    shop = open_shop(path)
    (letter,) = await shop.rows("SELECT message_id, reason, tries FROM shop_dead_letters")
    assert (letter["message_id"], letter["reason"]) == ("P9-1-parcels", reason)
    assert await order_of_effects(shop) == {
        "P0": ["P0/1", "P0/2"],
        "P1": ["P1/1", "P1/2"],
        "P2": ["P2/1", "P2/2"],
    }
    inbox = await shop.rows("SELECT message_id FROM shop_inbox ORDER BY message_id")
    assert [row["message_id"] for row in inbox] == [
        "P0-1-parcels",
        "P0-2-parcels",
        "P1-1-parcels",
        "P1-2-parcels",
        "P2-1-parcels",
        "P2-2-parcels",
    ]
    assert await shop.rows("SELECT 1 FROM shop_outbox WHERE state != 'sent'") == []
    assert await shop.rows("SELECT 1 FROM queue_messages") == []
    assert await shop.rows("SELECT 1 FROM shop_delivery_attempts") == []
    await shop.database.close()


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS)
async def test_a_kill_at_a_step_loses_and_doubles_nothing(
    tmp_path: Path, children: ForkServerContext, point: str
):
    path = tmp_path / "shop.db"
    await seed(path, odd_body="poison")

    ended_with = await run_child(children, str(path), point)
    await drain(open_shop(path))

    assert ended_with == KILLED
    await check(path, reason="out_of_tries")


@pytest.mark.slow
async def test_a_message_that_kills_its_consumer_is_set_aside_and_takes_nobody_with_it(
    tmp_path: Path, children: ForkServerContext
):
    path = tmp_path / "shop.db"
    await seed(path, odd_body="deadly")

    ends = [await run_child(children, str(path)) for _ in range(5)]

    # Once in the batch, uncounted; three times alone; then it is not tried any more.
    assert ends == [KILLED, KILLED, KILLED, KILLED, 0]
    await check(path, reason="kills_its_consumer")
