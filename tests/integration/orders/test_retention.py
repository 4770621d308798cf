"""What a purge takes when all is long past its time, and what a guarantee needs it to leave."""

import asyncio

import pytest
from sqlalchemy import bindparam, select

from orderkeep.database.postgresql import PostgresDatabase
from orderkeep.database.statement import Statement
from orderkeep.database.transaction import Transaction
from orderkeep.messaging import Purged, Retention, RetentionPolicy
from orderkeep.orders.tables import KERNEL
from orderkeep.wiring.storage import KERNEL_TABLES
from tests.integration.orders.shop import Shop, payment

# Whatever is older than now has been there for long enough.
AT_ONCE = RetentionPolicy(outbox_s=0.0, inbox_s=0.0, attempts_s=0.0)

LOCK = Statement(
    select(KERNEL.outbox.c.id)
    .where(KERNEL.outbox.c.aggregate_id == bindparam("order_no"))
    .with_for_update()
)

# All that a purge may touch.
PURGED_TABLES = {
    f"{service}_{table}"
    for service in ("order", "cart", "payment")
    for table in ("outbox", "inbox", "delivery_attempts")
}


async def purge_all(shop: Shop) -> None:
    for tables in KERNEL_TABLES.values():
        await Retention(tables, database=shop.database, policy=AT_ONCE).purge_once(asyncio.Event())


@pytest.fixture
async def busy(shop: Shop) -> Shop:
    """A shop with an order of each end, money that went back, and events of each state."""
    await shop.fill(tea=10)
    paid = await shop.order(key="paid", tea=1)
    cancelled = await shop.order(key="cancelled", tea=1)
    await shop.order(key="waiting", tea=1)
    await shop.pay(payment(paid, "T1"))
    await shop.pay(payment(paid, "T2"))
    await shop.cancel(cancelled)
    shop.write(
        "UPDATE order_outbox SET state = 'sent', sent_at = created_at WHERE aggregate_id = :paid",
        paid=paid.order_no,
    )
    shop.write(
        "UPDATE order_outbox SET state = 'failed' WHERE aggregate_id = :cancelled",
        cancelled=cancelled.order_no,
    )
    await shop.tick()
    return shop


async def test_a_purge_leaves_orders_keys_money_and_what_has_not_left(busy: Shop) -> None:
    before = busy.dump()
    unsent = busy.rows("SELECT id FROM order_outbox WHERE state <> 'sent' ORDER BY id")

    await purge_all(busy)

    after = busy.dump()
    assert {name for name in before if before[name] != after[name]} <= PURGED_TABLES
    assert busy.count_rows("order_inbox") == 0
    assert busy.rows("SELECT id FROM order_outbox ORDER BY id") == unsent
    assert unsent
    assert await busy.breaches() == []


async def test_after_a_purge_a_key_finds_its_order_and_a_payment_pays_once(busy: Shop) -> None:
    [paid] = busy.rows("SELECT order_no FROM orders WHERE status = 'paid'")
    await purge_all(busy)
    refunds = busy.rows("SELECT * FROM refunds ORDER BY refund_no")
    orders = busy.count_rows("orders")

    again = await busy.order(key="paid", tea=1)
    await busy.pay(payment(again, "T1"))
    await busy.pay(payment(again, "T2"))

    assert again.order_no == paid["order_no"]
    assert busy.count_rows("orders") == orders
    assert busy.rows("SELECT * FROM refunds ORDER BY refund_no") == refunds
    assert await busy.breaches() == []


async def test_a_purge_passes_over_what_somebody_holds_and_waits_for_nobody(
    postgresql_database: PostgresDatabase,
) -> None:
    async with Shop(postgresql_database).open() as shop:
        await shop.fill(tea=10)
        held, free = await shop.order(tea=1), await shop.order(tea=1)
        shop.write("UPDATE order_outbox SET state = 'sent', sent_at = created_at")
        is_held, may_go = asyncio.Event(), asyncio.Event()

        async def hold(transaction: Transaction) -> None:
            await transaction.fetch_all(LOCK, order_no=held.order_no)
            is_held.set()
            await may_go.wait()

        holding = asyncio.create_task(postgresql_database.transact(hold))
        await is_held.wait()
        retention = Retention(KERNEL, database=postgresql_database, policy=AT_ONCE)

        # It ends while the rows are held: were it to wait for them, this would not.
        purged = await retention.purge_once(asyncio.Event())
        left = shop.rows("SELECT DISTINCT aggregate_id FROM order_outbox")
        may_go.set()
        await holding
        rest = await retention.purge_once(asyncio.Event())

    assert left == [{"aggregate_id": held.order_no}]
    assert free.order_no != held.order_no
    assert purged == Purged(outbox_count=2, inbox_count=0, attempts_count=0)
    assert rest == Purged(outbox_count=2, inbox_count=0, attempts_count=0)
