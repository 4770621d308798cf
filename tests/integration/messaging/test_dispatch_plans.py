"""How PostgreSQL goes about the dispatcher's statements while a crowd waits."""

import pytest
from sqlalchemy.dialects.postgresql import asyncpg as postgresql_asyncpg

from orderkeep.database import postgresql_session
from orderkeep.messaging.outbox_reading import OutboxReading
from tests.integration.messaging.shop_kernel import Shop, parcel

_CROWD = """
INSERT INTO shop_outbox (
    message_id, partition, aggregate_id, sequence, type, route, body, headers, state, ordered,
    not_before, attempts, created_at
)
SELECT 'm' || n, n % 16, 'o' || n, 1, 'made', 'parcels', '{}', '{}', 'pending', true, n, 0, n
FROM generate_series(1, 3000) AS n
"""


async def test_of_a_sudden_crowd_on_postgresql_the_first_are_read_and_settled_alone(
    postgresql_shop: Shop,
):
    reading = OutboxReading(postgresql_shop.outbox.tables)
    statement = reading._ready.compiled_for(postgresql_asyncpg.dialect())
    given = {
        **statement.defaults,
        "since": 0,
        "partitions": list(range(16)),
        "paused_routes": [],
        "on_their_way": [],
        "limit": 100,
    }

    def explain(compiled, parameters):
        async def fetch(transaction):
            rows = await transaction._connection.fetch(
                f"EXPLAIN {compiled.sql}", *compiled.positional(parameters)
            )
            return [row["QUERY PLAN"] for row in rows]

        return fetch

    settle = reading._settle_sent.compiled_for(postgresql_asyncpg.dialect())
    settled = {**settle.defaults, "ids": list(range(1, 101))}

    async def crowd(transaction):
        # Of many that were sent long ago the server has counted none that is pending.
        await transaction._connection.execute(_CROWD.replace("'pending'", "'sent'"))
        await transaction._connection.execute("ANALYZE shop_outbox")
        await transaction._connection.execute(_CROWD.replace("'m'", "'later'"))

    session = await postgresql_shop.database.open_session(on_lost=lambda: None)
    try:
        # Not counted by the server yet, which does so once a minute.
        await session.transact(crowd)
        reading_plan = await session.transact(explain(statement, given))
        settling_plan = await session.transact(explain(settle, settled))
    finally:
        await session.close()

    # Once for what is ready, once for what will be due.
    assert len([step for step in reading_plan if "ix_shop_outbox_pending" in step]) == 2
    assert [step for step in reading_plan if "Sort" in step or "Bitmap" in step] == []
    assert any("pk_shop_outbox" in step for step in settling_plan)


async def test_what_is_confirmed_is_read_and_settled_outside_of_any_transaction(
    postgresql_shop: Shop, monkeypatch: pytest.MonkeyPatch
):
    await postgresql_shop.append(parcel(1))

    async def refuse(*_args: object, **_options: object) -> None:
        message = "a transaction takes four round trips"
        raise AssertionError(message)

    monkeypatch.setattr(postgresql_session, "commit_work", refuse)
    dispatched = await postgresql_shop.dispatch_once()

    assert dispatched.sent_count == 1
    rows = await postgresql_shop.rows(
        "SELECT state, sent_at >= created_at AS is_later FROM shop_outbox"
    )
    assert [dict(row) for row in rows] == [{"state": "sent", "is_later": True}]
