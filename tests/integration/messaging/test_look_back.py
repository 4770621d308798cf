"""Old rows leave as soon as they may, although a reading begins with young ones."""

from dataclasses import replace

from msgspec import structs

from orderkeep.instant import Instant
from orderkeep.messaging.dispatcher import Dispatcher
from tests.integration.messaging.shop_kernel import Shop, parcel

_AGGREGATE_COUNT = 4


async def _rounds(dispatcher: Dispatcher, *, count: int) -> list[int]:
    """Return what each round sent, up to the first that sent nothing."""
    sent_counts: list[int] = []
    while sum(sent_counts) < count:
        sent_counts.append((await dispatcher.run_once()).sent_count)
        if not sent_counts[-1]:
            break
    return sent_counts


async def test_a_backlog_in_order_leaves_without_a_pause(shop: Shop):
    """As after an outage: each event of an aggregate may go once the one before is settled."""
    shop.dispatch_policy = replace(shop.dispatch_policy, batch_size=_AGGREGATE_COUNT)
    await shop.append(
        *[
            parcel(number, sequence=sequence)
            for sequence in (1, 2, 3)
            for number in range(_AGGREGATE_COUNT)
        ]
    )
    await shop.execute("UPDATE shop_outbox SET not_before = not_before - 20000000 * (6 - sequence)")
    dispatcher = shop.dispatcher()

    assert await _rounds(dispatcher, count=3 * _AGGREGATE_COUNT) == [_AGGREGATE_COUNT] * 3
    await dispatcher.close()


async def test_what_is_appended_to_the_past_leaves_at_once(shop: Shop):
    dispatcher = shop.dispatcher()
    await dispatcher.run_once()

    await shop.append(structs.replace(parcel(1), not_before=Instant(1)))

    assert await _rounds(dispatcher, count=1) == [1]
    await dispatcher.close()


async def test_old_rows_of_a_dispatcher_that_was_cut_off_are_read_again(shop: Shop):
    dispatcher = shop.dispatcher()
    await dispatcher.run_once()
    await shop.append(parcel(1))
    await shop.execute("UPDATE shop_outbox SET not_before = not_before - 60000000")

    assert (await dispatcher.run_once()).sent_count == 0
    await dispatcher.close()

    assert await _rounds(dispatcher, count=1) == [1]
    await dispatcher.close()
