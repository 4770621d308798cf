"""The engine on PostgreSQL: what is run again, what is refused, and what is never guessed."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from enum import StrEnum
from typing import Any

import pytest
from sqlalchemy import BigInteger, Boolean, Integer, LargeBinary, Text, column, table, text
from sqlalchemy.dialects.postgresql import insert

from orderkeep.database import postgresql_connection
from orderkeep.database.postgresql import PostgresDatabase
from orderkeep.database.postgresql_connection import PostgresLimits
from orderkeep.database.postgresql_transaction import PostgresTransaction
from orderkeep.database.statement import RowStatement, Statement, row_value
from orderkeep.database.transaction import (
    CommitUnknownError,
    ConstraintViolatedError,
    ReadTransaction,
    Row,
    StoreOverloadedError,
    StoreTooOldError,
    StoreUnavailableError,
    Transaction,
    Value,
)
from orderkeep.database.turns import giving_way
from tests.condition import eventually
from tests.plain_sql import PostgresPlainSql, run_alone
from tests.servers.fault_proxy import FaultProxy

_CREATE = """
CREATE TABLE jars (
  id bigserial PRIMARY KEY, name text UNIQUE NOT NULL, weight bigint CHECK (weight > 0),
  size integer, label bytea, is_open boolean
)
"""

JARS = table(
    "jars",
    column("id", BigInteger()),
    column("name", Text()),
    column("weight", BigInteger()),
    column("size", Integer()),
    column("label", LargeBinary()),
    column("is_open", Boolean()),
)

_PUT = Statement(text("INSERT INTO jars (name, weight) VALUES (:name, 1)"))
_COUNT = Statement(text("SELECT count(*) AS n FROM jars WHERE name = :name"))
_WEIGH = Statement(text("UPDATE jars SET weight = weight + 1 WHERE name = :name"))
_PID = Statement(text("SELECT pg_backend_pid() AS pid"))
_SLEEP = Statement(text("SELECT pg_sleep(30)"))
_ADD = RowStatement(
    insert(JARS).values(name=row_value("name", Text()), weight=row_value("weight", BigInteger()))
)

# Nothing here takes long, unless it hangs.
PATIENCE_S = 20.0

# Found before the server's own by whoever has the schema first in the path.
_CLOCK_AN_HOUR_BEHIND = """
CREATE SCHEMA behind;
CREATE FUNCTION behind.clock_timestamp() RETURNS timestamptz LANGUAGE sql
AS $$ SELECT pg_catalog.clock_timestamp() - interval '1 hour' $$
"""


@pytest.fixture
def url(postgresql_url: str):
    """A database with a table of jars besides ours."""
    run_alone(postgresql_url, _CREATE)
    yield postgresql_url
    run_alone(postgresql_url, "DROP TABLE jars")


@pytest.fixture
def sql(url: str) -> PostgresPlainSql:
    return PostgresPlainSql(url)


def engine(url: str, **options: Any) -> PostgresDatabase:
    return PostgresDatabase(url, draw_jitter=lambda: 0.0, **options)


@pytest.fixture
async def jars(url: str) -> AsyncIterator[PostgresDatabase]:
    """The engine on the database with the jars."""
    database = engine(url)
    yield database
    await database.close()


def putting(name: str) -> Callable[[Transaction], Awaitable[int]]:
    async def work(transaction: Transaction) -> int:
        return await transaction.execute(_PUT, name=name)

    return work


def names(sql: PostgresPlainSql) -> list[str]:
    return [row["name"] for row in sql.rows("SELECT name FROM jars ORDER BY id")]


async def count_of(transaction, name: str) -> int:
    row = await transaction.fetch_one(_COUNT, name=name)
    assert row is not None
    return row["n"]


async def pid_of(transaction: ReadTransaction) -> int:
    row = await transaction.fetch_one(_PID)
    assert row is not None
    return row["pid"]


@asynccontextmanager
async def engine_in_transaction(
    url: str, work: Callable[[Transaction], Awaitable[object]], *, is_undone: bool = False
) -> AsyncIterator[Callable[[], Awaitable[object]]]:
    """Have the work done by another engine, and committed or undone when the function is called."""

    async def hold(transaction: Transaction) -> None:
        await work(transaction)
        held.set()
        await may_end.wait()
        if is_undone:
            raise LookupError

    async def end() -> None:
        may_end.set()
        with suppress(LookupError):
            await holding

    held, may_end = asyncio.Event(), asyncio.Event()
    database = engine(url)
    holding = asyncio.create_task(database.transact(hold))
    try:
        await held.wait()
        yield end
    finally:
        await end()
        await database.close()


def waiting_for_a_lock(sql: PostgresPlainSql) -> int:
    (row,) = sql.rows(
        "SELECT count(*) AS n FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    return row["n"]


class Size(StrEnum):
    SMALL = "small"


_COLUMNS = ("name", "weight", "size", "label", "is_open")
_FILL = RowStatement(
    insert(JARS)
    .values({name: row_value(name, JARS.c[name].type) for name in _COLUMNS})
    .returning(JARS.c.id, JARS.c.name)
)


async def test_rows_are_inserted_in_the_order_given_with_every_type(
    jars: PostgresDatabase, sql: PostgresPlainSql
):
    rows: list[dict[str, Value]] = [
        {"name": "z", "weight": 2**62, "size": None, "label": b"\x00\xff", "is_open": True},
        {"name": Size.SMALL, "weight": None, "size": 7, "label": None, "is_open": None},
        {"name": "a;'\\ü", "weight": 1, "size": -1, "label": b"", "is_open": False},
    ]

    async def work(transaction: Transaction) -> list[Row]:
        return await transaction.fetch_rows(_FILL, rows)

    yielded = await jars.transact(work)

    assert sorted(row["name"] for row in yielded) == ["a;'\\ü", "small", "z"]
    assert names(sql) == ["z", "small", "a;'\\ü"]
    kept = sql.rows("SELECT name, weight, size, label, is_open FROM jars ORDER BY id")
    assert kept == [row | {"name": str(row["name"])} for row in rows]


async def test_no_rows_are_no_statement(jars: PostgresDatabase, sql: PostgresPlainSql):
    async def work(transaction: Transaction) -> list[Row]:
        await transaction.execute_rows(_FILL, [])
        return await transaction.fetch_rows(_FILL, [])

    assert await jars.transact(work) == []
    assert names(sql) == []


async def test_constants_among_the_values_and_conflicts_are_kept(jars: PostgresDatabase):
    put = insert(JARS).values(name=row_value("name", Text()), size=3, is_open=False)
    statement = RowStatement(
        put.on_conflict_do_update(
            index_elements=["name"],
            set_={"size": JARS.c.size + put.excluded.size},
            where=JARS.c.size < 5,
        ).returning(JARS.c.name, JARS.c.size)
    )

    async def work(transaction: Transaction) -> list[list[tuple[str, int]]]:
        return [
            sorted(
                (row["name"], row["size"])
                for row in await transaction.fetch_rows(
                    statement, [{"name": "a"}, {"name": f"b{turn}"}]
                )
            )
            for turn in range(3)
        ]

    assert await jars.transact(work) == [
        [("a", 3), ("b0", 3)],
        [("a", 6), ("b1", 3)],
        [("b2", 3)],
    ]


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
        await transaction.execute(_PUT, name="a")
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
        await transaction.execute(_PUT, name="a")
        await transaction.execute(Statement(text("UPDATE jars SET weight = 0")))

    with pytest.raises(ConstraintViolatedError, match="jars_weight_check"):
        await jars.transact(work)

    assert names(sql) == []
    assert await jars.transact(putting("b")) == 1


async def test_the_work_goes_on_while_rows_are_on_their_way(
    url: str, jars: PostgresDatabase, sql: PostgresPlainSql
):
    async def work(transaction: Transaction) -> int:
        await transaction.execute_rows(_ADD, [{"name": "held", "weight": 2}])
        # The server waits for the one who holds the name; the work, for the next statement only.
        went_on.set()
        return await count_of(transaction, "held")

    went_on = asyncio.Event()
    async with engine_in_transaction(url, putting("held")) as end:
        writing = asyncio.create_task(jars.transact(work))
        async with asyncio.timeout(PATIENCE_S):
            await went_on.wait()
        assert not writing.done()
        await end()

    with pytest.raises(ConstraintViolatedError, match="jars_name_key"):
        await writing
    assert names(sql) == ["held"]


_NAMES = Statement(text("SELECT name FROM jars"))
_FOLLOWING: dict[str, Callable[[Transaction], Awaitable[object]]] = {
    "execute": lambda transaction: transaction.execute(_PUT, name="next"),
    "execute_rows": lambda it: it.execute_rows(_ADD, [{"name": "next", "weight": 1}]),
    "fetch_all": lambda transaction: transaction.fetch_all(_NAMES),
    "fetch_one": lambda transaction: transaction.fetch_one(_NAMES),
    "fetch_rows": lambda it: it.fetch_rows(
        _FILL, [{"name": "next", "weight": 1, "size": None, "label": None, "is_open": None}]
    ),
    "now": lambda transaction: transaction.now(),
}


@pytest.mark.parametrize("following", _FOLLOWING)
async def test_whatever_follows_waits_for_the_rows_that_are_on_their_way(
    url: str, jars: PostgresDatabase, sql: PostgresPlainSql, following: str
):
    async def work(transaction: Transaction) -> None:
        await transaction.execute_rows(_ADD, [{"name": "held", "weight": 2}])
        went_on.set()
        await _FOLLOWING[following](transaction)

    went_on = asyncio.Event()
    async with engine_in_transaction(url, putting("held"), is_undone=True) as end:
        writing = asyncio.create_task(jars.transact(work))
        async with asyncio.timeout(PATIENCE_S):
            await went_on.wait()
        await eventually(lambda: waiting_for_a_lock(sql) == 1)
        assert not writing.done()
        await end()

    async with asyncio.timeout(PATIENCE_S):
        await writing
    assert names(sql)[0] == "held"


async def test_rows_have_left_before_the_work_goes_on(
    url: str, jars: PostgresDatabase, sql: PostgresPlainSql
):
    async def work(transaction: Transaction) -> None:
        # The first time the statement is prepared, which takes some turns.
        await transaction.execute_rows(_ADD, [{"name": "another", "weight": 2}])
        await transaction.now()
        await transaction.execute_rows(_ADD, [{"name": "held", "weight": 2}])
        # The loop stands still from here on: what has not left by now would not leave.
        give_up_at_s = time.monotonic() + PATIENCE_S
        while not (seen := waiting_for_a_lock(sql)) and time.monotonic() < give_up_at_s:
            pass
        found.append(seen)

    found: list[int] = []
    async with engine_in_transaction(url, putting("held"), is_undone=True) as end:
        writing = asyncio.create_task(jars.transact(work))
        await eventually(lambda: bool(found))
        await end()

    await writing
    assert found == [1]


@pytest.mark.parametrize("goes_on", [True, False])
async def test_rows_that_break_a_rule_fail_the_work_at_its_next_statement_or_at_its_end(
    jars: PostgresDatabase, sql: PostgresPlainSql, *, goes_on: bool
):
    reached: list[str] = []

    async def work(transaction: Transaction) -> None:
        await transaction.execute_rows(_ADD, [{"name": "a", "weight": 1}])
        await transaction.execute_rows(_ADD, [{"name": "b", "weight": 0}])
        transaction.after_commit(lambda: reached.append("after the commit"))
        if goes_on:
            await transaction.execute_rows(_ADD, [{"name": "c", "weight": 1}])
            reached.append("behind what failed")

    with pytest.raises(ConstraintViolatedError, match="jars_weight_check"):
        await jars.transact(work)

    assert reached == []
    assert names(sql) == []
    assert await jars.transact(putting("d")) == 1


async def test_a_work_that_raises_with_rows_on_their_way_leaves_its_connection_as_it_was(
    url: str, sql: PostgresPlainSql
):
    async def work(transaction: Transaction) -> None:
        pids.append(await pid_of(transaction))
        await transaction.execute_rows(_ADD, [{"name": "a", "weight": weights.pop()}])
        message = "no"
        raise LookupError(message)

    pids: list[int] = []
    weights = [1, 0]
    database = engine(url, pool_size=1)
    try:
        for _ in range(2):
            with pytest.raises(LookupError):
                await database.transact(work)
        assert await database.read(pid_of) == pids[0] == pids[1]
    finally:
        await database.close()

    assert names(sql) == []


async def test_a_work_that_is_cut_off_with_rows_on_their_way_commits_nothing(
    url: str, jars: PostgresDatabase, sql: PostgresPlainSql
):
    async def work(transaction: Transaction) -> None:
        await transaction.execute_rows(_ADD, [{"name": "held", "weight": 1}])
        message = "cut off"
        raise asyncio.CancelledError(message)

    async with engine_in_transaction(url, putting("held")) as end:
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(asyncio.CancelledError):
                await jars.transact(work)
        await end()

    assert names(sql) == ["held"]
    assert await jars.transact(putting("b")) == 1


async def test_a_connection_that_ends_before_the_commit_costs_nothing(
    jars: PostgresDatabase, sql: PostgresPlainSql
):
    pids: list[int] = []

    async def work(transaction: Transaction) -> int:
        pids.append(await pid_of(transaction))
        if len(pids) == 1:
            sql.rows("SELECT pg_terminate_backend(:pid)", pid=pids[0])
        return await transaction.execute(_PUT, name="a")

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
        await transaction.execute(_PUT, name=f"a{runs}")

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
        await transaction.execute(_PUT, name="a")
        try:
            await transaction.execute(_PUT, name="a")
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
        await transaction.execute(_PUT, name="a")

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
        await transaction.execute(_PUT, name="a")
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
        await transaction.execute(_PUT, name="a")

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
        await transaction.fetch_all(_PUT, name="b")

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
        await transaction.execute(_PUT, name="a")
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
