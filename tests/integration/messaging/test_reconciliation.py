"""What was sent is looked for where it should have arrived, and brought again where it is not."""

import asyncio

import pytest
from msgspec.structs import replace

from orderkeep.messaging import (
    BrokerUnavailableError,
    Receiver,
    Reconciliation,
    ReconciliationPolicy,
)
from orderkeep.messaging.receipts import Receipts, count_receipts
from orderkeep.messaging.sent_events import PAGE_COUNT
from tests.integration.messaging.shop_kernel import (
    SHOP,
    TOPOLOGY,
    Shop,
    parcel,
    record_effects,
)

DAY_US = 86_400_000_000


class Looking:
    """A reconciliation that misses an event at once."""

    def __init__(
        self, shop: Shop, *, queues: tuple[str, ...] = ("parcels",), grace_s: float = -1
    ) -> None:
        self.shop = shop
        self.missing_counts: dict[str, int] = {}
        self._reconciliation = Reconciliation(
            shop.outbox,
            receivers=[Receiver(consumer=name, queue=name, tables=SHOP) for name in queues],
            database=shop.database,
            broker=shop.broker,
            topology=TOPOLOGY,
            note_missing=self._note,
            policy=ReconciliationPolicy(grace_s=grace_s, interval_s=0.01),
        )

    async def look(self) -> int:
        """Return how many events were sent again."""
        return await self._reconciliation.reconcile_once(asyncio.Event())

    async def begin(self) -> None:
        """Look from now on, with nothing behind."""
        await self.look()
        await self.shop.execute("UPDATE shop_reconciled SET sent_at = sent_at - 3600000000")

    def _note(self, queue: str, *, missing_count: int, resent_count: int) -> None:
        del resent_count
        self.missing_counts[queue] = missing_count


@pytest.fixture
async def looking(shop: Shop) -> Looking:
    looking = Looking(shop)
    await looking.begin()
    return looking


async def lose(shop: Shop, *, queue: str = "parcels") -> None:
    """Have the broker forget what it confirmed."""
    await shop.execute("DELETE FROM queue_messages WHERE queue = :queue", queue=queue)


async def effects(shop: Shop) -> list[str]:
    rows = await shop.rows("SELECT message_id FROM effects ORDER BY message_id")
    return [row["message_id"] for row in rows]


async def test_an_event_that_the_broker_lost_is_sent_again_with_its_identity_and_takes_effect(
    shop: Shop, looking: Looking
):
    await shop.append(parcel(1), parcel(2))
    await shop.dispatch_once()
    await lose(shop)

    resent_count = await looking.look()
    await shop.work_until_drained()

    assert resent_count == 2
    assert await effects(shop) == ["P1-1-parcels", "P2-1-parcels"]


async def test_an_event_lost_again_is_sent_again_again(shop: Shop, looking: Looking):
    await shop.append(parcel(1))
    for _ in range(3):
        await shop.dispatch_once()
        await lose(shop)
        assert await looking.look() == 1

    await shop.work_until_drained()

    assert await effects(shop) == ["P1-1-parcels"]


async def test_what_has_arrived_is_not_sent_again(shop: Shop, looking: Looking):
    await shop.append(parcel(1))
    await shop.work_until_drained()

    assert await looking.look() == 0
    assert looking.missing_counts == {"parcels": 0}


async def test_what_still_waits_in_the_queue_is_missed_and_not_sent_again(
    shop: Shop, looking: Looking
):
    await shop.append(parcel(1))
    await shop.dispatch_once()

    assert await looking.look() == 0
    assert looking.missing_counts == {"parcels": 1}
    await lose(shop)
    assert await looking.look() == 1


async def age(shop: Shop, aggregate_id: str, *, seconds: int) -> None:
    await shop.execute(
        "UPDATE shop_outbox SET sent_at = sent_at - :age WHERE aggregate_id = :aggregate_id",
        age=seconds * 1_000_000,
        aggregate_id=aggregate_id,
    )


@pytest.mark.parametrize("is_second_received", [True, False])
async def test_in_a_queue_that_is_never_empty_what_was_overtaken_is_sent_again(
    shop: Shop, *, is_second_received: bool
):
    looking = Looking(shop, grace_s=30)
    await looking.begin()
    await shop.append(parcel(1))
    await shop.dispatch_once()
    await lose(shop)
    await shop.append(parcel(2))
    if is_second_received:
        await shop.work_until_drained()
    else:
        await shop.dispatch_once()
    await age(shop, "P1", seconds=100)
    await age(shop, "P2", seconds=50)
    await shop.append(parcel(3))
    await shop.dispatch_once()

    assert await shop.broker.ready_count("parcels")
    assert await looking.look() == int(is_second_received)


async def test_what_was_set_aside_is_not_sent_again(shop: Shop, looking: Looking):
    await shop.append(parcel(1))

    async def refuse(_transaction: object, _batch: object) -> list[object]:
        raise ZeroDivisionError

    await shop.work_until_drained(refuse)  # type: ignore[arg-type]

    assert [row["state"] for row in await shop.rows("SELECT state FROM shop_dead_letters")] == [
        "open"
    ]
    assert await looking.look() == 0


async def test_what_waits_in_the_outbox_for_its_next_try_is_not_sent_again(
    shop: Shop, looking: Looking
):
    await shop.append(parcel(1))
    await shop.dispatch_once()
    await lose(shop)
    assert await looking.look() == 1

    assert await looking.look() == 0


async def test_an_event_on_an_exchange_is_sent_again_to_the_queue_that_missed_it_alone(shop: Shop):
    looking = Looking(shop, queues=("parcels", "copies"))
    await looking.begin()
    await shop.append(parcel(1, route="parcel.events"))
    await shop.dispatch_once()
    await lose(shop, queue="copies")

    await looking.look()

    resent = await shop.rows("SELECT route, message_id FROM shop_outbox WHERE state = 'pending'")
    assert [tuple(row) for row in resent] == [("copies", "P1-1-parcel.events")]


async def test_of_an_exchange_only_the_types_that_the_queue_takes_are_missed(shop: Shop):
    looking = Looking(shop, queues=("copies",))
    await looking.begin()
    await shop.append(parcel(1, route="parcel.events"))
    await shop.execute("UPDATE shop_outbox SET type = 'parcel.lost'")
    await shop.dispatch_once()

    assert await looking.look() == 0
    assert looking.missing_counts == {"copies": 0}


async def test_more_than_a_page_is_looked_at_and_the_place_is_kept(shop: Shop, looking: Looking):
    await shop.append(*[parcel(number) for number in range(PAGE_COUNT + 5)])
    while (await shop.dispatch_once()).sent_count:
        pass
    await lose(shop)

    assert await looking.look() == PAGE_COUNT + 5
    assert await Looking(shop).look() == 0


async def test_what_a_consumer_that_was_off_for_days_has_missed_is_left(
    shop: Shop, looking: Looking
):
    await shop.append(parcel(1), parcel(2))
    await shop.dispatch_once()
    await lose(shop)
    await shop.execute(
        "UPDATE shop_outbox SET sent_at = sent_at - :age WHERE aggregate_id = 'P1'", age=2 * DAY_US
    )
    await shop.execute("UPDATE shop_reconciled SET sent_at = 0")

    assert await looking.look() == 1


@pytest.mark.usefixtures("looking")
async def test_two_who_look_at_once_send_again_once(shop: Shop):
    await shop.append(parcel(1))
    await shop.dispatch_once()
    await lose(shop)

    resent_counts = await asyncio.gather(*[Looking(shop).look() for _ in range(4)])

    assert sum(resent_counts) == 1
    rows = await shop.rows("SELECT id FROM shop_outbox WHERE state = 'pending'")
    assert len(rows) == 1


async def test_it_begins_for_all_consumers_at_once_though_the_first_look_fails(shop: Shop):
    """What is sent after the start is looked for, whatever the look at another queue met."""

    class AwayBroker:
        async def ready_count(self, queue: str) -> int:
            message = f"nobody tells how much is in {queue}"
            raise BrokerUnavailableError(message)

    await Looking(shop, queues=("letters",)).begin()
    await shop.append(parcel(1, route="letters"))
    await shop.dispatch_once()
    await lose(shop, queue="letters")
    looking = Looking(shop, queues=("letters", "parcels"))
    looking._reconciliation._broker = AwayBroker()  # type: ignore[assignment]  # asked no more

    with pytest.raises(BrokerUnavailableError):
        await looking.look()

    begun = await shop.rows("SELECT consumer FROM shop_reconciled ORDER BY consumer")
    assert [row["consumer"] for row in begun] == ["letters", "parcels"]


async def test_it_goes_on_looking_until_it_is_told_to_stop(shop: Shop, looking: Looking):
    await shop.append(parcel(1))
    await shop.dispatch_once()
    await lose(shop)

    async def is_effective() -> bool:
        return await effects(shop) == ["P1-1-parcels"]

    await shop.work_until(
        is_effective,
        shop.dispatcher().run,
        shop.subscription(record_effects).run,
        looking._reconciliation.run,
    )


async def receipts(shop: Shop, *, patience_s: float = 0.0) -> list[Receipts]:
    return await shop.database.read(
        lambda transaction: count_receipts(
            transaction,
            senders=[SHOP],
            receivers=[
                Receiver(consumer=name, queue=name, tables=SHOP) for name in ("parcels", "letters")
            ],
            topology=TOPOLOGY,
            patience_s=patience_s,
            shown_count_max=1,
        )
    )


async def test_receipts_tell_how_much_was_sent_and_what_is_missing(shop: Shop):
    await shop.append(parcel(1))
    await shop.work_until_drained()
    await shop.append(parcel(2), parcel(3, route="parcel.events"))
    await shop.dispatch_once()

    assert await receipts(shop) == [
        Receipts(
            outbox="shop",
            queue="parcels",
            sent_count=3,
            missing_count=2,
            missing=("P2-1-parcels",),
        )
    ]


async def test_what_is_brought_again_is_missing_no_more_but_in_its_own_row(
    shop: Shop, looking: Looking
):
    await shop.append(parcel(1))
    await shop.dispatch_once()
    await lose(shop)
    await looking.look()

    (before,) = await receipts(shop)
    await shop.work_until_drained()
    (after,) = await receipts(shop)

    assert (before.sent_count, before.missing_count) == (1, 0)
    assert (after.sent_count, after.missing_count) == (2, 0)


async def test_what_was_sent_just_now_is_not_counted_yet(shop: Shop):
    await shop.append(parcel(1))
    await shop.dispatch_once()

    assert await receipts(shop, patience_s=60) == []


async def test_a_message_with_a_delay_is_not_looked_for(shop: Shop, looking: Looking):
    now = await shop.database.read(lambda transaction: transaction.now())
    await shop.append(replace(parcel(1), deliver_at=now, ordered=False))
    await shop.dispatch_once()
    await lose(shop)

    assert await looking.look() == 0
    assert await receipts(shop) == []
