"""Replays of dead letters: in order, at a rate, as far back as once can be proved, and edited."""

import asyncio
import json
import time

from msgspec import structs

from orderkeep.database.audit import Act
from orderkeep.database.transaction import Transaction
from orderkeep.instant import Instant
from orderkeep.messaging import (
    DeadLetterFilter,
    DeadLetterState,
    Delivery,
    Edit,
    LetterBatch,
    MessageOutcome,
    ReplayRules,
    SettledLetter,
)
from orderkeep.messaging.dead_letter import Failure
from tests.integration.messaging.shop_kernel import DEADLINE_S, Shop, parcel

DAY_US = 86_400_000_000
NOW = time.time_ns() // 1000  # noqa: TID251 (databases compare it with their clock)


def failure(number: int, *, parcel: int = 1, age_us: int = 60_000_000, queue="parcels") -> Failure:
    """Return the failure of the event with this number about a parcel."""
    delivery = Delivery(
        queue=queue,
        tag=number,
        body=f"P{parcel}/{number}".encode(),
        message_id=f"P{parcel}-{number}".encode(),
        type="parcel.packed",
        headers={"x-aggregate-id": f"P{parcel}", "x-sequence": number},
        redelivered=False,
    )
    return Failure(
        consumer=queue,
        message_id=f"P{parcel}-{number}",
        delivery=delivery,
        reason="out_of_tries",
        detail="it did not work",
        traceback=None,
        tries=3,
        first_received_at=Instant(NOW - age_us),
    )


async def set_aside(shop: Shop, *failures: Failure, at: int | None = None) -> None:
    """Write letters one by one, so that they are numbered in the order given."""

    async def work(transaction: Transaction) -> None:
        now = Instant(at) if at is not None else await transaction.now()
        for one in failures:
            await shop.dead_letters.write(transaction, [one], now=now)

    await shop.database.transact(work)


async def replay(shop: Shop, selection, **named) -> list[tuple[int, str]]:
    async def work(transaction: Transaction) -> list[SettledLetter]:
        now = await transaction.now()
        return await shop.settlement.replay(transaction, selection, now=now, **named)

    return [(one.id, one.result.value) for one in await shop.database.transact(work)]


async def replay_edited(shop: Shop, letter_id: int, body: bytes, **named) -> SettledLetter:
    async def work(transaction: Transaction) -> SettledLetter:
        return await shop.settlement.replay_edited(
            transaction,
            letter_id,
            Edit(message_id=f"edited-{letter_id}", body=body),
            now=await transaction.now(),
            **named,
        )

    return await shop.database.transact(work)


async def preview_edited(shop: Shop, letter_id: int) -> str:
    async def work(transaction) -> SettledLetter:
        return await shop.settlement.preview_edited(transaction, letter_id)

    return (await shop.database.read(work)).result.value


async def discard(shop: Shop, letter_id: int) -> str:
    async def work(transaction: Transaction) -> list[SettledLetter]:
        return await shop.settlement.discard(transaction, [letter_id], now=await transaction.now())

    (one,) = await shop.database.transact(work)
    return one.result.value


async def bodies_of_effects(shop: Shop) -> list[str]:
    return [row["body"] for row in await shop.rows("SELECT body FROM effects ORDER BY id")]


async def history_of(shop: Shop, letter_id: int):
    return await shop.database.read(
        lambda transaction: shop.dead_letters.history(transaction, letter_id)
    )


async def test_letters_about_one_thing_leave_in_its_order(shop: Shop):
    await set_aside(shop, *[failure(number) for number in (3, 1, 2)], failure(1, parcel=2))

    await replay(shop, DeadLetterFilter())
    rounds = [await sent_in_a_round(shop) for _ in range(3)]
    await shop.work_until_drained()

    assert rounds == [{"P1-1", "P2-1"}, {"P1-2"}, {"P1-3"}]
    effects = await bodies_of_effects(shop)
    assert [body for body in effects if body.startswith("P1")] == ["P1/1", "P1/2", "P1/3"]


async def sent_in_a_round(shop: Shop) -> set[str]:
    statement = "SELECT message_id FROM shop_outbox WHERE state = 'sent'"
    before = {row["message_id"] for row in await shop.rows(statement)}
    await shop.dispatch_once()
    return {row["message_id"] for row in await shop.rows(statement)} - before


async def test_a_batch_goes_on_behind_its_last_letter_in_the_order_of_arrival(shop: Shop):
    ages = [(1, 10), (2, 40), (3, 20), (4, 30)]
    await set_aside(
        shop, *[failure(1, parcel=number, age_us=age * 1_000_000) for number, age in ages]
    )

    first = await replay(shop, LetterBatch(which=DeadLetterFilter(), count_max=3))
    # It fails again at once, and is not taken by the same replay for a second time.
    await set_aside(shop, failure(1, parcel=2, age_us=40_000_000))
    second = await replay(
        shop, LetterBatch(which=DeadLetterFilter(), after_id=first[-1][0], count_max=3)
    )

    assert first == [(2, "replayed"), (4, "replayed"), (3, "replayed")]
    assert second == [(1, "replayed")]


async def test_what_is_replayed_leaves_at_the_rate(shop: Shop):
    await set_aside(shop, *[failure(1, parcel=number) for number in (1, 2, 3)])

    await replay(shop, DeadLetterFilter(), rules=ReplayRules(per_s=4.0, preceding_count=2))

    rows = await shop.rows("SELECT not_before - created_at AS wait FROM shop_outbox ORDER BY id")
    assert [row["wait"] for row in rows] == [500_000, 750_000, 1_000_000]


async def test_letters_are_found_by_time_and_by_what_they_are_about(shop: Shop):
    for day, number in ((1, 1), (2, 2), (3, 3)):
        await set_aside(shop, failure(1, parcel=number), at=NOW - 10 * DAY_US + day * DAY_US)

    since = Instant(NOW - 8 * DAY_US)
    until = Instant(NOW - 7 * DAY_US)

    assert await replay(shop, DeadLetterFilter(set_aside_from=since, set_aside_to=until)) == [
        (2, "replayed")
    ]
    assert await replay(shop, DeadLetterFilter(aggregate_id="P3")) == [(3, "replayed")]
    assert await replay(shop, DeadLetterFilter(set_aside_from=since)) == []
    assert await replay(shop, DeadLetterFilter(set_aside_to=since)) == [(1, "replayed")]


async def test_what_its_consumer_may_have_forgotten_is_replayed_only_by_force(shop: Shop):
    await set_aside(
        shop,
        failure(1, parcel=1, age_us=91 * DAY_US),
        failure(1, parcel=2, age_us=89 * DAY_US),
    )

    refused = await replay(shop, [1, 2])
    forced = await replay(shop, [1], rules=ReplayRules(memory_s=None))

    assert refused == [(1, "not_remembered"), (2, "replayed")]
    assert forced == [(1, "replayed")]


async def test_a_letter_that_cannot_be_read_holds_up_nobody(shop: Shop):
    await set_aside(shop, *[failure(1, parcel=number) for number in (1, 2, 3)])
    await shop.execute("UPDATE shop_dead_letters SET headers = body WHERE id = 2")

    results = await replay(shop, [1, 2, 3, 4])

    assert results == [
        (1, "replayed"),
        (2, "not_readable"),
        (3, "replayed"),
        (4, "not_found"),
    ]
    assert len(await shop.rows("SELECT 1 FROM shop_outbox")) == 2


async def test_of_all_who_settle_a_letter_at_once_one_does(shop: Shop):
    await set_aside(shop, failure(1))

    results = await asyncio.gather(
        replay(shop, [1]),
        replay(shop, DeadLetterFilter()),
        replay_edited(shop, 1, b"mended"),
        discard(shop, 1),
        replay(shop, [1]),
    )

    (letter,) = await shop.rows("SELECT state, settled_count FROM shop_dead_letters")
    entries = [entry.event.value for entry in await history_of(shop, 1)]
    copies = await shop.rows("SELECT 1 FROM shop_outbox")
    assert letter["settled_count"] == 1
    assert entries[0] == "set_aside"
    assert len(entries) == 2, results
    assert len(copies) == (0 if letter["state"] == "discarded" else 1)


async def test_a_second_replay_of_a_letter_waits_for_the_first(postgresql_shop: Shop):
    shop = postgresql_shop
    await set_aside(shop, failure(1))
    has_begun = asyncio.Event()

    async def first(transaction: Transaction) -> list[SettledLetter]:
        settled = await shop.settlement.replay(transaction, [1], now=await transaction.now())
        has_begun.set()
        waiting = (
            "SELECT 1 FROM pg_stat_activity"
            " WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        async with asyncio.timeout(DEADLINE_S):
            while not await shop.rows(waiting):
                pass
        return settled

    replaying = asyncio.ensure_future(shop.database.transact(first))
    await has_begun.wait()
    second = await replay(shop, [1])
    await replaying

    assert second == [(1, "not_open")]
    assert len(await shop.rows("SELECT 1 FROM shop_outbox")) == 1


async def test_the_history_tells_each_turn_once(shop: Shop):
    act = Act(actor="olga", reason="the bank is back")
    await set_aside(shop, failure(1), failure(1))
    await replay(shop, [1], act=act)
    await set_aside(shop, failure(1), failure(1))
    await discard(shop, 1)

    told = [
        (entry.event.value, entry.actor, entry.reason, entry.tries)
        for entry in await history_of(shop, 1)
    ]

    assert told == [
        ("set_aside", None, "out_of_tries", 3),
        ("replayed", "olga", "the bank is back", None),
        ("set_aside", None, "out_of_tries", 3),
        ("discarded", None, None, None),
    ]


async def test_an_edited_message_has_an_id_of_its_own_and_names_the_old_one(shop: Shop):
    await set_aside(shop, failure(7))

    would = await preview_edited(shop, 1)
    settled = await replay_edited(shop, 1, b"mended", act=Act(actor="olga"))
    (row,) = await shop.rows("SELECT * FROM shop_outbox")
    await shop.work_until_drained()

    assert would == "replayed"
    assert (settled.result.value, settled.message_id) == ("replayed", "edited-1")
    assert (row["message_id"], row["route"], row["body"]) == ("edited-1", "parcels", b"mended")
    assert json.loads(row["headers"]) == {
        "x-aggregate-id": "P1",
        "x-sequence": 7,
        "x-orderkeep-edited-from": "P1-7",
    }
    assert [
        (entry.event.value, entry.actor, entry.message_id) for entry in await history_of(shop, 1)
    ] == [("set_aside", None, None), ("edited", "olga", "edited-1")]
    assert await bodies_of_effects(shop) == ["mended"]


async def test_of_a_message_and_the_edited_one_only_one_takes_effect(shop: Shop):
    await set_aside(shop, failure(1))
    await replay_edited(shop, 1, b"mended")
    # A copy of the old one was still on its way.
    await shop.append(parcel_as_sent("P1-1"))
    await shop.work_until_drained()

    assert await bodies_of_effects(shop) == ["mended"]
    assert ("parcels", MessageOutcome.DUPLICATE) in shop.outcomes


async def test_a_message_that_took_effect_meanwhile_is_not_edited_but_by_force(shop: Shop):
    await set_aside(shop, failure(1))
    await shop.append(parcel_as_sent("P1-1"))
    await shop.work_until_drained()

    would = await preview_edited(shop, 1)
    refused = await replay_edited(shop, 1, b"mended")
    before = await bodies_of_effects(shop)
    forced = await replay_edited(shop, 1, b"mended", rules=ReplayRules(memory_s=None))
    await shop.work_until_drained()

    assert (would, refused.result.value) == ("not_without_effect", "not_without_effect")
    assert before == ["P1/1"]
    assert forced.result.value == "replayed"
    assert await bodies_of_effects(shop) == ["P1/1", "mended"]


async def test_an_edited_message_that_fails_is_a_letter_that_names_the_old_one(shop: Shop):
    await set_aside(shop, failure(1))
    await replay_edited(shop, 1, b"\xff")
    await shop.work_until_drained()

    rows = await shop.rows("SELECT message_id, state, headers FROM shop_dead_letters ORDER BY id")
    assert [(row["message_id"], row["state"]) for row in rows] == [
        ("P1-1", DeadLetterState.REPLAYED),
        ("edited-1", DeadLetterState.OPEN),
    ]
    assert json.loads(rows[1]["headers"])["x-orderkeep-edited-from"] == "P1-1"


def parcel_as_sent(message_id: str):
    """Return the event that a letter holds, as its sender sends it."""
    return structs.replace(parcel(1), message_id=message_id)
