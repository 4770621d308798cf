"""Delivery: one effect for each message, and none is lost, whatever its handler does."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from orderkeep.database.transaction import StoreBusyError, StoreUnavailableError
from orderkeep.instant import Instant
from orderkeep.messaging import (
    HANDLED,
    BrokerUnavailableError,
    LeaseLostError,
    Message,
    MessageOutcome,
    Outcome,
    Received,
    RetryPolicy,
    SetAside,
    TryLater,
)
from orderkeep.messaging.database_queue import DatabaseConsumption, DatabaseQueue
from orderkeep.refusal import Refusal
from tests.integration.messaging.shop_kernel import Shop, parcel, record_effects, sql_of

NOW = Instant(1_700_000_000_000_000)


def message(number: int, **changed) -> Message:
    values: dict[str, Any] = {
        "route": "parcels",
        "message_id": f"m{number}",
        "type": "parcel.packed",
        "body": f"body {number}".encode(),
        "headers": {"x-aggregate-id": f"P{number}"},
        "published_at": NOW,
    }
    return Message(**(values | changed))


async def publish(shop: Shop, *messages: Message) -> None:
    await shop.broker.publish(messages, now=NOW)


async def effects(shop: Shop) -> list[str]:
    rows = await shop.rows("SELECT message_id FROM effects ORDER BY message_id")
    return [row["message_id"] for row in rows]


async def letters(shop: Shop) -> list:
    return await shop.rows("SELECT * FROM shop_dead_letters ORDER BY message_id")


async def inbox(shop: Shop) -> list[str]:
    rows = await shop.rows("SELECT message_id FROM shop_inbox ORDER BY message_id")
    return [row["message_id"] for row in rows]


class Answers:
    """Takes effect, unless told otherwise for one message; remembers what it was given."""

    def __init__(self, **answers: Any) -> None:
        # An outcome, an exception to raise, or a list of them, one for each try.
        self.answers = answers
        self.batches: list[list[str]] = []
        self.received: list[Received[str]] = []

    async def __call__(self, transaction, batch: Sequence[Received[str]]) -> Sequence[Outcome]:
        self.batches.append([message.message_id for message in batch])
        self.received += batch
        outcomes: list[Outcome] = []
        for received in batch:
            answer = self._answer(received.message_id)
            if isinstance(answer, BaseException):
                raise answer
            outcomes.append(answer)
        handled = [
            received
            for received, outcome in zip(batch, outcomes, strict=True)
            if outcome is HANDLED
        ]
        await record_effects(transaction, handled)
        return outcomes

    def _answer(self, message_id: str) -> Any:
        answer = self.answers.get(message_id, HANDLED)
        if isinstance(answer, list):
            return answer.pop(0) if answer else HANDLED
        return answer


async def test_a_batch_takes_effect_in_one_transaction(shop: Shop):
    await publish(shop, message(1), message(2), message(3))
    handler = Answers()

    await shop.work_until_drained(handler)

    assert handler.batches == [["m1", "m2", "m3"]]
    assert await effects(shop) == ["m1", "m2", "m3"]
    assert await inbox(shop) == ["m1", "m2", "m3"]
    assert shop.outcomes == [("parcels", MessageOutcome.HANDLED)] * 3


async def test_the_handler_gets_identity_body_and_try(shop: Shop):
    await publish(shop, message(1))
    handler = Answers()

    await shop.work_until_drained(handler)

    (received,) = handler.received
    (row,) = await shop.rows("SELECT received_at FROM shop_inbox")
    assert (received.message_id, received.body, received.attempt) == ("m1", "body 1", 1)
    assert received.first_received_at == row["received_at"]


async def test_a_copy_in_a_later_batch_takes_no_effect(shop: Shop):
    await publish(shop, message(1))
    await shop.work_until_drained()
    await publish(shop, message(1))

    await shop.work_until_drained()

    assert await effects(shop) == ["m1"]
    assert shop.outcomes == [
        ("parcels", MessageOutcome.HANDLED),
        ("parcels", MessageOutcome.DUPLICATE),
    ]


async def test_two_copies_in_one_batch_take_one_effect(shop: Shop):
    await publish(shop, message(1), message(2), message(1))
    handler = Answers()

    await shop.work_until_drained(handler)

    assert handler.batches == [["m1", "m2"]]
    assert await effects(shop) == ["m1", "m2"]


async def test_what_a_handler_sets_aside_becomes_a_dead_letter(shop: Shop):
    await publish(shop, message(1), message(2))
    handler = Answers(m1=SetAside(reason="unknown_shelf", detail="shelf 9 is not ours"))

    await shop.work_until_drained(handler)

    (letter,) = await letters(shop)
    assert (letter["message_id"], letter["reason"]) == ("m1", "unknown_shelf")
    assert letter["detail"] == "shelf 9 is not ours"
    assert (letter["state"], letter["tries"], letter["traceback"]) == ("open", 1, None)
    assert await effects(shop) == ["m2"]
    assert await inbox(shop) == ["m2"]


async def test_what_cannot_be_read_is_set_aside_exactly_as_it_came(shop: Shop):
    await publish(shop, message(1, body=b"\xff\x00", headers={"x-note": "größer"}), message(2))

    await shop.work_until_drained()

    (letter,) = await letters(shop)
    assert letter["reason"] == "malformed_text"
    assert letter["detail"] == "the body is not UTF-8"
    assert letter["body"] == b"\xff\x00"
    assert letter["sender_message_id"] == b"m1"
    assert letter["type"] == b"parcel.packed"
    assert json.loads(letter["headers"]) == {"x-note": "größer"}
    assert await effects(shop) == ["m2"]
    assert await inbox(shop) == ["m2"]


async def test_a_refusal_is_set_aside_under_its_code(shop: Shop):
    await publish(shop, message(1), message(2))
    handler = Answers(m1=Refusal("out_of_stock", "none is left"))

    await shop.work_until_drained(handler)

    (letter,) = await letters(shop)
    assert (letter["reason"], letter["detail"], letter["tries"]) == (
        "out_of_stock",
        "none is left",
        1,
    )
    assert await effects(shop) == ["m2"]


async def test_a_batch_that_fails_is_handled_one_by_one(shop: Shop):
    await publish(shop, message(1), message(2), message(3))
    handler = Answers(m2=[ZeroDivisionError(), ZeroDivisionError()])

    await shop.work_until_drained(handler)

    assert handler.batches == [["m1", "m2", "m3"], ["m1"], ["m2"], ["m3"], ["m2"]]
    assert await effects(shop) == ["m1", "m2", "m3"]


async def test_poison_is_tried_so_often_and_then_set_aside_with_its_traceback(shop: Shop):
    await publish(shop, message(1), message(2))
    handler = Answers(m1=ZeroDivisionError("one by none"))

    await shop.work_until_drained(handler)

    (letter,) = await letters(shop)
    tries = [received.attempt for received in handler.received if received.message_id == "m1"]
    # The first try happens in the batch and then alone.
    assert tries == [1, 1, 2, 3]
    assert (letter["message_id"], letter["reason"], letter["tries"]) == ("m1", "out_of_tries", 3)
    assert letter["detail"] == "ZeroDivisionError: one by none"
    assert letter["traceback"].rstrip().endswith("ZeroDivisionError: one by none")
    assert "in __call__" in letter["traceback"]
    assert await effects(shop) == ["m2"]
    assert await inbox(shop) == ["m2"]
    counts = [outcome.value for _, outcome in shop.outcomes]
    assert sorted(counts) == ["handled", "retried", "retried", "set_aside"]


async def test_a_retry_is_the_same_message_with_one_more_try(shop: Shop):
    await publish(shop, message(1))
    handler = Answers(m1=[ZeroDivisionError()])

    await shop.work_until_drained(handler)

    (row,) = await shop.rows("SELECT * FROM shop_outbox")
    first, second = handler.received
    assert (row["message_id"], row["route"], row["body"]) == ("m1", "parcels", b"body 1")
    assert (row["aggregate_id"], row["ordered"]) == ("P1", 0)
    assert row["retry_key"] == "parcels:m1:0:1"
    assert row["not_before"] > row["created_at"]
    assert json.loads(row["headers"]) == {
        "x-aggregate-id": "P1",
        "x-orderkeep-attempt": 2,
        "x-orderkeep-failed-tries": 1,
        "x-orderkeep-first-received-at": second.first_received_at,
    }
    assert second.attempt == 2
    assert first.first_received_at <= second.first_received_at <= row["created_at"]


async def test_waiting_is_not_failing(shop: Shop):
    await publish(shop, message(1))
    later = TryLater(reason="not_here_yet", detail="the shelf is unknown")
    handler = Answers(m1=[later] * 5 + [ZeroDivisionError()] * 2)

    await shop.work_until_drained(handler)

    assert [received.attempt for received in handler.received] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert await effects(shop) == ["m1"]
    assert await letters(shop) == []
    assert shop.outcomes.count(("parcels", MessageOutcome.POSTPONED)) == 5


async def test_what_waits_leaves_no_trace_in_the_inbox(shop: Shop):
    shop.delivery_policy = replace(
        shop.delivery_policy, retry=RetryPolicy(tries_max=3, base_s=1000, max_s=1000)
    )
    await publish(shop, message(1), message(2))
    handler = Answers(m1=TryLater(reason="not_here_yet", detail="the shelf is unknown"))

    async def is_postponed() -> bool:
        return bool(await shop.rows("SELECT 1 FROM shop_outbox"))

    await shop.work_until(is_postponed, shop.subscription(handler).run)

    (row,) = await shop.rows("SELECT not_before - created_at AS pause FROM shop_outbox")
    assert row["pause"] == 1_000_000_000
    assert await inbox(shop) == ["m2"]
    assert await shop.rows("SELECT 1 FROM queue_messages") == []


async def test_a_copy_of_a_failing_message_forks_nothing(shop: Shop):
    await publish(shop, message(1))
    await shop.work_until(
        lambda: has_outbox_rows(shop, 1),
        shop.subscription(Answers(m1=ZeroDivisionError())).run,
    )
    await publish(shop, message(1))

    await shop.work_until(
        lambda: is_queue_empty(shop), shop.subscription(Answers(m1=ZeroDivisionError())).run
    )

    assert len(await shop.rows("SELECT 1 FROM shop_outbox")) == 1


async def has_outbox_rows(shop: Shop, count: int) -> bool:
    return len(await shop.rows("SELECT 1 FROM shop_outbox")) == count


async def is_queue_empty(shop: Shop) -> bool:
    return not await shop.rows("SELECT 1 FROM queue_messages LIMIT 1")


async def test_a_late_copy_beside_a_later_try_loses_neither(shop: Shop):
    """Of copies in one batch the furthest along goes on: the row of its next try is not written."""
    later = TryLater(reason="not_yet", detail="come again")
    handler = Answers(m1=[later, later, HANDLED])

    async def is_postponed() -> bool:
        return bool(await shop.rows("SELECT 1 FROM shop_outbox WHERE state = 'pending'"))

    await publish(shop, message(1))
    await shop.work_until(is_postponed, shop.subscription(handler).run)
    await publish(shop, message(1))
    while await is_postponed():
        await shop.dispatch_once()

    await shop.work_until_drained(handler)

    assert [received.attempt for received in handler.received] == [1, 2, 3]
    assert await effects(shop) == ["m1"]


async def test_a_message_sent_anew_after_its_letter_was_discarded_is_tried_again(shop: Shop):
    await publish(shop, message(1))
    await shop.work_until_drained(Answers(m1=ZeroDivisionError()))

    async def discard(transaction) -> None:
        await shop.settlement.discard(transaction, [1], now=await transaction.now())

    await shop.database.transact(discard)
    await publish(shop, message(1))
    await shop.work_until_drained(Answers(m1=[ZeroDivisionError()]))

    assert await effects(shop) == ["m1"]


async def test_a_handler_that_answers_too_little_is_a_bug_and_loses_nothing(shop: Shop):
    await publish(shop, message(1), message(2))

    async def forgetful(_transaction, _batch):
        return []

    await shop.work_until_drained(forgetful)

    assert [letter["reason"] for letter in await letters(shop)] == ["out_of_tries"] * 2


async def test_a_bug_in_reading_is_tried_again_and_then_set_aside(shop: Shop):
    await publish(shop, message(1), message(2))

    def decode(raw: bytes) -> str:
        if raw == b"body 1":
            raise ZeroDivisionError
        return raw.decode()

    subscription = shop.subscription(record_effects)
    subscription._consumer = replace(subscription._consumer, decode=decode)

    await shop.work_until(shop.is_drained, shop.dispatcher().run, subscription.run)

    (letter,) = await letters(shop)
    assert (letter["message_id"], letter["reason"], letter["tries"]) == ("m1", "out_of_tries", 3)
    assert await effects(shop) == ["m2"]


async def test_one_line_tells_why_a_message_was_set_aside(shop: Shop):
    await publish(shop, message(1))
    handler = Answers(m1=SetAside(reason="unknown_shelf", detail="shelf 9 is not ours"))

    with capture_logs() as logs:
        await shop.work_until_drained(handler)

    # The dispatcher beside it may tell which partitions it holds.
    assert [line for line in logs if line["event"] != "outbox_share"] == [
        {
            "event": "message_set_aside",
            "log_level": "error",
            "message_id": "m1",
            "queue": "parcels",
            "aggregate_id": "P1",
            "attempt": 1,
            "reason": "unknown_shelf",
            "detail": "shelf 9 is not ours",
        }
    ]


async def redeliver(shop: Shop, *messages: Message) -> None:
    """Have the messages in the queue as a consumer left them that died with them in hand."""
    await publish(shop, *messages)
    consumption = await shop.broker.consume("parcels", prefetch=100)
    taken = 0
    while taken < len(messages):
        taken += len(await consumption.take(count_max=100))
    assert isinstance(shop.broker, DatabaseQueue)
    await shop.broker.release_all_leases()
    await consumption.close()


async def test_redelivered_messages_are_handled_alone_after_the_new_ones(shop: Shop):
    await redeliver(shop, message(1), message(2))
    await publish(shop, message(3), message(4))
    handler = Answers()

    await shop.work_until_drained(handler)

    assert handler.batches == [["m3", "m4"], ["m1"], ["m2"]]
    assert await effects(shop) == ["m1", "m2", "m3", "m4"]


async def test_a_redelivered_message_is_counted_before_it_is_handled(shop: Shop):
    await redeliver(shop, message(1))
    counted = []

    async def handle(transaction, batch):
        rows = await transaction.fetch_all(sql_of("SELECT attempts FROM shop_delivery_attempts"))
        counted.extend(row["attempts"] for row in rows)
        return await record_effects(transaction, batch)

    await shop.work_until_drained(handle)

    assert counted == [1]
    assert await shop.rows("SELECT 1 FROM shop_delivery_attempts") == []


async def test_a_message_that_was_in_hand_too_often_is_set_aside_untried(shop: Shop):
    await redeliver(shop, message(1))
    await shop.execute(
        "INSERT INTO shop_delivery_attempts (consumer, message_id, attempts, last_at)"
        " VALUES ('parcels', 'm1', 3, 0)"
    )
    handler = Answers()

    await shop.work_until_drained(handler)

    (letter,) = await letters(shop)
    assert handler.batches == []
    assert (letter["message_id"], letter["reason"]) == ("m1", "kills_its_consumer")
    assert letter["detail"] == "its consumer ended without settling it 3 times"
    assert await shop.rows("SELECT 1 FROM shop_delivery_attempts") == []


async def test_an_outage_of_the_database_costs_no_try(shop: Shop):
    await redeliver(shop, message(1))
    await publish(shop, message(2))
    handler = Answers(m1=[StoreUnavailableError("away")] * 4, m2=[StoreUnavailableError("away")])

    with capture_logs() as logs:
        await shop.work_until_drained(handler)

    assert await effects(shop) == ["m1", "m2"]
    assert await letters(shop) == []
    assert await shop.rows("SELECT 1 FROM shop_outbox") == []
    assert all(received.attempt == 1 for received in handler.received)
    events = [line["event"] for line in logs]
    assert events.count("message_failed") == 0
    assert events[0] == "consumer_paused"
    assert events[-1] == "consumer_resumed"


async def test_a_consumer_outlives_an_outage_of_queue_and_database(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
):
    await publish(shop, message(1))
    failures_left = 6
    transact = shop.database.transact

    async def failing_transact(work):
        nonlocal failures_left
        if failures_left:
            failures_left -= 1
            reason = "away"
            raise StoreUnavailableError(reason)
        return await transact(work)

    monkeypatch.setattr(shop.database, "transact", failing_transact)
    await shop.work_until(lambda: is_queue_empty(shop), shop.subscription(Answers()).run)

    assert await effects(shop) == ["m1"]


async def test_what_is_in_hand_is_held_through_the_whole_outage(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
):
    await publish(shop, message(1))
    transact = shop.database.transact
    # Taking goes well; handling does not, nor do the first attempts to give back.
    answers = [True, False, False, False]

    async def failing_transact(work):
        if answers and not answers.pop(0):
            reason = "away"
            raise StoreUnavailableError(reason)
        return await transact(work)

    monkeypatch.setattr(shop.database, "transact", failing_transact)
    handler = Answers()
    await shop.work_until(lambda: is_queue_empty(shop), shop.subscription(handler).run)

    assert handler.batches == [["m1"]]
    assert await effects(shop) == ["m1"]


async def test_a_consumer_waits_for_a_broker_that_is_away(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
):
    await publish(shop, message(1))
    consume = shop.broker.consume
    failures = [BrokerUnavailableError("connection refused")] * 3

    async def failing_consume(queue: str, *, prefetch: int):
        if failures:
            raise failures.pop()
        return await consume(queue, prefetch=prefetch)

    monkeypatch.setattr(shop.broker, "consume", failing_consume)
    with capture_logs() as logs:
        await shop.work_until(lambda: is_queue_empty(shop), shop.subscription(Answers()).run)

    assert [line["event"] for line in logs] == ["consumer_paused", "consumer_resumed"]
    assert await effects(shop) == ["m1"]


async def test_an_idle_consumer_tells_that_its_broker_is_back(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
):
    consume = shop.broker.consume
    failures = [BrokerUnavailableError("connection refused")] * 3

    async def failing_consume(queue: str, *, prefetch: int):
        if failures:
            raise failures.pop()
        return await consume(queue, prefetch=prefetch)

    async def is_back() -> bool:
        return "consumer_resumed" in [line["event"] for line in logs]

    monkeypatch.setattr(shop.broker, "consume", failing_consume)
    with capture_logs() as logs:
        await shop.work_until(is_back, shop.subscription(Answers()).run)

    assert [line["event"] for line in logs] == ["consumer_paused", "consumer_resumed"]


async def test_a_lost_acknowledgement_costs_nothing(shop: Shop, monkeypatch: pytest.MonkeyPatch):
    await publish(shop, message(1))
    failures = [BrokerUnavailableError("connection reset")]
    acknowledge = DatabaseConsumption.acknowledge

    async def failing_acknowledge(self, deliveries):
        if failures:
            raise failures.pop()
        await acknowledge(self, deliveries)

    async def is_done() -> bool:
        return await effects(shop) == ["m1", "m2"]

    monkeypatch.setattr(DatabaseConsumption, "acknowledge", failing_acknowledge)
    subscription = shop.subscription(Answers())
    await shop.work_until(lambda: is_queue_empty(shop), subscription.run)
    await publish(shop, message(1), message(2))
    await shop.work_until(is_done, subscription.run)

    assert failures == []


async def test_a_stop_ends_the_handling_one_by_one(shop: Shop):
    await publish(shop, message(1), message(2))
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def handle(transaction, batch):
        if len(batch) > 1:
            raise ZeroDivisionError
        loop.call_soon_threadsafe(stop.set)
        return await record_effects(transaction, batch)

    async with asyncio.timeout(20):
        await shop.subscription(handle).run(stop)

    rows = await shop.rows("SELECT message_id, lease_owner, delivery_count FROM queue_messages")
    assert await effects(shop) == ["m1"]
    assert [tuple(row) for row in rows] == [("m2", None, 0)]


async def test_a_lost_lease_rolls_the_batch_back(shop: Shop, monkeypatch: pytest.MonkeyPatch):
    await publish(shop, message(1))
    losses = [LeaseLostError("too slow")]
    subscription = shop.subscription(Answers())
    acknowledge_within = DatabaseQueue.acknowledge_within

    async def losing(self, transaction, ids_by_token):
        if losses:
            raise losses.pop()
        await acknowledge_within(self, transaction, ids_by_token)

    monkeypatch.setattr(DatabaseQueue, "acknowledge_within", losing)
    with capture_logs() as logs:
        await shop.work_until(lambda: is_queue_empty(shop), subscription.run)

    assert [line["event"] for line in logs] == ["lease_lost"]
    assert await effects(shop) == ["m1"]


async def test_losing_the_lease_again_and_again_is_not_killing_the_consumer(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
):
    """More often than a message may be in hand when its consumer dies: nobody died."""
    await redeliver(shop, message(1))
    losses = [LeaseLostError("ran out")] * (shop.delivery_policy.retry.tries_max + 2)
    acknowledge_within = DatabaseQueue.acknowledge_within

    async def losing(self, transaction, ids_by_token):
        if losses:
            raise losses.pop()
        await acknowledge_within(self, transaction, ids_by_token)

    monkeypatch.setattr(DatabaseQueue, "acknowledge_within", losing)
    await shop.work_until(lambda: is_queue_empty(shop), shop.subscription(Answers()).run)

    assert losses == []
    assert await letters(shop) == []
    assert await effects(shop) == ["m1"]
    assert await shop.rows("SELECT 1 FROM shop_delivery_attempts WHERE attempts > 0") == []


async def test_a_message_whose_rows_somebody_holds_holds_up_no_other(shop: Shop):
    """It comes again later, at no cost; those behind it go on in the meantime."""
    busy = StoreBusyError("canceling statement due to lock timeout")
    handler = Answers(m1=[busy] * (shop.delivery_policy.retry.tries_max + 2))
    await publish(shop, message(1), message(2), message(3))

    await shop.work_until_drained(handler)

    assert handler.batches[:4] == [["m1", "m2", "m3"], ["m1"], ["m2"], ["m3"]]
    assert await letters(shop) == []
    assert await effects(shop) == ["m1", "m2", "m3"]
    assert ("parcels", MessageOutcome.POSTPONED) in shop.outcomes


async def test_a_stop_finishes_what_is_under_way_and_gives_back_the_rest(shop: Shop):
    await redeliver(shop, message(1), message(2), message(3))
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def handle(transaction, batch):
        loop.call_soon_threadsafe(stop.set)
        return await record_effects(transaction, batch)

    async with asyncio.timeout(20):
        await shop.subscription(handle).run(stop)

    rows = await shop.rows(
        "SELECT message_id, lease_owner, delivery_count FROM queue_messages ORDER BY id"
    )
    assert await effects(shop) == ["m1"]
    assert [tuple(row) for row in rows] == [("m2", None, 1), ("m3", None, 1)]


async def test_a_stop_ends_a_consumer_that_waits(shop: Shop):
    stop = asyncio.Event()
    running = asyncio.create_task(shop.subscription(Answers()).run(stop))
    await asyncio.sleep(0)

    stop.set()

    async with asyncio.timeout(5):
        await running


async def test_a_handlers_events_leave_if_its_effect_does(shop: Shop):
    await publish(shop, message(1))
    failures = [ZeroDivisionError()]

    async def handle(transaction, batch):
        event = parcel(5, route="letters")
        await shop.outbox.append(transaction, [event], now=await transaction.now())
        if failures:
            raise failures.pop()
        return await record_effects(transaction, batch)

    async def is_done() -> bool:
        return await effects(shop) == ["m1"]

    await shop.work_until(is_done, shop.dispatcher().run, shop.subscription(handle).run)

    assert len(await shop.rows("SELECT 1 FROM shop_outbox WHERE route = 'letters'")) == 1


async def test_order_per_aggregate_holds_from_outbox_to_effect(shop: Shop):
    events = [
        parcel(number, sequence=sequence, route="parcel.events")
        for sequence in range(1, 6)
        for number in range(8)
    ]
    await shop.append(*events)

    await shop.work_until_drained()

    rows = await shop.rows("SELECT body FROM effects ORDER BY id")
    seen: dict[str, list[int]] = {}
    for row in rows:
        aggregate, _, sequence = row["body"].partition("/")
        seen.setdefault(aggregate, []).append(int(sequence))
    assert seen == {f"P{number}": [1, 2, 3, 4, 5] for number in range(8)}
