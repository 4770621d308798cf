"""Dead letters: one for each message, exact, listed, replayed once or discarded once."""

import json
import time
from dataclasses import replace
from typing import Any

import pytest

from orderkeep.database.transaction import Transaction
from orderkeep.messaging import (
    DeadLetterFilter,
    DeadLetterState,
    Delivery,
    Destination,
    SentBatch,
    SentFilter,
    SettledLetter,
)
from orderkeep.messaging.dead_letter import Failure
from tests.integration.messaging.shop_kernel import Shop, record_effects

# Lately: what is older than the memory of consumers is not replayed unasked.
FIRST_RECEIVED_AT = time.time_ns() // 1000 - 60_000_000  # noqa: TID251 (databases compare it with their clock)


def failure(number: int, *, body: bytes = b"body", **changed) -> Failure:
    queue = changed.pop("queue", "parcels")
    delivery = Delivery(
        queue=queue,
        tag=number,
        body=body,
        message_id=f"m{number}".encode(),
        type="parcel.packed",
        headers={"x-aggregate-id": f"P{number}", "x-orderkeep-attempt": 3},
        redelivered=False,
    )
    values: dict[str, Any] = {
        "consumer": queue,
        "message_id": f"m{number}",
        "delivery": delivery,
        "reason": "out_of_tries",
        "detail": "it did not work",
        "traceback": "Traceback: …",
        "tries": 3,
        "first_received_at": FIRST_RECEIVED_AT,
    }
    return Failure(**(values | changed))


async def write(shop: Shop, *failures: Failure) -> None:
    async def work(transaction: Transaction) -> None:
        await shop.dead_letters.write(transaction, failures, now=await transaction.now())

    await shop.database.transact(work)


async def replay(shop: Shop, selection) -> list[SettledLetter]:
    async def work(transaction: Transaction) -> list[SettledLetter]:
        now = await transaction.now()
        return await shop.settlement.replay(transaction, selection, now=now)

    return await shop.database.transact(work)


async def discard(shop: Shop, selection) -> list[SettledLetter]:
    async def work(transaction: Transaction) -> list[SettledLetter]:
        now = await transaction.now()
        return await shop.settlement.discard(transaction, selection, now=now)

    return await shop.database.transact(work)


async def find(shop: Shop, letter_id: int):
    return await shop.database.read(
        lambda transaction: shop.dead_letters.find(transaction, letter_id)
    )


async def list_page(shop: Shop, **which):
    return await shop.database.read(
        lambda transaction: shop.dead_letters.list_page(transaction, **({"limit": 10} | which))
    )


def results(settled: list[SettledLetter]) -> list[tuple[int, str]]:
    return [(each.id, each.result.value) for each in settled]


async def test_every_byte_is_kept(shop: Shop):
    body = bytes(range(256))
    odd_headers: Any = {"x-raw": "a\x00b\ud800", "x-bytes": b"\xfe", "x-nan": float("nan")}
    delivery = Delivery(
        queue="parcels",
        tag=1,
        body=body,
        message_id=b"\xff\x00 id",
        type="odd \udcff type",
        headers=odd_headers,
        redelivered=False,
    )
    detail = "it said \x00 and \ud800"

    await write(shop, replace(failure(1), delivery=delivery, detail=detail, traceback=detail))

    letter = await find(shop, 1)
    assert letter.body == body
    assert letter.sender_message_id == b"\xff\x00 id"
    assert letter.type == b"odd \xff type"
    assert letter.summary.type == "odd \\xff type"
    assert json.loads(letter.headers_json) == {
        "x-raw": "a\x00b\ud800",
        "x-bytes": "\\xfe",
        "x-nan": "nan",
    }
    assert letter.summary.detail == letter.traceback == "it said \\x00 and \\ud800"


async def test_a_letter_that_is_missing_is_none(shop: Shop):
    assert await find(shop, 1) is None


async def test_a_second_failure_of_a_message_opens_its_letter_again(shop: Shop):
    await write(shop, failure(1))
    await replay(shop, [1])

    await write(shop, replace(failure(1), reason="unknown_shelf", tries=1, traceback=None))

    (summary,) = await list_page(shop)
    assert (summary.id, summary.reason, summary.tries) == (1, "unknown_shelf", 1)
    assert summary.state is DeadLetterState.OPEN
    assert (summary.settled_at, summary.settled_count) == (None, 1)


async def test_two_messages_with_one_id_are_two_letters(shop: Shop):
    await write(shop, failure(1, body=b"one"), failure(1, body=b"two"))
    await write(shop, failure(1, body=b"two"), failure(1, body=b"three"))

    bodies = {
        (await find(shop, summary.id)).body: summary.message_id for summary in await list_page(shop)
    }
    assert set(bodies) == {b"one", b"two", b"three"}
    assert bodies[b"one"] == "m1"
    assert bodies[b"two"].startswith("sha256:")


async def test_letters_are_listed_newest_first_page_by_page(shop: Shop):
    await write(shop, *[failure(number) for number in range(1, 6)])

    first = await list_page(shop, limit=2)
    second = await list_page(shop, limit=2, before_id=first[-1].id)
    third = await list_page(shop, limit=2, before_id=second[-1].id)

    pages = [[summary.id for summary in page] for page in (first, second, third)]
    assert pages == [[5, 4], [3, 2], [1]]


async def test_letters_are_listed_by_state_queue_and_reason(shop: Shop):
    await write(shop, failure(1))
    await write(shop, failure(2, reason="malformed_text"))
    await write(shop, failure(3, queue="letters"))
    await write(shop, failure(4))
    await discard(shop, [4])

    async def ids(**which) -> list[int]:
        return [summary.id for summary in await list_page(shop, **which)]

    assert await ids() == [3, 2, 1]
    assert await ids(state=DeadLetterState.DISCARDED) == [4]
    assert await ids(which=DeadLetterFilter(queue="parcels")) == [2, 1]
    assert await ids(which=DeadLetterFilter(reason="out_of_tries")) == [3, 1]
    assert await ids(which=DeadLetterFilter(queue="letters", reason="malformed_text")) == []


async def test_open_letters_are_counted_by_queue(shop: Shop):
    await write(shop, failure(1), failure(2), failure(3, queue="letters"), failure(4))
    await discard(shop, [4])

    counts = await shop.database.read(shop.dead_letters.open_counts)

    assert counts == {"parcels": 2, "letters": 1}


async def test_a_replay_brings_the_message_back_as_if_for_the_first_time(shop: Shop):
    await write(shop, failure(1, body=b"\x00\xff"))

    answered = await replay(shop, [1])

    (row,) = await shop.rows("SELECT * FROM shop_outbox")
    assert results(answered) == [(1, "replayed")]
    assert (row["message_id"], row["route"], row["body"]) == ("m1", "parcels", b"\x00\xff")
    assert (row["type"], row["aggregate_id"]) == ("parcel.packed", "P1")
    assert (bool(row["ordered"]), row["state"]) == (True, "pending")
    assert row["retry_key"] == "letter 1 0 m1"
    assert json.loads(row["headers"]) == {"x-aggregate-id": "P1"}
    assert (await find(shop, 1)).summary.state is DeadLetterState.REPLAYED


async def test_a_message_that_is_set_aside_again_is_replayed_again(shop: Shop):
    await write(shop, failure(1))
    await replay(shop, [1])
    await write(shop, failure(1))

    assert results(await replay(shop, [1])) == [(1, "replayed")]

    keys = await shop.rows("SELECT retry_key FROM shop_outbox ORDER BY id")
    assert [row["retry_key"] for row in keys] == ["letter 1 0 m1", "letter 1 1 m1"]


async def test_a_message_that_was_replayed_is_no_event_of_its_own(shop: Shop):
    await write(shop, failure(1))
    await replay(shop, [1])
    await shop.dispatch_once()

    sent = await shop.database.read(
        lambda transaction: shop.sent_replay.preview(
            transaction, SentBatch(which=SentFilter()), to=Destination()
        )
    )

    assert [row["state"] for row in await shop.rows("SELECT state FROM shop_outbox")] == ["sent"]
    assert sent == []


async def test_a_letter_is_settled_once(shop: Shop):
    await write(shop, failure(1), failure(2))

    first = await replay(shop, [1, 7, 1])
    second = await replay(shop, [1])
    third = await discard(shop, [1, 2])

    assert results(first) == [(1, "replayed"), (7, "not_found")]
    assert results(second) == [(1, "not_open")]
    assert results(third) == [(1, "not_open"), (2, "discarded")]
    assert len(await shop.rows("SELECT 1 FROM shop_outbox")) == 1


async def test_a_filter_settles_what_is_open_and_fits(shop: Shop):
    await write(shop, failure(1, reason="malformed_text"))
    await write(shop, failure(2))
    await write(shop, failure(3, queue="letters"))
    await write(shop, failure(4))

    by_reason = await replay(shop, DeadLetterFilter(reason="malformed_text"))
    by_queue = await discard(shop, DeadLetterFilter(queue="parcels"))
    the_rest = await replay(shop, DeadLetterFilter())

    assert results(by_reason) == [(1, "replayed")]
    assert results(by_queue) == [(2, "discarded"), (4, "discarded")]
    assert results(the_rest) == [(3, "replayed")]


async def test_a_preview_tells_the_same_and_changes_nothing(shop: Shop):
    await write(shop, failure(1), failure(2))
    await discard(shop, [2])

    async def preview(selection):
        return await shop.database.read(
            lambda transaction: shop.settlement.preview_replay(transaction, selection)
        )

    assert results(await preview([1, 2, 3])) == [
        (1, "replayed"),
        (2, "not_open"),
        (3, "not_found"),
    ]
    assert results(await preview(DeadLetterFilter())) == [(1, "replayed")]
    assert (await find(shop, 1)).summary.state is DeadLetterState.OPEN
    assert await shop.rows("SELECT 1 FROM shop_outbox") == []


async def test_more_than_a_thousand_at_once_are_refused(shop: Shop):
    with pytest.raises(ValueError, match="1001 dead letters at once"):
        await replay(shop, list(range(1001)))


async def test_a_replayed_message_takes_its_effect_once_it_can(shop: Shop):
    is_mended = False

    async def handle(transaction, batch):
        if not is_mended:
            raise ZeroDivisionError
        return await record_effects(transaction, batch)

    await write(shop, failure(1))
    await replay(shop, [1])
    await shop.work_until_drained(handle)
    broken = (await find(shop, 1)).summary
    await replay(shop, [1])
    is_mended = True
    await shop.work_until_drained(handle)

    # The second chain of tries is as long as the first: its rows were not taken for copies.
    assert (broken.state, broken.tries, broken.reason) == ("open", 3, "out_of_tries")
    assert (await find(shop, 1)).summary.state is DeadLetterState.REPLAYED
    (effect,) = await shop.rows("SELECT message_id FROM effects")
    assert effect["message_id"] == "m1"
