"""Replays of events that were sent before: to all or to one queue, once under one key."""

import asyncio
import json

from orderkeep.database.transaction import Transaction
from orderkeep.instant import Instant
from orderkeep.messaging import (
    HANDLED,
    Destination,
    MessageOutcome,
    ReplayedEvent,
    ReplayRules,
    SentBatch,
    SentFilter,
)
from tests.integration.messaging.shop_kernel import Shop, parcel

TO_ALL = Destination()


async def replay(shop: Shop, selection, *, to: Destination = TO_ALL, **named):
    async def work(transaction: Transaction) -> list[ReplayedEvent]:
        now = await transaction.now()
        return await shop.sent_replay.replay(transaction, selection, to=to, now=now, **named)

    return [(one.id, one.result.value) for one in await shop.database.transact(work)]


async def preview(shop: Shop, selection, *, to: Destination = TO_ALL):
    async def work(transaction) -> list[ReplayedEvent]:
        return await shop.sent_replay.preview(transaction, selection, to=to)

    return [(one.id, one.result.value) for one in await shop.database.read(work)]


async def send(shop: Shop, *events) -> None:
    """Append and dispatch events until all of them are sent."""
    await shop.append(*events)
    statement = "SELECT 1 FROM shop_outbox WHERE state = 'pending'"
    while await shop.rows(statement):
        await shop.dispatch_once()


async def test_an_event_goes_again_to_all_as_the_message_it_was(shop: Shop):
    await send(shop, parcel(1, route="parcel.events"))
    (sent,) = await shop.rows("SELECT * FROM shop_outbox")

    assert await preview(shop, [1]) == [(1, "replayed")]
    assert await replay(shop, [1]) == [(1, "replayed")]
    await send(shop)

    _, again = await shop.rows("SELECT * FROM shop_outbox ORDER BY id")
    for name in ("message_id", "aggregate_id", "sequence", "type", "route", "body", "ordered"):
        assert again[name] == sent[name], name
    assert json.loads(again["headers"]) == json.loads(sent["headers"])
    queues = await shop.rows("SELECT queue, count(*) AS n FROM queue_messages GROUP BY queue")
    assert {row["queue"]: row["n"] for row in queues} == {"parcels": 2, "copies": 2}


async def test_whoever_took_effect_for_an_event_takes_none_again(shop: Shop):
    await shop.append(parcel(1), parcel(2))
    await shop.work_until_drained()

    await replay(shop, [1, 2])
    await shop.work_until_drained()

    assert len(await shop.rows("SELECT 1 FROM effects")) == 2
    assert shop.outcomes.count(("parcels", MessageOutcome.DUPLICATE)) == 2


async def test_an_event_goes_to_one_queue_alone(shop: Shop):
    await send(shop, parcel(1, route="parcel.events"), parcel(2, route="parcels"))

    to_copies = await replay(shop, [1, 2], to=Destination(queue="copies"))
    await send(shop)

    assert to_copies == [(1, "replayed"), (2, "not_for_queue")]
    queues = await shop.rows("SELECT queue, count(*) AS n FROM queue_messages GROUP BY queue")
    assert {row["queue"]: row["n"] for row in queues} == {"parcels": 2, "copies": 2}


async def test_under_one_key_an_event_goes_to_one_place_once(shop: Shop):
    await send(shop, parcel(1, route="parcel.events"))

    results = [
        await replay(shop, [1], to=to)
        for to in (
            TO_ALL,
            TO_ALL,
            Destination(queue="copies"),
            Destination(queue="copies"),
            Destination(key="second"),
            Destination(key="second"),
        )
    ]

    assert [result for ((_, result),) in results] == ["replayed", "not_again"] * 3


async def test_of_two_who_replay_the_same_at_once_one_does(shop: Shop):
    await send(shop, *[parcel(number) for number in range(20)])
    ids = list(range(1, 21))

    answered = await asyncio.gather(*[replay(shop, ids) for _ in range(3)])

    assert sorted(result for results in answered for _, result in results) == (
        ["not_again"] * 40 + ["replayed"] * 20
    )
    assert len(await shop.rows("SELECT 1 FROM shop_outbox WHERE state = 'pending'")) == 20


async def test_only_what_was_sent_is_sent_again_and_each_id_is_answered(shop: Shop):
    await send(shop, parcel(1))
    await shop.append(parcel(2), parcel(3))
    await shop.execute("UPDATE shop_outbox SET state = 'failed' WHERE id = 3")

    assert await replay(shop, [3, 1, 2, 9]) == [
        (3, "not_sent"),
        (1, "replayed"),
        (2, "not_sent"),
        (9, "not_found"),
    ]


async def test_a_filter_finds_events_and_not_what_went_out_again(shop: Shop):
    await send(shop, parcel(1), parcel(2), parcel(1, sequence=2, route="parcel.events"))
    await shop.execute("UPDATE shop_outbox SET sent_at = id * 1000")
    await replay(shop, [1])
    await send(shop)

    async def found(after_id: int | None = None, count_max: int = 10, **which) -> list[int]:
        batch = SentBatch(which=SentFilter(**which), after_id=after_id, count_max=count_max)
        return [id_ for id_, _ in await preview(shop, batch)]

    assert await found() == [1, 2, 3]
    assert await found(aggregate_id="P1") == [1, 3]
    assert await found(route="parcel.events") == [3]
    assert await found(sent_from=Instant(2000)) == [2, 3]
    assert await found(sent_from=Instant(2000), sent_to=Instant(3000)) == [2]
    assert await found(count_max=2) == [1, 2]
    assert await found(after_id=2) == [3]


async def test_events_about_one_thing_leave_in_their_order_at_the_rate(shop: Shop):
    await send(shop, *[parcel(1, sequence=number) for number in (1, 2, 3)])

    await replay(shop, [3, 2, 1], rules=ReplayRules(per_s=10.0))

    rows = await shop.rows(
        "SELECT sequence, not_before - created_at AS wait FROM shop_outbox"
        " WHERE retry_key IS NOT NULL ORDER BY not_before"
    )
    assert [(row["sequence"], row["wait"]) for row in rows] == [(1, 0), (2, 100_000), (3, 200_000)]
    await shop.execute("UPDATE shop_outbox SET not_before = created_at")
    rounds = [(await shop.dispatch_once()).sent_count for _ in range(3)]
    assert rounds == [1, 1, 1]


async def test_what_consumers_may_have_forgotten_goes_again_only_by_force(shop: Shop):
    await send(shop, parcel(1))
    await shop.execute("UPDATE shop_outbox SET created_at = created_at - 7862400000000")

    assert await replay(shop, [1]) == [(1, "not_remembered")]
    assert await replay(shop, [1], rules=ReplayRules(memory_s=None)) == [(1, "replayed")]


async def test_an_event_whose_route_nobody_reads_any_more_goes_nowhere(shop: Shop):
    await send(shop, parcel(1))
    await shop.execute("UPDATE shop_outbox SET route = 'given.up'")

    assert await replay(shop, [1]) == [(1, "not_for_queue")]


async def test_an_event_that_cannot_be_read_holds_up_nobody(shop: Shop):
    await send(shop, parcel(1), parcel(2))
    await shop.execute("UPDATE shop_outbox SET headers = body WHERE id = 1")

    assert await replay(shop, [1, 2]) == [(1, "not_readable"), (2, "replayed")]


async def test_what_failed_once_goes_again_as_a_first_try(shop: Shop):
    async def fail_once(transaction, batch):
        del transaction
        if not shop.outcomes:
            raise ZeroDivisionError
        return [HANDLED] * len(batch)

    await shop.append(parcel(1))
    await shop.work_until_drained(fail_once)
    (retried,) = await shop.rows("SELECT id FROM shop_outbox WHERE retry_key IS NOT NULL")

    # When the message itself was new, its copy does not tell.
    assert await replay(shop, [retried["id"]]) == [(retried["id"], "not_remembered")]
    await replay(shop, [retried["id"]], rules=ReplayRules(memory_s=None))

    (row,) = await shop.rows("SELECT headers FROM shop_outbox WHERE state = 'pending'")
    assert not [name for name in json.loads(row["headers"]) if name.startswith("x-orderkeep")]
