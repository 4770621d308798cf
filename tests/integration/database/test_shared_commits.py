"""Transactions that wait at the same time share a commit, and nothing else."""

import asyncio
import sqlite3
import threading
from pathlib import Path

import pytest
from sqlalchemy import Column, MetaData, Table, Text, select
from sqlalchemy.dialects.postgresql import insert

from orderkeep.database import sqlite as engine
from orderkeep.database.sqlite import SqliteDatabase, SqliteTransaction
from orderkeep.database.statement import RowStatement, Statement, row_value
from orderkeep.database.transaction import (
    ConstraintViolatedError,
    ReadTransaction,
    StoreUnavailableError,
    Transaction,
)
from orderkeep.database.turns import giving_way

NOTES = Table("notes", MetaData(), Column("name", Text, primary_key=True))
INSERT = RowStatement(insert(NOTES).values(name=row_value("name", Text())))
NAMES = Statement(select(NOTES.c.name).order_by(NOTES.c.name).limit(100))


@pytest.fixture
async def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # No turn of these ends because it takes long.
    monkeypatch.setattr(engine, "_SHARED_S_MAX", 60.0)
    connection = sqlite3.connect(tmp_path / "notes.db")
    connection.execute("CREATE TABLE notes (name TEXT PRIMARY KEY)")
    connection.commit()
    connection.close()
    database = SqliteDatabase(tmp_path / "notes.db")
    yield database
    await database.close()


@pytest.fixture
def commits(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every point that a commit passed."""
    passed: list[str] = []
    monkeypatch.setattr(engine, "reach", passed.append)
    return passed


async def names(database: SqliteDatabase) -> list[str]:
    async def read(transaction: ReadTransaction) -> list[str]:
        return [row["name"] for row in await transaction.fetch_all(NAMES)]

    return await database.read(read)


async def add(transaction: Transaction, name: str) -> str:
    await transaction.execute_rows(INSERT, [{"name": name}])
    return name


async def add_and_fail(transaction: Transaction, name: str, error: Exception) -> None:
    await add(transaction, name)
    raise error


async def all_at_once(database: SqliteDatabase, *works) -> list[object]:
    """Run the works such that all of them wait when the first one's turn comes."""
    all_wait = threading.Event()

    async def hold(_transaction: Transaction) -> None:
        assert all_wait.wait(30)

    holding = asyncio.create_task(database.transact(hold))
    waiting = [asyncio.create_task(database.transact(work)) for work in works]
    await asyncio.sleep(0)
    all_wait.set()
    await asyncio.gather(holding, return_exceptions=True)
    return await asyncio.gather(*waiting, return_exceptions=True)


async def test_those_who_wait_together_are_committed_together(notes, commits):
    answers = await all_at_once(
        notes, *(lambda transaction, name=name: add(transaction, name) for name in "abc")
    )

    assert answers == ["a", "b", "c"]
    assert await names(notes) == ["a", "b", "c"]
    assert commits == ["database.before_commit", "database.after_commit"]


async def test_one_that_fails_takes_nobody_with_it(notes):
    answers = await all_at_once(
        notes,
        lambda transaction: add(transaction, "a"),
        lambda transaction: add_and_fail(transaction, "b", ValueError("changed my mind")),
        lambda transaction: add(transaction, "a"),
        lambda transaction: add(transaction, "c"),
    )

    assert [type(answer) for answer in answers] == [str, ValueError, ConstraintViolatedError, str]
    assert await names(notes) == ["a", "c"]


async def test_a_commit_that_fails_fails_all_who_share_it_and_calls_nobody_back(notes, monkeypatch):
    called: list[str] = []
    monkeypatch.setattr(engine, "reach", fail_as_a_full_disk)

    async def add_and_be_called(transaction: Transaction) -> None:
        await add(transaction, "a")
        transaction.after_commit(lambda: called.append("a"))

    async def refuse(_transaction: Transaction) -> None:
        message = "there is a note already"
        raise ValueError(message)

    answers = await all_at_once(notes, add_and_be_called, refuse)

    assert [type(answer) for answer in answers] == [StoreUnavailableError] * 2
    assert await names(notes) == []
    assert called == []


def fail_as_a_full_disk(_point: str) -> None:
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorcode = sqlite3.SQLITE_FULL
    raise error


async def test_a_refusal_that_rests_on_another_ones_work_waits_for_the_commit(notes, monkeypatch):
    told_before_commit: list[bool] = []
    refused: list[asyncio.Future] = []

    async def refuse(transaction: Transaction) -> None:
        assert [row["name"] for row in await transaction.fetch_all(NAMES)] == ["a"]
        message = "there is a note already"
        raise ValueError(message)

    monkeypatch.setattr(
        engine._Waiting, "fail", noting(engine._Waiting.fail, note=lambda: refused.append(None))
    )
    monkeypatch.setattr(engine, "reach", lambda _point: told_before_commit.append(bool(refused)))

    answers = await all_at_once(notes, lambda transaction: add(transaction, "a"), refuse)

    assert [type(answer) for answer in answers] == [str, ValueError]
    assert told_before_commit == [False, False]


def noting(method, *, note):
    def noted(*args):
        note()
        return method(*args)

    return noted


async def test_what_sqlite_rolls_back_by_itself_is_committed_for_nobody(notes):
    async def lose_everything(transaction: Transaction) -> None:
        assert isinstance(transaction, SqliteTransaction)
        transaction._connection.execute("ROLLBACK")
        fail_as_a_full_disk("")

    answers = await all_at_once(
        notes,
        lambda transaction: add(transaction, "a"),
        lose_everything,
        lambda transaction: add(transaction, "b"),
    )

    assert [type(answer) for answer in answers[:2]] == [StoreUnavailableError] * 2
    assert answers[2] == "b"
    assert await names(notes) == ["b"]


async def test_requests_go_before_those_who_give_way(notes):
    order: list[str] = []

    async def note(name: str) -> None:
        async def work(_transaction: Transaction) -> None:
            order.append(name)

        await notes.transact(work)

    all_wait = threading.Event()
    holding = asyncio.create_task(notes.transact(lambda _transaction: wait_for(all_wait)))
    waiting = [
        asyncio.create_task(giving_way(note)("gives way")),
        asyncio.create_task(note("first request")),
        asyncio.create_task(note("second request")),
    ]
    await asyncio.sleep(0)
    all_wait.set()
    await asyncio.gather(holding, *waiting)

    assert order == ["first request", "second request", "gives way"]


async def wait_for(event: threading.Event) -> None:
    assert event.wait(30)
