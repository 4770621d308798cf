"""The operators' view of an outbox: pages, counts, and changes that are made once."""

import json

import pytest

from orderkeep.database.transaction import Transaction
from orderkeep.messaging import ChangedRow, OutboxFilter, OutboxState, WholeOutboxRow
from tests.integration.messaging.shop_kernel import Shop, parcel


async def seed(shop: Shop, **states: str) -> None:
    """Append one row for each given state, `P1="failed"`, with ids from 1."""
    for aggregate_id, state in states.items():
        await shop.append(parcel(int(aggregate_id[1:])))
        await shop.execute(
            "UPDATE shop_outbox SET state = :state, attempts = 16"
            " WHERE aggregate_id = :aggregate_id",
            state=state,
            aggregate_id=aggregate_id,
        )


async def list_page(shop: Shop, state: OutboxState, **which) -> list:
    return await shop.database.read(
        lambda transaction: shop.outbox_rows.list_page(
            transaction, state=state, **({"limit": 10} | which)
        )
    )


async def change(shop: Shop, decision: str, selection) -> list[tuple[int, str]]:
    async def work(transaction: Transaction) -> list[ChangedRow]:
        method = getattr(shop.outbox_rows, decision)
        return await method(transaction, selection, now=await transaction.now())

    return [(row.id, row.result.value) for row in await shop.database.transact(work)]


async def find(shop: Shop, row_id: int) -> WholeOutboxRow | None:
    return await shop.database.read(lambda transaction: shop.outbox_rows.find(transaction, row_id))


async def states(shop: Shop) -> list[str]:
    return [row["state"] for row in await shop.rows("SELECT state FROM shop_outbox ORDER BY id")]


@pytest.mark.parametrize("state", list(OutboxState))
async def test_rows_of_a_state_are_listed_newest_first_page_by_page(shop: Shop, state: OutboxState):
    await seed(shop, P1=state, P2=state, P3="sent" if state != "sent" else "failed", P4=state)

    first = await list_page(shop, state, limit=2)
    second = await list_page(shop, state, limit=2, before_id=first[-1].id)

    assert [[row.id for row in page] for page in (first, second)] == [[4, 2], [1]]
    assert first[0].state is state
    assert first[0].ordered is True
    assert (first[0].message_id, first[0].type, first[0].route) == (
        "P4-1-parcels",
        "parcel.packed",
        "parcels",
    )


async def test_the_messages_of_an_aggregate_are_told_oldest_first(shop: Shop):
    await shop.append(parcel(1, sequence=1), parcel(2), parcel(1, sequence=2, route="letters"))

    rows = await shop.database.read(
        lambda transaction: shop.outbox_rows.of_aggregate(transaction, "P1")
    )

    assert [(row.sequence, row.route, row.state, row.sent_at) for row in rows] == [
        (1, "parcels", OutboxState.PENDING, None),
        (2, "letters", OutboxState.PENDING, None),
    ]


async def test_counts_tell_what_waits_and_for_how_long(shop: Shop):
    empty = await shop.database.read(shop.outbox_rows.counts)
    await seed(shop, P1="pending", P2="pending", P3="failed", P4="sent", P5="pending")
    await shop.execute(
        "UPDATE shop_outbox SET not_before = not_before + 60000000 WHERE aggregate_id != 'P2'"
    )
    await shop.execute(
        "UPDATE shop_outbox SET not_before = not_before - 90000000 WHERE aggregate_id = 'P2'"
    )

    counts = await shop.database.read(shop.outbox_rows.counts)

    assert (empty.pending_count, empty.failed_count, empty.oldest_pending_s) == (0, 0, 0)
    assert (counts.pending_count, counts.failed_count) == (3, 1)
    assert 90 <= counts.oldest_pending_s < 100


async def test_what_waits_for_its_time_is_not_late(shop: Shop):
    await seed(shop, P1="pending")
    await shop.execute("UPDATE shop_outbox SET not_before = not_before + 60000000")

    counts = await shop.database.read(shop.outbox_rows.counts)

    assert (counts.pending_count, counts.oldest_pending_s) == (1, 0)


async def test_a_retry_takes_parked_rows_alone(shop: Shop):
    await seed(shop, P1="failed", P2="pending", P3="sent", P4="discarded")

    answered = await change(shop, "retry", [1, 2, 3, 4, 9, 1])

    assert answered == [
        (1, "retried"),
        (2, "not_changeable"),
        (3, "not_changeable"),
        (4, "not_changeable"),
        (9, "not_found"),
    ]
    assert await states(shop) == ["pending", "pending", "sent", "discarded"]
    (row,) = await shop.rows("SELECT attempts FROM shop_outbox WHERE id = 1")
    assert row["attempts"] == 0


async def test_a_discard_takes_what_was_not_sent(shop: Shop):
    await seed(shop, P1="failed", P2="pending", P3="sent", P4="discarded")

    answered = await change(shop, "discard", [1, 2, 3, 4, 9])

    assert answered == [
        (1, "discarded"),
        (2, "discarded"),
        (3, "not_changeable"),
        (4, "not_changeable"),
        (9, "not_found"),
    ]
    assert await states(shop) == ["discarded", "discarded", "sent", "discarded"]


async def test_filters_pick_by_route_and_aggregate(shop: Shop):
    await seed(shop, P1="failed", P2="failed", P3="pending")
    await shop.append(parcel(4, route="letters"))

    by_aggregate = await change(shop, "retry", OutboxFilter(aggregate_id="P1"))
    waiting = OutboxFilter(route="letters", state=OutboxState.PENDING)
    by_route = await change(shop, "discard", waiting)

    assert by_aggregate == [(1, "retried")]
    assert by_route == [(4, "discarded")]


async def test_a_discard_by_a_filter_takes_what_waits_only_when_told(shop: Shop):
    await seed(shop, P1="failed", P2="pending", P3="failed")

    parked = await change(shop, "discard", OutboxFilter())
    after_parked = await states(shop)
    waiting = await change(shop, "discard", OutboxFilter(state=OutboxState.PENDING))

    assert parked == [(1, "discarded"), (3, "discarded")]
    assert after_parked == ["discarded", "pending", "discarded"]
    assert waiting == [(2, "discarded")]


async def test_a_change_tells_what_the_row_was(shop: Shop):
    await seed(shop, P1="failed")

    async def work(transaction: Transaction) -> list[ChangedRow]:
        return await shop.outbox_rows.discard(transaction, [1, 9], now=await transaction.now())

    known, unknown = await shop.database.transact(work)

    assert known.told == {
        "message_id": "P1-1-parcels",
        "aggregate_id": "P1",
        "type": "parcel.packed",
        "route": "parcels",
        "state": "failed",
    }
    assert unknown.told == {}


async def test_a_row_is_found_whole(shop: Shop):
    await seed(shop, P1="failed")

    found = await find(shop, 1)
    missing = await find(shop, 2)

    assert missing is None
    assert found is not None
    assert (found.row.message_id, found.row.state) == ("P1-1-parcels", OutboxState.FAILED)
    assert found.body == b"P1/1"
    assert json.loads(found.headers_json) == {
        "x-aggregate-id": "P1",
        "x-schema-version": 1,
        "x-sequence": 1,
    }


async def test_previews_tell_the_same_and_change_nothing(shop: Shop):
    await seed(shop, P1="failed", P2="pending", P3="sent")

    async def preview(method, selection) -> list[tuple[int, str]]:
        changed = await shop.database.read(lambda transaction: method(transaction, selection))
        return [(row.id, row.result.value) for row in changed]

    assert await preview(shop.outbox_rows.preview_retry, [1, 2, 9]) == [
        (1, "retried"),
        (2, "not_changeable"),
        (9, "not_found"),
    ]
    assert await preview(shop.outbox_rows.preview_discard, OutboxFilter()) == [(1, "discarded")]
    waiting = OutboxFilter(state=OutboxState.PENDING)
    assert await preview(shop.outbox_rows.preview_discard, waiting) == [(2, "discarded")]
    assert await states(shop) == ["failed", "pending", "sent"]


async def test_more_than_a_thousand_at_once_are_refused(shop: Shop):
    with pytest.raises(ValueError, match="1001 outbox rows at once"):
        await change(shop, "retry", list(range(1001)))
