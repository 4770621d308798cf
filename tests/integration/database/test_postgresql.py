"""The engine on PostgreSQL: what is run again, what is refused, and what is never guessed."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
from sqlalchemy import text

from orderkeep.database import postgresql_connection
from orderkeep.database.postgresql import PostgresDatabase
from orderkeep.database.postgresql_connection import PostgresLimits
from orderkeep.database.postgresql_transaction import PostgresTransaction
from orderkeep.database.statement import Statement
from orderkeep.database.transaction import (
    CommitUnknownError,
    ConstraintViolatedError,
    StoreOverloadedError,
    StoreTooOldError,
    StoreUnavailableError,
    Transaction,
)
from orderkeep.database.turns import giving_way
from tests.condition import eventually
from tests.integration.database.jars import (
    PATIENCE_S,
    PUT,
    count_of,
    engine,
    names,
    pid_of,
    putting,
)
from tests.plain_sql import PostgresPlainSql, run_alone
from tests.servers.fault_proxy import FaultProxy

_WEIGH = Statement(text("UPDATE jars SET weight = weight + 1 WHERE name = :name"))
_SLEEP = Statement(text("SELECT pg_sleep(30)"))
# Found before the server's own by whoever has the schema first in the path.
_CLOCK_AN_HOUR_BEHIND = """
CREATE SCHEMA behind;
CREATE FUNCTION behind.clock_timestamp() RETURNS timestamptz LANGUAGE sql
AS $$ SELECT pg_catalog.clock_timestamp() - interval '1 hour' $$
"""


async def test_two_that_stand_in_each_other_s_way_both_get_through(
    jars: PostgresDatabase, sql: PostgresPlainSql
):
    await jars.transact(putting("a"))
    await jars.transact(putting("b"))
    both_hold_one = asyncio.Barrier(2)
    tries: list[str] = []

    def weighing(first: str, second: str) -> Callable[[Transaction], Awaitable[None]]:
        async def work(transaction: Transaction) -> None:
            tries.append(first)
            await transaction.execute(_WEIGH, name=first)
            if tries.count(first) == 1:
                await both_hold_one.wait()
            await transaction.execute(_WEIGH, name=second)

        return work

    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(jars.transact(weighing("a", "b")), jars.transact(weighing("b", "a")))

    assert len(tries) == 3
    assert [row["weight"] for row in sql.rows("SELECT weight FROM jars")] == [3, 3]


async def test_who_looked_before_a_key_was_taken_looks_again(
    jars: PostgresDatabase, sql: PostgresPlainSql
):
    both_have_looked = asyncio.Barrier(2)
    looks = 0

    async def work(transaction: Transaction) -> str:
        nonlocal looks
        looks += 1
        if await count_of(transaction, "a"):
            return "found"
        if looks <= 2:
            await both_have_looked.wait()
        await transaction.execute(PUT, name="a")
        return "put"

    async with asyncio.timeout(PATIENCE_S):
        answers = await asyncio.gather(jars.transact(work), jars.transact(work))

    assert sorted(answers) == ["found", "put"]
    assert names(sql) == ["a"]


async def test_a_key_that_stays_taken_is_a_broken_rule_without_the_values_of_the_row(
    jars: PostgresDatabase,
):
    await jars.transact(putting("a secret"))

    with pytest.raises(ConstraintViolatedError, match="jars_name_key") as broken:
        await jars.transact(putting("a secret"))

    assert "secret" not in str(broken.value)
    assert broken.value.__suppress_context__


async def test_a_broken_check_rolls_back_all_of_the_work(
    jars: PostgresDatabase, sql: PostgresPlainSql
):
    async def work(transaction: Transaction) -> None:
        await transaction.execute(PUT, name="a")
        await transaction.execute(Statement(text("UPDATE jars SET weight = 0")))

    with pytest.raises(ConstraintViolatedError, match="jars_weight_check"):
        await jars.transact(work)

    assert names(sql) == []
    assert await jars.transact(putting("b")) == 1


async def test_a_connection_that_ends_before_the_commit_costs_nothing(
    jars: PostgresDatabase, sql: PostgresPlainSql
):
    pids: list[int] = []

    async def work(transaction: Transaction) -> int:
        pids.append(await pid_of(transaction))
        if len(pids) == 1:
            sql.rows("SELECT pg_terminate_backend(:pid)", pid=pids[0])
        return await transaction.execute(PUT, name="a")

    assert await jars.transact(work) == 1

    assert len(set(pids)) == 2
    assert names(sql) == ["a"]


async def test_idle_connections_that_the_server_ended_are_not_used(
    jars: PostgresDatabase, sql: PostgresPlainSql
):
    await asyncio.gather(*(jars.transact(putting(f"{number}")) for number in range(5)))
    sql.rows(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'orderkeep' AND datname = current_database()"
    )

    await asyncio.gather(*(jars.transact(putting(f"x{number}")) for number in range(5)))

    assert len(names(sql)) == 10


async def test_an_answer_to_commit_that_is_lost_is_said_to_be_unknown(
    url: str, sql: PostgresPlainSql
):
    runs = 0

    async def work(transaction: Transaction) -> None:
        nonlocal runs
        runs += 1
        await transaction.execute(PUT, name=f"a{runs}")

    async with FaultProxy(url).listening() as proxy:
        database = engine(proxy.url)
        proxy.cuts_count = 1

        with pytest.raises(CommitUnknownError):
            await database.transact(work)

        await database.transact(work)
        await database.close()

    assert runs == 2
    assert proxy.cut_count == 1
    assert names(sql) == ["a1", "a2"]


async def test_a_failure_at_commit_that_says_what_happened_is_not_unknown(
    jars: PostgresDatabase, sql: PostgresPlainSql
):
    run_alone(
        sql._url,
        "ALTER TABLE jars DROP CONSTRAINT jars_name_key;"
        "ALTER TABLE jars ADD CONSTRAINT jars_name_key UNIQUE (name) DEFERRABLE INITIALLY DEFERRED",
    )
    await jars.transact(putting("a"))

    with pytest.raises(ConstraintViolatedError):
        await jars.transact(putting("a"))

    assert names(sql) == ["a"]


async def test_a_work_that_goes_on_after_a_failed_statement_commits_nothing(
    jars: PostgresDatabase, sql: PostgresPlainSql
):
    async def work(transaction: Transaction) -> None:
        await transaction.execute(PUT, name="a")
        try:
            await transaction.execute(PUT, name="a")
        except Exception:  # noqa: BLE001 (planted: nobody may)
            return

    with pytest.raises(RuntimeError, match="nothing is committed"):
        await jars.transact(work)

    assert names(sql) == []


async def test_callbacks_are_called_after_the_commit_and_never_on_a_rollback(
    jars: PostgresDatabase, sql: PostgresPlainSql
):
    seen: list[list[str]] = []

    async def work(transaction: Transaction) -> None:
        transaction.after_commit(lambda: seen.append(names(sql)))
        await transaction.execute(PUT, name="a")

    await jars.transact(work)
    with pytest.raises(ConstraintViolatedError):
        await jars.transact(work)

    assert seen == [["a"]]


async def test_a_caller_that_is_cancelled_takes_neither_the_commit_nor_its_callbacks_along(
    jars: PostgresDatabase, sql: PostgresPlainSql
):
    is_at_work, may_go_on, called = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def work(transaction: Transaction) -> None:
        transaction.after_commit(called.set)
        await transaction.execute(PUT, name="a")
        is_at_work.set()
        await may_go_on.wait()

    caller = asyncio.create_task(jars.transact(work))
    async with asyncio.timeout(PATIENCE_S):
        await is_at_work.wait()
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        may_go_on.set()
        await called.wait()

    assert names(sql) == ["a"]


async def test_closing_waits_for_what_is_in_hand(url: str, sql: PostgresPlainSql):
    database = engine(url)
    is_at_work = asyncio.Event()

    async def work(transaction: Transaction) -> None:
        is_at_work.set()
        await transaction.execute(Statement(text("SELECT pg_sleep(0.05)")))
        await transaction.execute(PUT, name="a")

    async with asyncio.timeout(PATIENCE_S):
        caller = asyncio.create_task(database.transact(work))
        await is_at_work.wait()
        await database.close()
        await caller

    assert names(sql) == ["a"]
    with pytest.raises(RuntimeError, match="closed"):
        await database.transact(work)


async def test_closing_cuts_off_a_look_up_that_takes_long(url: str, monkeypatch):
    monkeypatch.setattr("orderkeep.database.postgresql._CLOSE_S_MAX", 0.05)
    database = engine(url)
    caller = asyncio.create_task(database.read(lambda transaction: transaction.fetch_all(_SLEEP)))
    await eventually(lambda: database._pool._taken_count == 1)

    async with asyncio.timeout(PATIENCE_S):
        await database.close()
        with pytest.raises(asyncio.CancelledError):
            await caller


async def test_a_look_up_sees_one_moment_and_changes_nothing(jars: PostgresDatabase):
    async def look(transaction) -> tuple[int, int]:
        before = await count_of(transaction, "a")
        await jars.transact(putting("a"))
        return before, await count_of(transaction, "a")

    async def change(transaction) -> None:
        await transaction.fetch_all(PUT, name="b")

    assert await jars.read(look) == (0, 0)
    with pytest.raises(StoreUnavailableError, match="read-only"):
        await jars.read(change)


async def test_a_statement_that_takes_too_long_is_ended(url: str):
    database = engine(url, limits=PostgresLimits(statement_s=0.05))

    async def work(transaction: Transaction) -> None:
        await transaction.execute(_SLEEP)

    with pytest.raises(StoreUnavailableError, match="statement timeout"):
        await database.transact(work)

    await database.close()


async def test_a_transaction_that_stands_still_loses_its_connection(
    url: str, sql: PostgresPlainSql
):
    database = engine(url, limits=PostgresLimits(idle_in_transaction_s=0.05))
    pids: list[int] = []

    async def work(transaction: Transaction) -> None:
        pids.append(await pid_of(transaction))
        await transaction.execute(PUT, name="a")
        assert isinstance(transaction, PostgresTransaction)
        await eventually(transaction._connection.is_closed)

    with pytest.raises(StoreUnavailableError, match="the connection to PostgreSQL ended"):
        await database.transact(work)

    # Each time it was run again, on another connection, for nothing was committed.
    assert len(set(pids)) == 3
    assert names(sql) == []
    await database.close()


async def test_a_lock_that_others_keep_for_long_is_given_up(
    jars: PostgresDatabase, url: str, sql: PostgresPlainSql
):
    await jars.transact(putting("a"))
    impatient = engine(url, limits=PostgresLimits(lock_s=0.05))
    is_locked, may_end = asyncio.Event(), asyncio.Event()

    async def keep(transaction: Transaction) -> None:
        await transaction.execute(_WEIGH, name="a")
        is_locked.set()
        await may_end.wait()

    async def weigh(transaction: Transaction) -> None:
        await transaction.execute(_WEIGH, name="a")

    keeping = asyncio.create_task(jars.transact(keep))
    async with asyncio.timeout(PATIENCE_S):
        await is_locked.wait()
        with pytest.raises(StoreUnavailableError, match="lock timeout"):
            await impatient.transact(weigh)
        may_end.set()
        await keeping
    await impatient.close()

    assert [row["weight"] for row in sql.rows("SELECT weight FROM jars")] == [2]


async def test_a_server_that_says_nothing_is_given_up(url: str, monkeypatch):
    monkeypatch.setattr(postgresql_connection, "_ANSWER_MARGIN_S", -4.9)
    database = engine(url)

    async def work(transaction: Transaction) -> None:
        await transaction.execute(_SLEEP)

    with pytest.raises(StoreUnavailableError, match="no answer in time"):
        await database.transact(work)

    await database.close()


async def test_beyond_its_connections_it_is_overloaded_and_who_gives_way_waits(url: str):
    database = engine(url, pool_size=2, pool_wait_s=0.01)
    may_end = asyncio.Event()

    async def hold(_transaction: Transaction) -> str:
        await may_end.wait()
        return "held"

    async def pass_by(transaction: Transaction) -> str:
        await transaction.now()
        return "passed"

    async with asyncio.timeout(PATIENCE_S):
        holders = [asyncio.create_task(database.transact(hold)) for _ in range(2)]
        await eventually(lambda: database._pool._taken_count == 2)
        patient = asyncio.ensure_future(giving_way(database.transact)(pass_by))
        await asyncio.sleep(0)

        with pytest.raises(StoreOverloadedError, match="all 2 connections"):
            await database.transact(pass_by)

        may_end.set()
        assert await asyncio.gather(*holders, patient) == ["held", "held", "passed"]
        assert await database.transact(pass_by) == "passed"
    await database.close()


async def test_more_callers_than_connections_are_all_served_in_the_end(url: str):
    database = engine(url, pool_size=2, pool_wait_s=20.0)

    await asyncio.gather(*(database.transact(putting(f"{number}")) for number in range(40)))

    assert len(database._pool._idle) == 2
    assert database._pool._taken_count == 0
    await database.close()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("postgresql://postgres@127.0.0.1:1/shop", "cannot connect to PostgreSQL: .*failed"),
        ("postgresql://postgres@127.0.0.1:1/shop?sslmode=maybe", "sslmode"),
    ],
)
async def test_a_server_that_cannot_be_reached_is_said_in_one_line(url: str, says: str):
    database = engine(url)

    with pytest.raises(StoreUnavailableError, match=says) as away:
        await database.transact(putting("a"))

    assert "\n" not in str(away.value)
    await database.close()


async def test_a_database_that_does_not_exist_is_said(url: str):
    database = engine(f"{url}_not")

    with pytest.raises(StoreUnavailableError, match="does not exist"):
        await database.read(lambda transaction: transaction.now())

    await database.close()


async def test_a_server_that_is_too_old_is_refused(url: str, monkeypatch):
    monkeypatch.setattr(postgresql_connection, "POSTGRESQL_VERSION_MIN", 99)
    database = engine(url)

    with pytest.raises(StoreTooOldError, match=r"PostgreSQL \d+\.\d+ is too old: 99 or newer"):
        await database.transact(putting("a"))

    await database.close()


async def test_through_a_pooler_the_limits_are_set_in_each_transaction(url: str):
    limits = replace(PostgresLimits(), statement_s=1.5, lock_s=0.5)
    database = engine(url, direct_url=f"{url}?application_name=direct", limits=limits)
    show = Statement(
        text(
            "SELECT current_setting('statement_timeout') AS statement,"
            " current_setting('lock_timeout') AS lock, current_setting('TimeZone') AS zone"
        )
    )

    written = await database.transact(lambda transaction: transaction.fetch_one(show))
    read = await database.read(lambda transaction: transaction.fetch_one(show))

    assert written is not None
    assert read is not None
    assert dict(written) == {"statement": "1500ms", "lock": "500ms", "zone": "UTC"}
    assert dict(read) == {"statement": "1min", "lock": "500ms", "zone": "UTC"}
    await database.close()


async def test_now_is_the_server_s_clock_where_the_application_s_is_an_hour_ahead(
    url: str, sql: PostgresPlainSql
):
    clock = f"SELECT {sql.now} AS now"
    run_alone(url, _CLOCK_AN_HOUR_BEHIND)
    database = engine(f"{url}?search_path=behind,pg_catalog,public")

    (began,) = sql.rows(clock)
    written_at = await database.transact(lambda transaction: transaction.now())
    read_at = await database.read(lambda transaction: transaction.now())
    (ended,) = sql.rows(clock)

    await database.close()
    run_alone(url, "DROP SCHEMA behind CASCADE")
    hour = 3_600_000_000
    assert began["now"] - hour <= written_at <= read_at <= ended["now"] - hour
