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

CASES = {
    "unpaid": OrderFilter(status=Status.PENDING_PAYMENT),
    "unpaid, a later page": OrderFilter(status=Status.PENDING_PAYMENT, before="020000001500"),
    "unpaid of a buyer": OrderFilter(user_id="buyer-1", status=Status.PENDING_PAYMENT),
    "closed": OrderFilter(status=Status.CLOSED),
}


@pytest.mark.parametrize("case", CASES)
async def test_the_newest_are_read_alone(case: str, postgresql_database: PostgresDatabase) -> None:
    statement = orders_that_fit(CASES[case], limit_count=20)
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

    assert [step for step in plan if "Sort" in step or "Seq Scan" in step] == [], plan
    assert any("Index Scan Backward" in step for step in plan), plan
