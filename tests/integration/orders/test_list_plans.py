"""How PostgreSQL lists orders while a crowd of them waits that it has not counted yet."""

from collections.abc import Awaitable, Callable

import pytest
from sqlalchemy.dialects.postgresql import asyncpg as postgresql_asyncpg

from orderkeep.database.postgresql import PostgresDatabase
from orderkeep.orders.order import Status
from orderkeep.orders.store.reports import OrderFilter, orders_that_fit

_CROWD = """
INSERT INTO orders (
    order_no, user_id, status, version, event_seq, total_amount_minor, pay_amount_minor, currency,
    receiver_name, receiver_phone, receiver_address, created_at, expires_at
)
SELECT '{prefix}' || lpad(n::text, 10, '0'), 'buyer-' || (n % 100), '{status}', 1, 1, 1, 1, 'CNY',
    'Ann', '1', 'A street', n, n
FROM generate_series(1, {count}) AS n
"""

UNPAID = Status.PENDING_PAYMENT

# By case the filter, and the index that has just those rows.
CASES = {
    "unpaid": (OrderFilter(status=UNPAID), "ix_orders_status"),
    "unpaid, a later page": (OrderFilter(status=UNPAID, before="020000001500"), "ix_orders_status"),
    "unpaid of a buyer": (OrderFilter(user_id="buyer-1", status=UNPAID), "ix_orders_user_id"),
    "closed": (OrderFilter(status=Status.CLOSED), "ix_orders_status"),
}


@pytest.mark.parametrize("case", CASES)
async def test_only_what_fits_is_read(case: str, postgresql_database: PostgresDatabase) -> None:
    wanted, index = CASES[case]
    statement = orders_that_fit(wanted, limit_count=20)
    compiled = statement.compiled_for(postgresql_asyncpg.dialect())

    async def explained(transaction) -> list[str]:
        # Of many that ended long ago none was unpaid when the server counted them.
        run = transaction._connection.execute
        await run(_CROWD.format(prefix="01", status="closed", count=30_000))
        await run("ANALYZE orders")
        await run(_CROWD.format(prefix="02", status="pending_payment", count=3_000))
        rows = await transaction._connection.fetch(
            f"EXPLAIN {compiled.sql}", *compiled.positional(compiled.defaults)
        )
        return [row["QUERY PLAN"] for row in rows]

    work: Callable[..., Awaitable[list[str]]] = explained
    plan = await postgresql_database.transact(work)

    assert any(index in step for step in plan), plan
    assert not any("ix_orders_due" in step or "Seq Scan" in step for step in plan), plan
    # Of a status there may be a crowd; of a buyer's orders there are few to sort.
    assert wanted.user_id or not any("Sort" in step for step in plan), plan
