"""What the queue on the database promises beyond the port."""

import asyncio
import json
import uuid
from typing import Any

import pytest
from sqlalchemy.dialects import sqlite

from orderkeep.database.postgresql_transaction import _DIALECT
from orderkeep.database.statement import Statement
from orderkeep.instant import Instant
from orderkeep.messaging import LeaseLostError, Message
from orderkeep.messaging import queue_messages as queue
from orderkeep.messaging.database_queue import DatabaseQueue
from orderkeep.messaging.outbox_reading import OutboxReading
from tests.integration.messaging.shop_kernel import SHOP, TOPOLOGY, Shop

NOW = Instant(1_700_000_000_000_000)


def message(number: int, **changed) -> Message:
    values: dict[str, Any] = {
        "route": "parcels",
        "message_id": f"m{number}",
        "type": "parcel.packed",
        "body": b"body",
        "headers": {},
        "published_at": NOW,
    }
    return Message(**(values | changed))


@pytest.fixture
async def short_leases(shop: Shop) -> DatabaseQueue:
    """The queue as another process would see it, with leases of a moment."""
    broker = DatabaseQueue(
        shop.database, new_token=lambda: str(uuid.uuid4()), poll_interval_s=300, lease_s=0.2
    )
    await broker.declare(TOPOLOGY)
    return broker


async def take(consumption, *, count_max: int = 100):
    async with asyncio.timeout(10):
        return await consumption.take(count_max=count_max)


async def test_a_lease_that_ran_out_lets_another_consumer_take_over(
    short_leases: DatabaseQueue,
):
    await short_leases.publish([message(1)], now=NOW)
    slow = await short_leases.consume("parcels", prefetch=10)
    quick = await short_leases.consume("parcels", prefetch=10)
    await take(slow)

    # The poll comes after 300 s: the end of the lease itself is what wakes.
    (taken,) = await take(quick)

    assert taken.message_id == b"m1"
    assert taken.redelivered


async def test_who_lost_a_lease_cannot_acknowledge(short_leases: DatabaseQueue, shop: Shop):
    await short_leases.publish([message(1), message(2)], now=NOW)
    slow = await short_leases.consume("parcels", prefetch=10)
    quick = await short_leases.consume("parcels", prefetch=1)
    in_hand = await take(slow)
    await take(quick)

    with pytest.raises(LeaseLostError):
        await shop.database.transact(
            lambda transaction: slow.acknowledge_within(transaction, in_hand)
        )

    assert len(await shop.rows("SELECT 1 FROM queue_messages")) == 2


async def test_who_lost_a_lease_gives_back_only_what_is_still_its_own(
    short_leases: DatabaseQueue, shop: Shop
):
    await short_leases.publish([message(1), message(2)], now=NOW)
    slow = await short_leases.consume("parcels", prefetch=10)
    quick = await short_leases.consume("parcels", prefetch=1)
    in_hand = await take(slow)
    await take(quick)

    await slow.give_back(in_hand)

    rows = await shop.rows(
        "SELECT message_id, lease_owner IS NULL AS is_free FROM queue_messages ORDER BY id"
    )
    assert [tuple(row) for row in rows] == [("m1", 0), ("m2", 1)]


async def test_what_is_not_in_hand_cannot_be_acknowledged(shop: Shop):
    await shop.broker.publish([message(1)], now=NOW)
    consumption = await shop.broker.consume("parcels", prefetch=10)
    in_hand = await take(consumption)
    await consumption.give_back(in_hand)

    with pytest.raises(LeaseLostError):
        await shop.database.transact(
            lambda transaction: consumption.acknowledge_within(transaction, in_hand)
        )


async def test_what_is_given_back_does_not_count_as_delivered(shop: Shop):
    await shop.broker.publish([message(1)], now=NOW)
    consumption = await shop.broker.consume("parcels", prefetch=10)
    await consumption.give_back(await take(consumption))

    (again,) = await take(consumption)

    assert not again.redelivered


async def test_releasing_all_leases_tells_how_many_there_were(shop: Shop):
    await shop.broker.publish([message(1), message(2), message(3)], now=NOW)
    consumption = await shop.broker.consume("parcels", prefetch=2)
    await take(consumption)

    assert isinstance(shop.broker, DatabaseQueue)
    assert await shop.broker.release_all_leases() == 2
    assert await shop.broker.release_all_leases() == 0


async def test_the_poll_finds_what_another_process_published(
    shop: Shop, short_leases: DatabaseQueue
):
    consumption = await shop.broker.consume("parcels", prefetch=10)
    taking = asyncio.create_task(consumption.take(count_max=10))
    await asyncio.sleep(0)

    await short_leases.publish([message(1)], now=NOW)

    async with asyncio.timeout(10):
        assert [delivery.message_id for delivery in await taking] == [b"m1"]


async def test_a_publish_is_all_or_nothing(shop: Shop, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        "orderkeep.messaging.database_queue.published_row",
        lambda message, *, queue, now: (
            {"queue": queue, "order_key": None}
            | {"type": "", "body": b"", "headers": b""}
            | {"message_id": None if message.message_id == "m2" else "m", "published_at": now}
            | {"due_at": now, "delivery_count": 0}
        ),
    )

    with pytest.raises(Exception, match=r"(?i)NOT.NULL"):
        await shop.broker.publish([message(1), message(2)], now=NOW)

    assert await shop.rows("SELECT 1 FROM queue_messages") == []


STATEMENTS: dict[str, tuple[Statement, dict[str, Any]]] = {
    "take": (
        queue.TAKE,
        {"queue": "parcels", "now": 9, "token": "t", "new_lease_until": 9, "count_max": 100},
    ),
    "next due": (queue.NEXT_DUE_AT, {"queue": "parcels", "now": 9}),
    "next lease": (queue.NEXT_LEASE_END, {"queue": "parcels", "now": 9}),
    "acknowledge": (queue.ACKNOWLEDGE, {"ids": [1], "token": "t"}),
    "give back": (queue.GIVE_BACK, {"ids": [1], "token": "t"}),
    "ready": (
        OutboxReading(SHOP)._ready,
        {
            "since": 0,
            "partitions": [0, 1],
            "paused_routes": [],
            "on_their_way": [7],
            "limit": 100,
        },
    ),
    "settle": (OutboxReading(SHOP)._settle_sent, {"ids": [1]}),
}


@pytest.mark.parametrize("name", STATEMENTS)
async def test_no_statement_of_the_hot_path_reads_a_whole_table(sqlite_shop: Shop, name: str):
    statement, parameters = STATEMENTS[name]
    compiled = statement.compiled_for(sqlite.dialect(paramstyle="named"))
    values = {**compiled.defaults, **parameters}
    lists = {key: json.dumps(value) for key, value in values.items() if isinstance(value, list)}

    async def explain(transaction):
        plan = f"EXPLAIN QUERY PLAN {compiled.sql}"
        return transaction._connection.execute(plan, values | lists).fetchall()

    steps = [row["detail"] for row in await sqlite_shop.database.transact(explain)]
    assert steps
    # What it has chosen, or was given as a list, is read whole.
    chosen = ("json_each", "SCAN taken", "SCAN clock", "SCAN CONSTANT ROW", "SCAN ready")
    assert [step for step in steps if "SCAN" in step and not any(it in step for it in chosen)] == []


@pytest.mark.parametrize("name", STATEMENTS)
async def test_an_index_serves_every_statement_of_the_hot_path_on_postgresql(
    postgresql_shop: Shop, name: str
):
    statement, parameters = STATEMENTS[name]
    compiled = statement.compiled_for(_DIALECT)
    values = compiled.positional({**compiled.defaults, **parameters})

    async def explain(transaction):
        # The tables are empty: PostgreSQL would read them whole, which is quicker then.
        await transaction._connection.execute("SET LOCAL enable_seqscan = off")
        return await transaction._connection.fetch(f"EXPLAIN {compiled.sql}", *values)

    steps = [row["QUERY PLAN"] for row in await postgresql_shop.database.transact(explain)]
    assert steps
    assert [step for step in steps if "Seq Scan" in step] == []


async def test_a_take_on_postgresql_passes_over_what_another_is_taking(postgresql_shop: Shop):
    shop = postgresql_shop
    await shop.broker.publish([message(number) for number in range(1, 5)], now=NOW)
    is_taken, may_commit = asyncio.Event(), asyncio.Event()

    async def take_slowly(transaction):
        now = await transaction.now()
        lease = {"token": "slow", "new_lease_until": now + 60_000_000}
        rows = await transaction.fetch_all(
            queue.TAKE, queue="parcels", now=now, count_max=2, **lease
        )
        is_taken.set()
        await may_commit.wait()
        return sorted(row["message_id"] for row in rows)

    slow = asyncio.create_task(shop.database.transact(take_slowly))
    async with asyncio.timeout(10):
        await is_taken.wait()
    quick = await shop.broker.consume("parcels", prefetch=2)
    try:
        # Nothing is committed yet: who waits for it waits until this fails.
        taken = await take(quick)
    finally:
        may_commit.set()

    assert await slow == ["m1", "m2"]
    assert [delivery.message_id for delivery in taken] == [b"m3", b"m4"]
