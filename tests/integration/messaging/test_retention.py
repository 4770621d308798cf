"""Retention deletes what is past its time, and nothing else."""

import asyncio

import pytest

from orderkeep.database.transaction import StoreUnavailableError
from orderkeep.messaging import Purged, Retention, RetentionPolicy
from tests.integration.messaging.shop_kernel import SHOP, Shop, parcel

DAY_US = 86_400_000_000


@pytest.fixture
def retention(shop: Shop) -> Retention:
    policy = RetentionPolicy(
        outbox_s=7 * 86_400, inbox_s=90 * 86_400, attempts_s=90 * 86_400, interval_s=0.01
    )
    return Retention(SHOP, database=shop.database, policy=policy)


async def age_outbox(shop: Shop, aggregate_id: str, *, state: str, days: int) -> None:
    await shop.execute(
        "UPDATE shop_outbox SET state = :state,"
        " sent_at = CASE WHEN :state = 'sent' THEN created_at - :age END,"
        " discarded_at = CASE WHEN :state = 'discarded' THEN created_at - :age END"
        " WHERE aggregate_id = :aggregate_id",
        state=state,
        age=days * DAY_US,
        aggregate_id=aggregate_id,
    )


async def test_sent_and_discarded_rows_go_after_their_time(shop: Shop, retention: Retention):
    await shop.append(*[parcel(number) for number in range(1, 7)])
    await age_outbox(shop, "P1", state="sent", days=8)
    await age_outbox(shop, "P2", state="sent", days=6)
    await age_outbox(shop, "P3", state="discarded", days=8)
    await age_outbox(shop, "P4", state="discarded", days=6)
    await shop.execute(
        "UPDATE shop_outbox SET created_at = created_at - :age WHERE aggregate_id IN ('P5', 'P6')",
        age=800 * DAY_US,
    )
    await shop.execute("UPDATE shop_outbox SET state = 'failed' WHERE aggregate_id = 'P6'")

    purged = await retention.purge_once(asyncio.Event())

    rows = await shop.rows("SELECT aggregate_id FROM shop_outbox ORDER BY aggregate_id")
    assert purged == Purged(outbox_count=2, inbox_count=0, attempts_count=0)
    assert [row["aggregate_id"] for row in rows] == ["P2", "P4", "P5", "P6"]


async def test_inbox_and_attempts_go_after_their_time(shop: Shop, retention: Retention):
    now = await shop.database.read(lambda transaction: transaction.now())
    for message_id, at in (("old", now - 91 * DAY_US), ("young", now - 89 * DAY_US)):
        await shop.execute(
            "INSERT INTO shop_inbox (consumer, message_id, received_at)"
            " VALUES ('parcels', :message_id, :at)",
            message_id=message_id,
            at=at,
        )
        await shop.execute(
            "INSERT INTO shop_delivery_attempts (consumer, message_id, attempts, last_at)"
            " VALUES ('parcels', :message_id, 1, :at)",
            message_id=message_id,
            at=at,
        )

    purged = await retention.purge_once(asyncio.Event())

    inbox = await shop.rows("SELECT message_id FROM shop_inbox")
    attempts = await shop.rows("SELECT message_id FROM shop_delivery_attempts")
    assert purged == Purged(outbox_count=0, inbox_count=1, attempts_count=1)
    assert [row["message_id"] for row in [*inbox, *attempts]] == ["young", "young"]


async def test_many_rows_go_in_many_batches(shop: Shop, retention: Retention):
    await shop.append(*[parcel(number) for number in range(1201)])
    await shop.execute(
        "UPDATE shop_outbox SET state = 'sent', sent_at = created_at - :age", age=8 * DAY_US
    )

    purged = await retention.purge_once(asyncio.Event())

    assert purged.outbox_count == 1201
    assert await shop.rows("SELECT 1 FROM shop_outbox") == []


async def test_a_stop_ends_a_purge_between_two_batches(shop: Shop, retention: Retention):
    await shop.append(parcel(1))
    await age_outbox(shop, "P1", state="sent", days=8)
    stop = asyncio.Event()
    stop.set()

    purged = await retention.purge_once(stop)

    assert purged.outbox_count == 0


async def test_the_loop_goes_on_after_an_outage(
    shop: Shop, retention: Retention, monkeypatch: pytest.MonkeyPatch
):
    await shop.append(parcel(1))
    await age_outbox(shop, "P1", state="sent", days=8)
    failures = [StoreUnavailableError("away")]
    transact = shop.database.transact

    async def failing_transact(work):
        if failures:
            raise failures.pop()
        return await transact(work)

    async def is_purged() -> bool:
        return not await shop.rows("SELECT 1 FROM shop_outbox")

    monkeypatch.setattr(shop.database, "transact", failing_transact)
    await shop.work_until(is_purged, retention.run)
