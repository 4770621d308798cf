"""The dispatcher: everything leaves, in order, and an obstacle stops no one but those behind it."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest
from msgspec import structs
from structlog.testing import capture_logs
from structlog.typing import EventDict

from orderkeep.database.postgresql import PostgresDatabase
from orderkeep.database.postgresql_connection import PostgresLimits
from orderkeep.database.transaction import StoreUnavailableError
from orderkeep.instant import Instant, after
from orderkeep.messaging import (
    BrokerUnavailableError,
    Message,
    Outbox,
    OutboxFilter,
    PublishOutcome,
    PublishResult,
    Topology,
)
from orderkeep.messaging.broker import BrokerRefusedError
from orderkeep.messaging.dispatcher import SHARE_INTERVAL_S
from tests.cleaned_databases import CleanedDatabases
from tests.condition import eventually
from tests.integration.messaging.shop_kernel import SHOP, TOPOLOGY, Shop, parcel, shop_on
from tests.plain_sql import PostgresPlainSql

REFUSED = PublishOutcome(result=PublishResult.REFUSED, detail="too odd")
ROUTE_DOWN = PublishOutcome(result=PublishResult.ROUTE_DOWN, detail="no such queue")


class ScriptedBroker:
    """Passes on to a real broker what the script does not answer by itself."""

    def __init__(self, shop: Shop) -> None:
        self._broker = shop.broker
        self.answers: dict[str, PublishOutcome] = {}
        self.published: list[Message] = []
        self.stopped_count = 0
        self.declared_count = 0
        self.is_away = False
        self.raises_for: set[str] = set()

    async def declare(self, topology: Topology) -> None:
        if self.is_away:
            reason = "connection refused"
            raise BrokerUnavailableError(reason)
        self.declared_count += 1
        await self._broker.declare(topology)

    async def publish(
        self, messages: Sequence[Message], *, now: Instant
    ) -> Sequence[PublishOutcome]:
        if self.is_away:
            reason = "connection refused"
            raise BrokerUnavailableError(reason)
        outcomes = []
        for message in messages:
            if message.message_id in self.raises_for:
                reason = f"for {message.message_id}"
                raise ZeroDivisionError(reason)
            answer = self.answers.get(message.message_id) or self.answers.get(message.route)
            if answer is None:
                (answer,) = await self._broker.publish([message], now=now)
            outcomes.append(answer)
            if answer.result is PublishResult.CONFIRMED:
                self.published.append(message)
        return outcomes

    def stop_publishing(self) -> None:
        self.stopped_count += 1
        self._broker.stop_publishing()

    async def consume(self, queue: str, *, prefetch: int):
        return await self._broker.consume(queue, prefetch=prefetch)

    async def ready_count(self, queue: str) -> int:
        return await self._broker.ready_count(queue)

    async def close(self) -> None:
        await self._broker.close()

    def published_ids(self) -> list[str]:
        return [message.message_id for message in self.published]


@pytest.fixture
def scripted(shop: Shop) -> ScriptedBroker:
    broker = ScriptedBroker(shop)
    shop.broker = broker
    return broker


def of_one_dispatcher(logs: Sequence[EventDict]) -> list[EventDict]:
    """Return the lines without those that only tell which partitions a dispatcher holds."""
    return [line for line in logs if line["event"] != "outbox_share"]


async def states(shop: Shop) -> dict[str, str]:
    rows = await shop.rows("SELECT message_id, state FROM shop_outbox")
    return {row["message_id"]: row["state"] for row in rows}


async def dispatch_until_idle(shop: Shop) -> None:
    while (await shop.dispatch_once()).wait_s == 0:
        pass


async def test_what_was_appended_is_published_and_settled(shop: Shop, scripted: ScriptedBroker):
    await shop.append(parcel(1), parcel(2))

    dispatched = await shop.dispatch_once()

    assert (dispatched.sent_count, dispatched.refused_count, dispatched.wait_s) == (2, 0, 0)
    rows = await shop.rows("SELECT state, sent_at, created_at FROM shop_outbox")
    assert [row["state"] for row in rows] == ["sent", "sent"]
    assert all(row["sent_at"] >= row["created_at"] for row in rows)
    assert scripted.published_ids() == ["P1-1-parcels", "P2-1-parcels"]


async def test_a_message_carries_what_the_contract_asks(shop: Shop, scripted: ScriptedBroker):
    due_at = Instant(1_900_000_000_000_000)
    await shop.append(
        structs.replace(parcel(7, sequence=3), deliver_at=due_at, headers={"x-own": 1})
    )

    await shop.dispatch_once()

    (message,) = scripted.published
    assert message.route == "parcels"
    assert message.type == "parcel.packed"
    assert message.body == b"P7/3"
    assert message.headers == {
        "x-schema-version": 1,
        "x-aggregate-id": "P7",
        "x-sequence": 3,
        "x-own": 1,
    }
    assert message.deliver_at == due_at
    assert message.order_key == "P7"


async def test_an_unordered_message_has_no_order_key(shop: Shop, scripted: ScriptedBroker):
    await shop.append(structs.replace(parcel(7), ordered=False))

    await shop.dispatch_once()

    assert scripted.published[0].order_key is None


async def test_one_debug_line_tells_of_each_message(shop: Shop):
    await shop.append(parcel(1))

    with capture_logs() as logs:
        await shop.dispatch_once()

    assert of_one_dispatcher(logs) == [
        {
            "event": "outbox_published",
            "log_level": "debug",
            "message_id": "P1-1-parcels",
            "type": "parcel.packed",
            "route": "parcels",
            "aggregate_id": "P1",
        }
    ]


async def test_events_of_an_aggregate_leave_in_order_one_by_one(
    shop: Shop, scripted: ScriptedBroker
):
    await shop.append(parcel(1, sequence=2), parcel(1, sequence=1), parcel(2, sequence=1))
    dispatcher = shop.dispatcher()

    first = await dispatcher.run_once()
    second = await dispatcher.run_once()

    assert (first.sent_count, second.sent_count) == (2, 1)
    assert scripted.published_ids() == ["P1-1-parcels", "P2-1-parcels", "P1-2-parcels"]


async def test_order_holds_for_each_route_alone(shop: Shop, scripted: ScriptedBroker):
    scripted.answers["parcels"] = ROUTE_DOWN
    await shop.append(
        parcel(1, sequence=1, route="parcels"), parcel(1, sequence=2, route="letters")
    )

    await shop.dispatch_once()

    assert await states(shop) == {"P1-1-parcels": "pending", "P1-2-letters": "sent"}


async def test_unordered_rows_wait_for_nobody(shop: Shop, scripted: ScriptedBroker):
    scripted.answers["P1-1-parcels"] = REFUSED
    await shop.append(parcel(1, sequence=1), structs.replace(parcel(1, sequence=2), ordered=False))

    await shop.dispatch_once()

    assert scripted.published_ids() == ["P1-2-parcels"]


async def test_a_parked_row_blocks_its_aggregate_and_route_and_nothing_else(
    shop: Shop, scripted: ScriptedBroker
):
    scripted.answers["P1-1-parcels"] = REFUSED
    await shop.append(
        parcel(1, sequence=1),
        parcel(1, sequence=2),
        parcel(1, sequence=3, route="letters"),
        parcel(2, sequence=1),
    )

    async def is_parked() -> bool:
        return (await states(shop))["P1-1-parcels"] == "failed"

    await shop.work_until(is_parked, shop.dispatcher().run)

    assert await states(shop) == {
        "P1-1-parcels": "failed",
        "P1-2-parcels": "pending",
        "P1-3-letters": "sent",
        "P2-1-parcels": "sent",
    }
    (row,) = await shop.rows("SELECT attempts, last_error FROM shop_outbox WHERE state = 'failed'")
    assert (row["attempts"], row["last_error"]) == (16, "too odd")


async def park_first(shop: Shop, scripted: ScriptedBroker) -> None:
    """Have the first of two events of one aggregate parked, with the second behind it."""
    scripted.answers["P1-1-parcels"] = REFUSED
    await shop.append(parcel(1, sequence=1), parcel(1, sequence=2))
    await shop.execute("UPDATE shop_outbox SET attempts = 15")
    await shop.dispatch_once()
    assert await states(shop) == {"P1-1-parcels": "failed", "P1-2-parcels": "pending"}
    scripted.answers.clear()


async def test_a_retried_row_goes_and_those_behind_it_follow(shop: Shop, scripted: ScriptedBroker):
    await park_first(shop, scripted)

    async def retry(transaction) -> None:
        await shop.outbox_rows.retry(transaction, OutboxFilter(), now=await transaction.now())

    await shop.database.transact(retry)
    await dispatch_until_idle(shop)

    assert scripted.published_ids() == ["P1-1-parcels", "P1-2-parcels"]


async def test_behind_a_discarded_row_the_others_go_on(shop: Shop, scripted: ScriptedBroker):
    await park_first(shop, scripted)

    async def discard(transaction) -> None:
        await shop.outbox_rows.discard(transaction, [1], now=await transaction.now())

    await shop.database.transact(discard)
    await dispatch_until_idle(shop)

    assert scripted.published_ids() == ["P1-2-parcels"]
    assert await states(shop) == {"P1-1-parcels": "discarded", "P1-2-parcels": "sent"}


async def test_a_refused_row_waits_and_costs_its_neighbours_nothing(
    shop: Shop, scripted: ScriptedBroker
):
    shop.dispatch_policy = replace(shop.dispatch_policy, retry_base_s=100, retry_max_s=100)
    scripted.answers["P1-1-parcels"] = REFUSED
    await shop.append(parcel(1), parcel(2))

    dispatched = await shop.dispatch_once()

    assert (dispatched.sent_count, dispatched.refused_count) == (1, 1)
    (row,) = await shop.rows(
        "SELECT attempts, last_error, not_before - created_at AS pause FROM shop_outbox"
        " WHERE state = 'pending'"
    )
    assert (row["attempts"], row["last_error"]) == (1, "too odd")
    assert 100_000_000 <= row["pause"] < 110_000_000


async def test_a_route_that_is_down_costs_its_rows_nothing_and_stops_no_other(
    shop: Shop, scripted: ScriptedBroker
):
    scripted.answers["parcels"] = ROUTE_DOWN
    await shop.append(parcel(1, route="parcels"), parcel(2, route="letters"))

    dispatched = await shop.dispatch_once()

    assert (dispatched.sent_count, dispatched.held_back_count) == (1, 1)
    (row,) = await shop.rows(
        "SELECT state, attempts, not_before, created_at, last_error FROM shop_outbox"
        " WHERE route = 'parcels'"
    )
    assert (row["state"], row["attempts"]) == ("pending", 0)
    # Whoever lists it sees why it has not left.
    assert row["last_error"] == "no such queue"
    assert row["not_before"] == row["created_at"]


async def test_a_paused_route_is_not_read_until_its_pause_ends(
    shop: Shop, scripted: ScriptedBroker
):
    shop.dispatch_policy = replace(
        shop.dispatch_policy, route_pause_base_s=100, route_pause_max_s=100, poll_interval_s=300
    )
    scripted.answers["parcels"] = ROUTE_DOWN
    await shop.append(parcel(1, route="parcels"))
    dispatcher = shop.dispatcher()
    await dispatcher.run_once()
    scripted.answers.clear()
    await shop.append(parcel(2, route="letters"))

    second = await dispatcher.run_once()
    third = await dispatcher.run_once()

    assert second.sent_count == 1
    assert third.sent_count == 0
    # Where others may come for their share, it asks about that in between.
    assert 99 < third.wait_s <= 100 or third.wait_s == SHARE_INTERVAL_S
    assert await states(shop) == {"P1-1-parcels": "pending", "P2-1-letters": "sent"}


async def test_a_route_that_comes_back_is_used_and_logged_once(
    shop: Shop, scripted: ScriptedBroker
):
    scripted.answers["parcels"] = ROUTE_DOWN
    await shop.append(parcel(1))

    async def has_tried_thrice() -> bool:
        return scripted.declared_count >= 3

    async def is_sent() -> bool:
        return await states(shop) == {"P1-1-parcels": "sent"}

    dispatcher = shop.dispatcher()
    with capture_logs() as logs:
        await shop.work_until(has_tried_thrice, dispatcher.run)
        scripted.answers.clear()
        await shop.work_until(is_sent, dispatcher.run)

    lines = of_one_dispatcher(logs)
    assert [line["event"] for line in lines] == ["route_down", "route_up", "outbox_published"]
    assert lines[0]["detail"] == "no such queue"


async def test_everything_leaves_once_the_broker_is_back(shop: Shop, scripted: ScriptedBroker):
    scripted.is_away = True
    await shop.append(parcel(1, route="parcels"), parcel(2, route="letters"))
    dispatcher = shop.dispatcher()
    away = await dispatcher.run_once()
    scripted.is_away = False

    async def is_sent() -> bool:
        return set((await states(shop)).values()) == {"sent"}

    await shop.work_until(is_sent, dispatcher.run)

    assert (away.sent_count, away.held_back_count) == (0, 2)


async def test_a_row_that_makes_the_broker_raise_is_refused_while_others_pass(
    shop: Shop, scripted: ScriptedBroker
):
    scripted.raises_for.add("P1-1-parcels")
    await shop.append(parcel(1), parcel(2), parcel(3))

    dispatched = await shop.dispatch_once()

    assert (dispatched.sent_count, dispatched.refused_count) == (2, 1)
    (row,) = await shop.rows("SELECT attempts, last_error FROM shop_outbox WHERE attempts > 0")
    assert (row["attempts"], row["last_error"]) == (1, "ZeroDivisionError: for P1-1-parcels")


@pytest.mark.parametrize("numbers", [[1], [1, 2]])
async def test_a_broker_that_raises_for_all_costs_no_row_a_try(
    shop: Shop, scripted: ScriptedBroker, numbers: list[int]
):
    scripted.raises_for |= {"P1-1-parcels", "P2-1-parcels"}
    await shop.append(*[parcel(number) for number in numbers])

    dispatched = await shop.dispatch_once()

    assert dispatched.held_back_count == len(numbers)
    assert await shop.rows("SELECT 1 FROM shop_outbox WHERE attempts > 0") == []


async def test_an_append_wakes_a_dispatcher_that_waits(shop: Shop):
    shop.dispatch_policy = replace(shop.dispatch_policy, poll_interval_s=300)
    has_appended: list[bool] = []

    async def is_sent() -> bool:
        if not has_appended:
            await shop.append(parcel(1))
            has_appended.append(True)
        return await states(shop) == {"P1-1-parcels": "sent"}

    await shop.work_until(is_sent, shop.dispatcher().run)


async def test_the_poll_finds_what_another_process_appended(shop: Shop):
    other = Outbox(SHOP, new_message_id=lambda: "from elsewhere")
    has_appended: list[bool] = []

    async def append(transaction) -> None:
        event = structs.replace(parcel(1), message_id=None)
        await other.append(transaction, [event], now=await transaction.now())

    async def is_sent() -> bool:
        if not has_appended:
            await shop.database.transact(append)
            has_appended.append(True)
        return await states(shop) == {"from elsewhere": "sent"}

    await shop.work_until(is_sent, shop.dispatcher().run)


async def test_a_row_leaves_when_its_time_has_come_and_not_before(shop: Shop):
    shop.dispatch_policy = replace(shop.dispatch_policy, poll_interval_s=300)
    now = await shop.database.read(lambda transaction: transaction.now())
    not_before = after(now, seconds=0.3)
    await shop.append(structs.replace(parcel(1), not_before=not_before))
    early = await shop.dispatch_once()

    async def is_sent() -> bool:
        return await states(shop) == {"P1-1-parcels": "sent"}

    await shop.work_until(is_sent, shop.dispatcher().run)

    assert early.sent_count == 0
    assert 0 < early.wait_s <= 0.3
    (row,) = await shop.rows("SELECT sent_at FROM shop_outbox")
    assert not_before <= row["sent_at"]


async def test_a_batch_is_no_larger_than_it_may_be(shop: Shop):
    shop.dispatch_policy = replace(shop.dispatch_policy, batch_size=2)
    await shop.append(*[parcel(number) for number in range(5)])
    dispatcher = shop.dispatcher()

    counts = [(await dispatcher.run_once()).sent_count for _ in range(4)]

    assert counts == [2, 2, 1, 0]


async def test_the_next_batch_is_on_its_way_while_the_first_is_confirmed(
    shop: Shop, scripted: ScriptedBroker, monkeypatch: pytest.MonkeyPatch
):
    shop.dispatch_policy = replace(shop.dispatch_policy, batch_size=2)
    # P1 has two that must leave one after the other: the second is read only once the first is
    # settled, however many batches are on their way.
    await shop.append(
        parcel(1, sequence=1),
        parcel(1, sequence=2),
        *[parcel(number, sequence=1) for number in range(2, 6)],
    )
    publish = scripted.publish
    begun: list[list[str]] = []
    has_second_begun = asyncio.Event()

    async def publish_once_the_second_has_begun(
        messages: Sequence[Message], *, now: Instant
    ) -> Sequence[PublishOutcome]:
        begun.append([message.message_id for message in messages])
        if len(begun) > 1:
            has_second_begun.set()
        await has_second_begun.wait()
        return await publish(messages, now=now)

    monkeypatch.setattr(scripted, "publish", publish_once_the_second_has_begun)
    dispatcher = shop.dispatcher()
    async with asyncio.timeout(20):
        first = await dispatcher.run_once()
        while (await dispatcher.run_once()).wait_s == 0:
            pass
    await dispatcher.close()

    assert first.sent_count == 2
    assert begun[:2] == [["P1-1-parcels", "P2-1-parcels"], ["P3-1-parcels", "P4-1-parcels"]]
    published_ids = [message_id for batch in begun for message_id in batch]
    assert sorted(published_ids) == sorted(await states(shop)), "one was published twice, or never"
    assert published_ids.index("P1-2-parcels") > published_ids.index("P4-1-parcels")
    assert set((await states(shop)).values()) == {"sent"}


async def test_a_dispatcher_that_is_told_to_stop_settles_what_is_on_its_way(
    shop: Shop, scripted: ScriptedBroker, monkeypatch: pytest.MonkeyPatch
):
    shop.dispatch_policy = replace(shop.dispatch_policy, batch_size=2)
    await shop.append(*[parcel(number) for number in range(9)])
    publish = scripted.publish
    stop = asyncio.Event()

    async def publish_and_stop(
        messages: Sequence[Message], *, now: Instant
    ) -> Sequence[PublishOutcome]:
        stop.set()
        return await publish(messages, now=now)

    monkeypatch.setattr(scripted, "publish", publish_and_stop)
    await shop.dispatcher().run(stop)

    found = await states(shop)
    assert {message_id for message_id, state in found.items() if state == "sent"} == set(
        scripted.published_ids()
    )
    assert len(scripted.published_ids()) == 4


async def test_a_dispatcher_that_is_closed_gives_up_what_is_on_its_way(
    shop: Shop, scripted: ScriptedBroker, monkeypatch: pytest.MonkeyPatch
):
    """Whoever holds the partitions next sends it again; nothing of it may leave afterwards."""
    shop.dispatch_policy = replace(shop.dispatch_policy, batch_size=2)
    await shop.append(*[parcel(number) for number in range(4)])
    publish = scripted.publish
    never = asyncio.Event()
    published: list[str] = []

    async def publish_the_first(
        messages: Sequence[Message], *, now: Instant
    ) -> Sequence[PublishOutcome]:
        if published:
            await never.wait()
        published.extend(message.message_id for message in messages)
        return await publish(messages, now=now)

    monkeypatch.setattr(scripted, "publish", publish_the_first)
    dispatcher = shop.dispatcher()
    await dispatcher.run_once()
    await dispatcher.close()

    assert scripted.stopped_count == 1
    assert list((await states(shop)).values()).count("pending") == 2
    monkeypatch.setattr(scripted, "publish", publish)
    await dispatch_until_idle(shop)
    assert sorted(scripted.published_ids()) == [f"P{number}-1-parcels" for number in range(4)]


async def test_a_row_that_was_discarded_on_its_way_stays_discarded(
    shop: Shop, scripted: ScriptedBroker, monkeypatch: pytest.MonkeyPatch
):
    await shop.append(parcel(1))
    publish = scripted.publish

    async def publish_slowly(
        messages: Sequence[Message], *, now: Instant
    ) -> Sequence[PublishOutcome]:
        outcomes = await publish(messages, now=now)
        await shop.execute("UPDATE shop_outbox SET state = 'discarded'")
        return outcomes

    monkeypatch.setattr(scripted, "publish", publish_slowly)
    await shop.dispatch_once()

    assert await states(shop) == {"P1-1-parcels": "discarded"}


async def test_a_broker_that_takes_its_time_costs_no_session(
    shop_databases: CleanedDatabases, monkeypatch: pytest.MonkeyPatch
):
    """The server ends a session that is not used; a dispatcher that waits for confirms uses it."""
    limits = PostgresLimits(idle_session_s=0.5)
    with shop_databases.given() as url:
        shop = shop_on(PostgresDatabase(url, draw_jitter=lambda: 0.5, limits=limits))
        await shop.broker.declare(TOPOLOGY)
        scripted = ScriptedBroker(shop)
        shop.broker = scripted
        await shop.append(parcel(1))
        publish = scripted.publish

        async def publish_slowly(
            messages: Sequence[Message], *, now: Instant
        ) -> Sequence[PublishOutcome]:
            # Not for a condition: for longer than the server lets a session idle.
            await asyncio.sleep(3 * limits.idle_session_s)
            return await publish(messages, now=now)

        monkeypatch.setattr(scripted, "publish", publish_slowly)
        dispatcher = shop.dispatcher()
        dispatched = await dispatcher.run_once()

        await dispatcher.close()
        assert dispatched.sent_count == 1
        assert scripted.stopped_count == 0
        assert await states(shop) == {"P1-1-parcels": "sent"}
        await shop.database.close()


async def test_a_dispatcher_that_is_cut_off_from_the_broker_lets_others_have_its_rows(
    postgresql_shop: Shop, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("orderkeep.messaging.dispatcher.UNREACHABLE_S_MAX", 0.1)
    shop = postgresql_shop
    working = shop.broker
    cut_off = ScriptedBroker(shop)
    cut_off.is_away = True
    shop.broker = cut_off
    alone = shop.dispatcher()
    shop.broker = working
    await shop.append(*[parcel(number) for number in range(40)])

    async def is_all_sent() -> bool:
        return set((await states(shop)).values()) == {"sent"}

    await shop.work_until(is_all_sent, alone.run, shop.dispatcher().run)

    assert cut_off.published == []


async def test_a_broker_that_must_not_be_used_ends_the_dispatcher_before_it_has_anything_to_send(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
):
    async def refuse(_topology: Topology) -> None:
        reason = "the exchange is of another type"
        raise BrokerRefusedError(reason)

    monkeypatch.setattr(shop.broker, "declare", refuse)

    with pytest.raises(BrokerRefusedError):
        await shop.dispatcher().run(asyncio.Event())


async def test_the_dispatcher_outlives_an_outage_of_the_database(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
):
    await shop.append(parcel(1))
    failures = [StoreUnavailableError("away")] * 3
    open_session = shop.database.open_session

    async def open_failing(*, on_lost):
        if failures:
            raise failures.pop()
        return await open_session(on_lost=on_lost)

    async def is_over() -> bool:
        return not failures and await states(shop) == {"P1-1-parcels": "sent"}

    monkeypatch.setattr(shop.database, "open_session", open_failing)
    with capture_logs() as logs:
        await shop.work_until(is_over, shop.dispatcher().run)

    events = [line["event"] for line in of_one_dispatcher(logs)]
    assert events == ["outbox_unavailable", "outbox_published", "outbox_available"]


async def test_events_of_unused_routes_are_recorded_and_not_published(shop: Shop):
    shop.outbox = Outbox(SHOP, new_message_id=lambda: "drawn", unused_routes=frozenset({"parcels"}))
    await shop.append(parcel(1), parcel(2, route="letters"))

    dispatched = await shop.dispatch_once()

    assert dispatched.sent_count == 1
    (row,) = await shop.rows("SELECT state, sent_at FROM shop_outbox WHERE route = 'parcels'")
    assert row["state"] == "sent"
    assert row["sent_at"] is not None


async def test_a_retry_key_makes_a_second_row_none(shop: Shop):
    await shop.append(structs.replace(parcel(1), retry_key="parcels:m1:0:1"))
    await shop.append(structs.replace(parcel(2), retry_key="parcels:m1:0:1"), parcel(3))

    assert sorted(await states(shop)) == ["P1-1-parcels", "P3-1-parcels"]


async def test_what_the_broker_cannot_hold_waits_here_until_its_moment(
    shop: Shop, scripted: ScriptedBroker, monkeypatch: pytest.MonkeyPatch
):
    deliver_at = Instant(4_000_000_000_000_000)
    scripted.answers["P1-1-parcels"] = PublishOutcome(result=PublishResult.NOT_HELD)
    await shop.append(structs.replace(parcel(1), deliver_at=deliver_at))
    publish = scripted.publish
    asked_ids: list[str] = []

    async def publish_counted(
        messages: Sequence[Message], *, now: Instant
    ) -> Sequence[PublishOutcome]:
        asked_ids.extend(message.message_id for message in messages)
        return await publish(messages, now=now)

    monkeypatch.setattr(scripted, "publish", publish_counted)
    first = await shop.dispatch_once()
    second = await shop.dispatch_once()

    assert (first.postponed_count, second.postponed_count) == (1, 0)
    assert asked_ids == ["P1-1-parcels"]
    (row,) = await shop.rows("SELECT state, attempts, not_before FROM shop_outbox")
    assert (row["state"], row["attempts"], row["not_before"]) == ("pending", 0, deliver_at)


async def test_the_way_to_the_broker_is_closed_as_soon_as_the_session_is_lost(
    shop_databases: CleanedDatabases, monkeypatch: pytest.MonkeyPatch
):
    """The partitions may be another's by then, so nothing more may leave."""
    # So long that the dispatcher does not find out by using the session.
    limits = PostgresLimits(idle_session_s=600)
    with shop_databases.given() as url:
        shop = shop_on(PostgresDatabase(url, draw_jitter=lambda: 0.5, limits=limits))
        scripted = ScriptedBroker(shop)
        shop.broker = scripted
        await shop.append(parcel(1))
        is_publishing, may_end = asyncio.Event(), asyncio.Event()

        async def publish_slowly(
            messages: Sequence[Message], *, now: Instant
        ) -> Sequence[PublishOutcome]:
            del now
            is_publishing.set()
            await may_end.wait()
            return [PublishOutcome(result=PublishResult.CONFIRMED)] * len(messages)

        monkeypatch.setattr(scripted, "publish", publish_slowly)
        dispatching = asyncio.create_task(shop.dispatch_once())
        async with asyncio.timeout(20):
            await is_publishing.wait()
        end_sessions(url)

        # Before the publishing has ended, which it may only then.
        await eventually(lambda: scripted.stopped_count > 0)
        may_end.set()
        with pytest.raises(StoreUnavailableError):
            await dispatching

        assert await states(shop) == {"P1-1-parcels": "pending"}
        await shop.database.close()


async def test_what_is_still_to_be_published_never_is_once_the_session_is_lost(
    shop_databases: CleanedDatabases, monkeypatch: pytest.MonkeyPatch
):
    """Its rows are another's by then; it would overtake what that one has sent since."""
    limits = PostgresLimits(idle_session_s=600)
    with shop_databases.given() as url:
        shop = shop_on(PostgresDatabase(url, draw_jitter=lambda: 0.5, limits=limits))
        scripted = ScriptedBroker(shop)
        scripted.answers["parcels"] = PublishOutcome(result=PublishResult.CONFIRMED)
        shop.broker = scripted
        await shop.append(parcel(1))
        is_declaring, may_end = asyncio.Event(), asyncio.Event()

        async def declare_slowly(topology: Topology) -> None:
            del topology
            is_declaring.set()
            await may_end.wait()

        monkeypatch.setattr(scripted, "declare", declare_slowly)
        dispatching = asyncio.create_task(shop.dispatch_once())
        async with asyncio.timeout(20):
            await is_declaring.wait()
        end_sessions(url)
        await eventually(lambda: scripted.stopped_count > 0)
        may_end.set()
        with pytest.raises(StoreUnavailableError):
            await dispatching

        assert scripted.published == []
        assert await states(shop) == {"P1-1-parcels": "pending"}
        await shop.database.close()


def end_sessions(url: str) -> None:
    """End the connections by which dispatchers hold partitions, as a restarting server does."""
    PostgresPlainSql(url).rows(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid IN ("
        " SELECT pid FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database"
        " WHERE locktype = 'advisory' AND datname = current_database())"
    )
