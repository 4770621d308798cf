"""What is acknowledged without effect is really on its way: a try that was given up is none."""

from collections.abc import Sequence

import pytest
from structlog.testing import capture_logs

from orderkeep.database.transaction import Transaction
from orderkeep.messaging import (
    HANDLED,
    Message,
    MessageOutcome,
    Outcome,
    Received,
    TryLater,
)
from tests.integration.messaging.shop_kernel import Shop, record_effects
from tests.integration.messaging.test_delivery import NOW

LATER = TryLater(reason="unknown_order", detail="no order has this number")


class Postponing:
    """Lets every message wait until it is told that what it waits for has come."""

    def __init__(self) -> None:
        self.is_there = False
        self.attempts: list[int] = []

    async def __call__(
        self, transaction: Transaction, batch: Sequence[Received[str]]
    ) -> Sequence[Outcome]:
        self.attempts += [received.attempt for received in batch]
        if not self.is_there:
            return [LATER] * len(batch)
        await record_effects(transaction, batch)
        return [HANDLED] * len(batch)


async def report(shop: Shop) -> None:
    """Let the message come, as its sender sends it."""
    sent = Message(
        route="parcels",
        message_id="m1",
        type="parcel.packed",
        body=b"body 1",
        headers={"x-aggregate-id": "P1"},
        published_at=NOW,
    )
    await shop.broker.publish([sent], now=NOW)


async def consume(shop: Shop, handler: Postponing) -> None:
    async def is_queue_empty() -> bool:
        return not await shop.rows("SELECT 1 FROM queue_messages LIMIT 1")

    await shop.work_until(is_queue_empty, shop.subscription(handler).run)


async def come_again(shop: Shop, handler: Postponing) -> None:
    """Let the waiting try go now, and be handled."""
    await shop.execute("UPDATE shop_outbox SET not_before = 0 WHERE state = 'pending'")
    await shop.dispatch_once()
    await consume(shop, handler)


async def discard_all(shop: Shop) -> None:
    rows = await shop.rows("SELECT id FROM shop_outbox WHERE state = 'pending'")
    ids = [row["id"] for row in rows]

    async def work(transaction: Transaction) -> None:
        await shop.outbox_rows.discard(transaction, ids, now=await transaction.now())

    await shop.database.transact(work)


async def waiting_count(shop: Shop) -> int:
    return len(await shop.rows("SELECT 1 FROM shop_outbox WHERE state = 'pending'"))


@pytest.fixture
async def handler(shop: Shop) -> Postponing:
    """A message has been put off three times: two tries were sent, and the third waits."""
    handler = Postponing()
    await report(shop)
    await consume(shop, handler)
    await come_again(shop, handler)
    await come_again(shop, handler)
    assert handler.attempts == [1, 2, 3]
    return handler


async def test_a_message_that_comes_after_its_try_was_discarded_waits_again(
    shop: Shop, handler: Postponing
):
    await discard_all(shop)

    await report(shop)
    with capture_logs() as lines:
        await consume(shop, handler)

    assert [line["event"] for line in lines] == ["message_postponed"]
    assert await waiting_count(shop) == 1
    handler.is_there = True
    await come_again(shop, handler)
    assert len(await shop.rows("SELECT 1 FROM effects")) == 1


async def test_it_waits_again_as_often_as_its_try_is_discarded(shop: Shop, handler: Postponing):
    for _ in range(3):
        await discard_all(shop)
        await report(shop)
        await consume(shop, handler)
        await come_again(shop, handler)

    assert await waiting_count(shop) == 1


async def test_a_copy_rests_on_the_try_that_waits(shop: Shop, handler: Postponing):
    await report(shop)
    await report(shop)

    await consume(shop, handler)

    assert await waiting_count(shop) == 1
    assert shop.outcomes.count(("parcels", MessageOutcome.POSTPONED)) == 4


async def test_a_copy_rests_on_a_try_that_is_parked(shop: Shop, handler: Postponing):
    await shop.execute("UPDATE shop_outbox SET state = 'failed' WHERE state = 'pending'")
    await report(shop)

    await consume(shop, handler)

    assert await waiting_count(shop) == 0
    assert len(await shop.rows("SELECT 1 FROM shop_outbox WHERE state = 'failed'")) == 1


async def test_a_message_whose_try_was_sent_and_is_gone_waits_again(
    shop: Shop, handler: Postponing
):
    """A queue that somebody empties takes a sent try with it."""
    await shop.execute("UPDATE shop_outbox SET not_before = 0 WHERE state = 'pending'")
    await shop.dispatch_once()
    await shop.execute("DELETE FROM queue_messages")
    await report(shop)

    await consume(shop, handler)

    assert await waiting_count(shop) == 1


async def test_a_message_whose_try_is_in_another_queue_waits_for_itself(
    shop: Shop, handler: Postponing
):
    await shop.execute("UPDATE shop_outbox SET route = 'copies' WHERE state = 'pending'")
    await report(shop)

    await consume(shop, handler)

    rows = await shop.rows("SELECT route FROM shop_outbox WHERE state = 'pending' ORDER BY route")
    assert [row["route"] for row in rows] == ["copies", "parcels"]


async def test_two_tries_of_one_message_become_one_again(shop: Shop, handler: Postponing):
    """A copy that comes while the last try is in its queue forks it, until one meets the other."""
    await shop.execute("UPDATE shop_outbox SET not_before = 0 WHERE state = 'pending'")
    await shop.dispatch_once()
    await shop.execute("UPDATE queue_messages SET due_at = due_at + 3600000000")
    await report(shop)
    await shop.work_until(lambda: has_waiting(shop), shop.subscription(handler).run)
    await shop.execute("UPDATE queue_messages SET due_at = 0")
    await consume(shop, handler)
    assert await waiting_count(shop) == 2

    await shop.execute(
        "UPDATE shop_outbox SET not_before = 0 WHERE id = (SELECT max(id) - 1 FROM shop_outbox)"
    )
    await shop.dispatch_once()
    await consume(shop, handler)

    assert await waiting_count(shop) == 1


async def has_waiting(shop: Shop) -> bool:
    return await waiting_count(shop) == 1


async def test_a_try_tells_why_it_waits(shop: Shop, handler: Postponing):
    (row,) = await shop.rows("SELECT last_error FROM shop_outbox WHERE state = 'pending'")

    assert row["last_error"] == "try 4 waits: unknown_order: no order has this number"
    assert handler.attempts == [1, 2, 3]
