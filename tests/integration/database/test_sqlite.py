"""The embedded engine keeps its promises: one commit, answers after it, nothing awaited inside."""

import asyncio
import sqlite3
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, Text, bindparam, select
from sqlalchemy.dialects.postgresql import insert

from orderkeep.database.sqlite import SqliteDatabase
from orderkeep.database.sqlite_connection import open_connection
from orderkeep.database.statement import (
    DatabaseNow,
    RowStatement,
    Statement,
    is_any_of,
    is_one_of,
    row_value,
)
from orderkeep.database.transaction import (
    ConstraintViolatedError,
    ReadTransaction,
    StoreUnavailableError,
    Transaction,
)
from orderkeep.failure_points import ArmedPoint, parse
from orderkeep.instant import instant_of
from tests.condition import eventually

NOTES = Table("notes", MetaData(), Column("name", Text, primary_key=True), Column("size", Integer))
INSERT = RowStatement(
    insert(NOTES).values(name=row_value("name", Text()), size=row_value("size", Integer()))
)
INSERT_NEW = RowStatement(
    insert(NOTES)
    .values(name=row_value("name", Text()), size=1)
    .on_conflict_do_nothing(index_elements=["name"])
    .returning(NOTES.c.name)
)
NAMES = Statement(select(NOTES.c.name).order_by(NOTES.c.name).limit(100))


@pytest.fixture
async def notes(tmp_path: Path):
    connection = sqlite3.connect(tmp_path / "notes.db")
    connection.execute("CREATE TABLE notes (name TEXT PRIMARY KEY, size INTEGER)")
    connection.commit()
    connection.close()
    database = SqliteDatabase(tmp_path / "notes.db")
    yield database
    await database.close()


async def names(database: SqliteDatabase) -> list[str]:
    async def read(transaction: ReadTransaction) -> list[str]:
        return [row["name"] for row in await transaction.fetch_all(NAMES)]

    return await database.read(read)


async def add(transaction: Transaction, *new: str) -> None:
    await transaction.execute_rows(INSERT, [{"name": name, "size": 1} for name in new])


async def test_what_a_transaction_wrote_is_there_for_readers_once_it_is_answered(notes):
    await notes.transact(lambda transaction: add(transaction, "a", "b"))

    assert await names(notes) == ["a", "b"]


async def test_a_transaction_that_raises_leaves_nothing_and_calls_nobody_back(notes):
    called: list[str] = []

    async def write(transaction: Transaction) -> None:
        await add(transaction, "a")
        transaction.after_commit(lambda: called.append("a"))
        message = "changed my mind"
        raise ValueError(message)

    with pytest.raises(ValueError, match="changed my mind"):
        await notes.transact(write)

    assert await names(notes) == []
    assert called == []


async def test_a_broken_rule_of_the_schema_is_told_apart_and_leaves_nothing(notes):
    with pytest.raises(ConstraintViolatedError, match="UNIQUE"):
        await notes.transact(lambda transaction: add(transaction, "a", "a"))

    assert await names(notes) == []


async def test_a_transaction_that_awaits_anything_else_fails_and_leaves_nothing(notes):
    async def write(transaction: Transaction) -> None:
        await add(transaction, "a")
        await asyncio.get_running_loop().create_future()

    with pytest.raises(RuntimeError):
        await notes.transact(write)

    assert await names(notes) == []


async def test_a_transaction_that_suspends_without_a_loop_fails_as_well(notes):
    class Suspends:
        def __await__(self):
            yield

    async def write(transaction: Transaction) -> None:
        await add(transaction, "a")
        await Suspends()

    with pytest.raises(RuntimeError, match="something other than the database"):
        await notes.transact(write)

    assert await names(notes) == []


async def test_a_caller_that_is_cancelled_takes_neither_the_commit_nor_the_callbacks_along(notes):
    called: list[str] = []

    async def write(transaction: Transaction) -> None:
        await add(transaction, "a")
        transaction.after_commit(lambda: called.append("a"))

    caller = asyncio.create_task(notes.transact(write))
    await asyncio.sleep(0)  # lets the caller hand its work over
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller

    await eventually(lambda: called == ["a"])
    assert await names(notes) == ["a"]


async def test_callbacks_come_after_the_commit_and_before_the_answer(notes):
    order: list[str] = []

    async def write(transaction: Transaction) -> None:
        await add(transaction, "a")
        transaction.after_commit(lambda: order.append("called back"))
        order.append("written")

    await notes.transact(write)
    order.append("answered")

    assert order == ["written", "called back", "answered"]


async def test_a_reader_cannot_write(notes):
    async def write(transaction) -> None:
        await add(transaction, "a")

    with pytest.raises(StoreUnavailableError, match="readonly"):
        await notes.read(write)


async def test_fetch_rows_returns_what_the_guard_let_through(notes):
    await notes.transact(lambda transaction: add(transaction, "b"))

    async def write(transaction: Transaction) -> set[str]:
        rows = [{"name": name} for name in ("a", "b", "c")]
        return {row["name"] for row in await transaction.fetch_rows(INSERT_NEW, rows)}

    assert await notes.transact(write) == {"a", "c"}


async def test_a_list_parameter_takes_lists_of_every_length(notes):
    await notes.transact(lambda transaction: add(transaction, "a", "b", "c"))
    some = Statement(select(NOTES.c.name).where(is_any_of(NOTES.c.name, "names")).limit(9))

    async def read(transaction: ReadTransaction) -> list[set[str]]:
        return [
            {row["name"] for row in await transaction.fetch_all(some, names=wanted)}
            for wanted in ([], ["a"], ["a", "c", "x"])
        ]

    assert await notes.read(read) == [set(), {"a"}, {"a", "c"}]


async def test_a_forgotten_parameter_is_an_error_and_not_null(notes):
    one = Statement(select(NOTES.c.name).where(NOTES.c.name == bindparam("name")).limit(1))

    async def read(transaction: ReadTransaction) -> object:
        return await transaction.fetch_one(one)

    with pytest.raises((KeyError, sqlite3.ProgrammingError)):
        await notes.read(read)


async def test_the_database_clock_is_the_machines_clock_here(notes):
    before = instant_of(datetime.now(UTC))  # noqa: TID251 (compared with the clock on purpose)

    async def read(transaction: ReadTransaction) -> tuple[int, int]:
        row = await transaction.fetch_one(Statement(select(DatabaseNow().label("now"))))
        assert row is not None
        return await transaction.now(), row["now"]

    by_method, in_statement = await notes.read(read)
    after = instant_of(datetime.now(UTC))  # noqa: TID251 (compared with the clock on purpose)

    for now in (by_method, in_statement):
        # SQLite's clock counts whole milliseconds.
        assert before - 1000 <= now <= after + 1000


async def test_a_file_that_somebody_else_holds_for_too_long_is_unavailable(notes, tmp_path):
    other = open_connection(tmp_path / "notes.db")
    other.execute("BEGIN IMMEDIATE")
    impatient = SqliteDatabase(tmp_path / "notes.db", busy_timeout_s=0.05)

    with pytest.raises(StoreUnavailableError, match="locked"):
        await impatient.transact(lambda transaction: add(transaction, "a"))

    other.execute("ROLLBACK")
    other.close()
    await impatient.transact(lambda transaction: add(transaction, "a"))
    await impatient.close()
    assert await names(notes) == ["a"]


async def test_every_connection_flushes_each_commit_to_the_disk(tmp_path):
    connection = open_connection(tmp_path / "notes.db")

    assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    assert connection.execute("PRAGMA synchronous").fetchone()[0] == 2
    connection.close()


def test_constants_in_a_statement_must_be_plain_names():
    with pytest.raises(ValueError, match="plain name"):
        is_one_of(NOTES.c.name, "a'; DROP TABLE notes; --")


def test_a_failure_point_is_named_with_an_optional_count():
    assert parse("intake.before_batch") == ArmedPoint(name="intake.before_batch", on_reach=1)
    assert parse("intake.before_batch:3") == ArmedPoint(name="intake.before_batch", on_reach=3)
    for wrong in ("", ":3", "x:0", "x:-1"):
        with pytest.raises(ValueError, match="is not NAME"):
            parse(wrong)


def test_many_who_open_a_new_file_at_the_same_moment_all_get_it(tmp_path: Path):
    rounds_count, openers_count = 40, 8
    errors: list[Exception] = []

    def open_new_file(path: Path, start: threading.Barrier) -> None:
        start.wait()
        try:
            open_connection(path).close()
        except StoreUnavailableError as error:
            errors.append(error)

    for round_index in range(rounds_count):
        start = threading.Barrier(openers_count)
        path = tmp_path / f"new{round_index}.db"
        threads = [
            threading.Thread(target=open_new_file, args=(path, start)) for _ in range(openers_count)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert errors == []
