"""Sessions: a connection of one's own, whose locks share out the parts of the work."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import combinations
from typing import Any

import asyncpg
import pytest
from sqlalchemy import text

from orderkeep.database.postgresql import PostgresDatabase
from orderkeep.database.postgresql_connection import PostgresLimits
from orderkeep.database.postgresql_session import PostgresSession
from orderkeep.database.statement import Statement
from orderkeep.database.transaction import (
    CommitUnknownError,
    ConstraintViolatedError,
    StoreBusyError,
    StoreUnavailableError,
    TransactionPoolerError,
)
from tests.condition import eventually
from tests.integration.database.jars import waiting_for_a_lock
from tests.integration.database.pooler import running_pooler
from tests.plain_sql import PostgresPlainSql, run_alone
from tests.servers.fault_proxy import FaultProxy

_WRITE = Statement(text("INSERT INTO seen (n) VALUES (:n)"))
_ISOLATION = Statement(text("SELECT current_setting('transaction_isolation') AS isolation"))
_LOCK = Statement(text("LOCK TABLE seen"))
_PID = Statement(text("SELECT pg_backend_pid() AS pid"))
_PASS_THIRD = """
CREATE FUNCTION pass_third() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
  IF nextval('tries') < 3 THEN
    RAISE EXCEPTION USING ERRCODE = 'serialization_failure', MESSAGE = 'once more';
  END IF;
  RETURN true;
END $$
"""

PARTS = frozenset(range(16))


@pytest.fixture
def url(postgresql_url: str):
    """A database with a table of numbers besides ours."""
    run_alone(postgresql_url, "CREATE TABLE seen (n bigint)")
    yield postgresql_url
    run_alone(postgresql_url, "DROP TABLE seen")


@pytest.fixture
def sql(url: str) -> PostgresPlainSql:
    return PostgresPlainSql(url)


@asynccontextmanager
async def engine(url: str, **options: Any) -> AsyncIterator[PostgresDatabase]:
    database = PostgresDatabase(url, draw_jitter=lambda: 0.0, **options)
    try:
        yield database
    finally:
        await database.close()


@pytest.fixture
async def database(url: str) -> AsyncIterator[PostgresDatabase]:
    async with engine(url) as database:
        yield database


def ignore() -> None:
    """Hear that the session is lost."""


async def opened(database: PostgresDatabase, count: int) -> list[PostgresSession]:
    return [await database.open_session(on_lost=ignore) for _ in range(count)]


async def ask(*sessions: PostgresSession, name: str = "outbox") -> list[frozenset[int]]:
    """Let each session ask for its share once, one after the other."""
    return [await session.hold_share(name, part_count=16) for session in sessions]


async def ask_often(*sessions: PostgresSession, rounds: int = 4) -> list[frozenset[int]]:
    """Let all ask round by round, never holding the same, and return what they hold in the end."""
    shares: list[frozenset[int]] = []
    for _ in range(rounds):
        shares = await ask(*sessions)
        assert_disjoint(shares)
    return shares


def assert_disjoint(shares: list[frozenset[int]]) -> None:
    assert all(not one & other for one, other in combinations(shares, 2))


async def test_a_session_alone_holds_all_parts(database: PostgresDatabase):
    (session,) = await opened(database, 1)

    assert await ask(session) == [PARTS]
    assert await ask(session) == [PARTS]
    assert session.used_within_s == 5.0


async def test_two_sessions_share_evenly_and_never_hold_the_same(database: PostgresDatabase):
    first, second = await opened(database, 2)
    await ask(first)

    while_sharing = [await ask(first, second) for _ in range(3)]

    for shares in while_sharing:
        assert_disjoint(shares)
    assert [len(share) for share in while_sharing[-1]] == [8, 8]


async def test_three_sessions_share_all_parts_fairly(database: PostgresDatabase):
    sessions = await opened(database, 3)

    shares = await ask_often(*sessions)

    assert sorted(len(share) for share in shares) == [5, 5, 6]
    assert frozenset[int]().union(*shares) == PARTS


async def test_the_parts_of_a_closed_session_are_taken(database: PostgresDatabase):
    sessions = await opened(database, 3)
    await ask_often(*sessions)

    await sessions.pop().close()
    shares = await ask_often(*sessions)

    assert [len(share) for share in shares] == [8, 8]
    assert frozenset[int]().union(*shares) == PARTS


async def test_more_sessions_than_parts_leave_some_without(database: PostgresDatabase):
    sessions = await opened(database, 5)

    shares: list[frozenset[int]] = []
    for _ in range(5):
        shares = [await session.hold_share("outbox", part_count=3) for session in sessions]

    assert sorted(len(share) for share in shares) == [0, 0, 1, 1, 1]


async def test_names_are_shared_out_by_themselves(database: PostgresDatabase):
    first, second = await opened(database, 2)

    assert await ask(first, name="order_outbox") == [PARTS]
    assert await ask(second, name="cart_outbox") == [PARTS]


async def test_many_that_ask_at_once_end_with_a_fair_share_each(database: PostgresDatabase):
    sessions = await opened(database, 4)
    shares: list[frozenset[int]] = []

    for _ in range(6):
        shares = list(
            await asyncio.gather(
                *(session.hold_share("outbox", part_count=16) for session in sessions)
            )
        )
        assert_disjoint(shares)

    assert [len(share) for share in shares] == [4, 4, 4, 4]


async def test_a_session_reads_and_writes_on_its_own_connection(
    database: PostgresDatabase, sql: PostgresPlainSql
):
    (session,) = await opened(database, 1)

    async def write(transaction) -> int:
        row = await transaction.fetch_one(_PID)
        await transaction.execute(_WRITE, n=1)
        return row["pid"]

    assert await session.transact(write) == session.pid
    assert await session.execute(_WRITE, n=2) == 1
    (row,) = await session.fetch_all(_PID)
    assert row["pid"] == session.pid
    assert sql.rows("SELECT n FROM seen ORDER BY n") == [{"n": 1}, {"n": 2}]


async def test_a_lost_session_says_so_at_once_and_its_parts_are_taken(
    database: PostgresDatabase, sql: PostgresPlainSql
):
    lost: list[str] = []
    session = await database.open_session(on_lost=lambda: lost.append("first"))
    (other,) = await opened(database, 1)
    await ask(session, other)

    sql.rows("SELECT pg_terminate_backend(:pid)", pid=session.pid)
    await eventually(lambda: bool(lost))

    with pytest.raises(StoreUnavailableError, match="has ended"):
        await session.hold_share("outbox", part_count=16)
    with pytest.raises(StoreUnavailableError, match="has ended"):
        await session.fetch_all(_PID)
    with pytest.raises(StoreUnavailableError, match="has ended"):
        await session.execute(_WRITE, n=1)
    await session.close()
    assert lost == ["first"]
    assert await ask(other) == [PARTS]


async def test_a_session_that_is_closed_is_not_lost(database: PostgresDatabase):
    lost: list[str] = []
    session = await database.open_session(on_lost=lambda: lost.append("lost"))

    await session.close()
    await asyncio.sleep(0)

    assert lost == []
    with pytest.raises(StoreUnavailableError, match="has ended"):
        await session.transact(lambda transaction: transaction.now())


async def test_closing_the_database_closes_its_sessions(url: str, sql: PostgresPlainSql):
    async with engine(url) as database:
        await ask(*await opened(database, 2))

    # The server may still be busy with the goodbye of the last one.
    await eventually(
        lambda: (
            not sql.rows(
                "SELECT 1 FROM pg_stat_activity"
                " WHERE application_name = 'orderkeep' AND datname = current_database()"
            )
        )
    )


async def test_a_session_that_is_not_used_is_lost(url: str):
    async with engine(url, limits=PostgresLimits(idle_session_s=0.1)) as database:
        lost = asyncio.Event()
        session = await database.open_session(on_lost=lost.set)
        await ask(session)
        (other,) = await opened(database, 1)

        async with asyncio.timeout(20):
            await lost.wait()

        assert session.is_closed
        await other.close()


async def test_a_session_does_not_guess_what_became_of_a_commit(url: str, sql: PostgresPlainSql):
    async def write(transaction) -> None:
        await transaction.execute(_WRITE, n=1)

    async with FaultProxy(url).listening() as proxy, engine(proxy.url) as database:
        lost = asyncio.Event()
        session = await database.open_session(on_lost=lost.set)
        proxy.cuts_count = 1

        with pytest.raises(CommitUnknownError):
            await session.transact(write)

        async with asyncio.timeout(20):
            await lost.wait()

    assert sql.rows("SELECT n FROM seen") == [{"n": 1}]


async def test_a_session_does_not_guess_what_became_of_a_statement(url: str, sql: PostgresPlainSql):
    async with FaultProxy(url).listening() as proxy, engine(proxy.url) as database:
        lost = asyncio.Event()
        session = await database.open_session(on_lost=lost.set)
        # Prepared now, so that nothing but its execution has its name in it.
        await session.execute(_WRITE, n=1)
        proxy.cut_answers_to(b"__asyncpg_stmt", count=1)

        with pytest.raises(CommitUnknownError):
            await session.execute(_WRITE, n=2)

        async with asyncio.timeout(20):
            await lost.wait()

    assert sql.rows("SELECT n FROM seen ORDER BY n") == [{"n": 1}, {"n": 2}]


async def test_a_statement_that_is_refused_leaves_the_session_as_it_was(
    database: PostgresDatabase, sql: PostgresPlainSql
):
    (session,) = await opened(database, 1)
    sql.rows("CREATE UNIQUE INDEX ON seen (n)")
    await session.execute(_WRITE, n=1)

    with pytest.raises(ConstraintViolatedError):
        await session.execute(_WRITE, n=1)

    assert await ask(session) == [PARTS]
    assert await session.execute(_WRITE, n=2) == 1


async def test_a_statement_of_a_session_that_is_wrong_is_a_mistake_and_no_outage(
    database: PostgresDatabase,
):
    (session,) = await opened(database, 1)
    wrong = Statement(text("UPDATE seen SET m = 1"))

    with pytest.raises(asyncpg.UndefinedColumnError):
        await session.execute(wrong)
    with pytest.raises(asyncpg.UndefinedColumnError):
        await session.fetch_all(Statement(text("SELECT m FROM seen")))

    assert await session.execute(_WRITE, n=2) == 1


async def test_a_statement_of_a_session_that_takes_too_long_is_ended(url: str):
    async with engine(url, limits=PostgresLimits(statement_s=0.2)) as database:
        (session,) = await opened(database, 1)
        asleep = Statement(text("SELECT pg_sleep(30)"))

        with pytest.raises(StoreBusyError):
            await session.fetch_all(asleep)
        with pytest.raises(StoreBusyError):
            await session.execute(asleep)

        assert await ask(session) == [PARTS]


@pytest.fixture
def refusing(url: str):
    """A function that lets the third transaction through: a sequence is not rolled back."""
    run_alone(url, "CREATE SEQUENCE tries")
    run_alone(url, _PASS_THIRD)
    yield
    run_alone(url, "DROP FUNCTION pass_third()")
    run_alone(url, "DROP SEQUENCE tries")


@pytest.mark.usefixtures("refusing")
async def test_a_statement_of_a_session_is_run_again_where_the_database_asks_for_it(
    database: PostgresDatabase, sql: PostgresPlainSql
):
    (session,) = await opened(database, 1)

    changed_count = await session.execute(
        Statement(text("INSERT INTO seen (n) SELECT 1 WHERE pass_third()"))
    )

    assert changed_count == 1
    assert sql.rows("SELECT n FROM seen") == [{"n": 1}]
    assert sql.rows("SELECT last_value AS tries FROM tries") == [{"tries": 3}]


@asynccontextmanager
async def table_locked_by(session: PostgresSession) -> AsyncIterator[None]:
    """Let the session keep others out of the table until the context ends."""
    is_locked, may_end = asyncio.Event(), asyncio.Event()

    async def lock(transaction) -> None:
        await transaction.execute(_LOCK)
        is_locked.set()
        await may_end.wait()

    locking = asyncio.create_task(session.transact(lock))
    await is_locked.wait()
    try:
        yield
    finally:
        may_end.set()
        await locking


async def test_a_server_that_ends_a_statement_with_its_connection_leaves_it_unknown(
    url: str, sql: PostgresPlainSql
):
    async with engine(url) as database:
        session, other = await opened(database, 2)
        async with table_locked_by(other):
            writing = asyncio.create_task(session.execute(_WRITE, n=1))
            await eventually(lambda: waiting_for_a_lock(sql) == 1)
            sql.rows("SELECT pg_terminate_backend(:pid)", pid=session.pid)

            with pytest.raises(CommitUnknownError):
                await writing

        assert session.is_closed
    assert sql.rows("SELECT n FROM seen") == []


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("default_transaction_read_only", "on"),
        ("default_transaction_isolation", "serializable"),
    ],
)
async def test_a_session_does_as_ever_whatever_transactions_are_by_default(
    url: str, sql: PostgresPlainSql, setting: str, value: str
):
    name = sql.rows("SELECT current_database() AS name")[0]["name"]
    run_alone(url, f'ALTER DATABASE "{name}" SET {setting} = {value}')
    try:
        async with engine(url) as database:
            (session,) = await opened(database, 1)
            assert await session.execute(_WRITE, n=1) == 1
            (row,) = await session.fetch_all(_ISOLATION)
            assert row["isolation"] == "read committed"
    finally:
        run_alone(
            url,
            f'SET default_transaction_read_only = off; ALTER DATABASE "{name}" RESET {setting}',
        )


async def test_a_statement_that_waits_too_long_for_a_lock_leaves_the_session_as_it_was(
    url: str, sql: PostgresPlainSql
):
    async with engine(url, limits=PostgresLimits(lock_s=0.05)) as database:
        session, other = await opened(database, 2)
        async with table_locked_by(other):
            with pytest.raises(StoreBusyError):
                await session.execute(_WRITE, n=1)
        assert await session.execute(_WRITE, n=2) == 1
    assert sql.rows("SELECT n FROM seen") == [{"n": 2}]


async def test_a_work_that_is_refused_leaves_the_session_as_it_was(database: PostgresDatabase):
    (session,) = await opened(database, 1)

    async def refuse(transaction) -> None:
        await transaction.execute(_WRITE, n=1)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await session.transact(refuse)

    assert await ask(session) == [PARTS]


async def test_two_who_use_a_session_at_once_take_turns(database: PostgresDatabase):
    (session,) = await opened(database, 1)

    answers = await asyncio.gather(*(session.fetch_all(_PID) for _ in range(5)), *(ask(session),))

    assert answers[-1] == [PARTS]


@pytest.mark.parametrize("pool_size", [1, 2, 20])
async def test_a_pooler_in_transaction_mode_is_refused(url: str, tmp_path, pool_size: int):
    with running_pooler(tmp_path, url, mode="transaction", pool_size=pool_size) as pooler_url:
        async with engine(pooler_url) as database:
            with pytest.raises(TransactionPoolerError, match="ORDERKEEP_DATABASE_DIRECT_URL"):
                await database.open_session(on_lost=ignore)


async def test_a_pooler_in_session_mode_will_do(url: str, tmp_path):
    with running_pooler(tmp_path, url, mode="session", pool_size=20) as pooler_url:
        async with engine(pooler_url) as database:
            shares = await ask_often(*await opened(database, 2))

    assert [len(share) for share in shares] == [8, 8]


async def test_transactions_through_a_pooler_keep_their_limits_and_their_results(
    url: str, tmp_path, sql: PostgresPlainSql
):
    def writing(n: int) -> Callable[..., Any]:
        async def work(transaction) -> None:
            await transaction.execute(_WRITE, n=n)

        return work

    with running_pooler(tmp_path, url, mode="transaction", pool_size=3) as pooler_url:
        async with engine(pooler_url, direct_url=url) as database:
            await asyncio.gather(*(database.transact(writing(n)) for n in range(8)))
            (session,) = await opened(database, 1)
            assert await ask(session) == [PARTS]

    assert [row["n"] for row in sql.rows("SELECT n FROM seen ORDER BY n")] == list(range(8))
