"""Rows that are written many at once: when they leave, and where their failure is heard of."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from enum import StrEnum

import asyncpg
import pytest
from sqlalchemy import Text, column, table, text
from sqlalchemy.dialects.postgresql import insert

from orderkeep.database.postgresql import PostgresDatabase
from orderkeep.database.statement import RowStatement, Statement, row_value
from orderkeep.database.transaction import ConstraintViolatedError, Row, Transaction, Value
from tests.condition import eventually
from tests.integration.database.jars import (
    ADD,
    JARS,
    PATIENCE_S,
    PUT,
    count_of,
    engine,
    engine_in_transaction,
    names,
    pid_of,
    putting,
    waiting_for_a_lock,
)
from tests.plain_sql import PostgresPlainSql, run_alone

_SHELVES = table("shelves", column("shelf", Text()))
_ADD_SHELF = RowStatement(
    insert(_SHELVES).values(shelf=row_value("shelf", Text())).on_conflict_do_nothing()
)
_put_shelf = insert(_SHELVES).values(shelf=row_value("shelf", Text()))
_LOCK_SHELF = RowStatement(
    _put_shelf.on_conflict_do_update(
        index_elements=["shelf"], set_={"shelf": _put_shelf.excluded.shelf}
    )
)
_ADD_BOX = RowStatement(
    insert(table("boxes", column("box", Text()), column("shelf", Text()))).values(
        box=row_value("box", Text()), shelf=row_value("shelf", Text())
    )
)


@pytest.fixture
def shelves(url: str, sql: PostgresPlainSql):
    """Two tables, of which one refers to the other."""
    run_alone(url, "CREATE TABLE shelves (shelf text PRIMARY KEY)")
    run_alone(url, "CREATE TABLE boxes (number bigserial, box text, shelf text REFERENCES shelves)")
    yield sql
    run_alone(url, "DROP TABLE boxes, shelves")


def many(prefix: str) -> list[dict[str, str | int]]:
    """Return more rows than wait for the next statement."""
    return [{"name": f"{prefix}-{number}", "weight": 1} for number in range(33)]


def batched(rows: Sequence[Row], size: int) -> list[Sequence[Row]]:
    """Return the rows in parts of a size."""
    return [rows[start : start + size] for start in range(0, len(rows), size)]


class Size(StrEnum):
    SMALL = "small"


_COLUMNS = ("name", "weight", "size", "label", "is_open")
_FILL = RowStatement(
    insert(JARS)
    .values({name: row_value(name, JARS.c[name].type) for name in _COLUMNS})
    .returning(JARS.c.id, JARS.c.name)
)


@pytest.mark.parametrize("size", [1, 3])
async def test_rows_are_inserted_in_the_order_given_with_every_type(
    jars: PostgresDatabase, sql: PostgresPlainSql, size: int
):
    rows: list[dict[str, Value]] = [
        {"name": "z", "weight": 2**62, "size": None, "label": b"\x00\xff", "is_open": True},
        {"name": Size.SMALL, "weight": None, "size": 7, "label": None, "is_open": None},
        {"name": "a;'\\ü", "weight": 1, "size": -1, "label": b"", "is_open": False},
    ]

    async def work(transaction: Transaction) -> list[Row]:
        return [
            row for part in batched(rows, size) for row in await transaction.fetch_rows(_FILL, part)
        ]

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


@pytest.mark.parametrize("size", [1, 2])
async def test_constants_among_the_values_and_conflicts_are_kept(jars: PostgresDatabase, size: int):
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
                [
                    (row["name"], row["size"])
                    for part in batched([{"name": "a"}, {"name": f"b{turn}"}], size)
                    for row in await transaction.fetch_rows(statement, part)
                ]
            )
            for turn in range(3)
        ]

    assert await jars.transact(work) == [
        [("a", 3), ("b0", 3)],
        [("a", 6), ("b1", 3)],
        [("b2", 3)],
    ]


@pytest.mark.parametrize("before", [[], many("before")], ids=["few", "many"])
async def test_the_work_goes_on_while_rows_are_on_their_way(
    url: str,
    jars: PostgresDatabase,
    sql: PostgresPlainSql,
    before: list[dict[str, str | int]],
):
    async def work(transaction: Transaction) -> int:
        await transaction.execute_rows(ADD, [*before, {"name": "held", "weight": 2}])
        # Many have left, and the server waits for the one who holds the name. Few have not left:
        # the work waits in neither case.
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
    "execute": lambda transaction: transaction.execute(PUT, name="next"),
    "execute_rows": lambda it: it.execute_rows(ADD, [{"name": "next", "weight": 1}]),
    "fetch_all": lambda transaction: transaction.fetch_all(_NAMES),
    "fetch_one": lambda transaction: transaction.fetch_one(_NAMES),
    "fetch_rows": lambda it: it.fetch_rows(
        _FILL, [{"name": "next", "weight": 1, "size": None, "label": None, "is_open": None}]
    ),
    "now": lambda transaction: transaction.now(),
}


@pytest.mark.parametrize("before", [[], many("before")], ids=["few", "many"])
@pytest.mark.parametrize("following", _FOLLOWING)
async def test_whatever_follows_waits_for_the_rows_that_are_on_their_way(
    url: str,
    jars: PostgresDatabase,
    sql: PostgresPlainSql,
    following: str,
    before: list[dict[str, str | int]],
):
    async def work(transaction: Transaction) -> None:
        await transaction.execute_rows(ADD, [*before, {"name": "held", "weight": 2}])
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
    assert [name for name in names(sql) if name in {"held", "next"}] in (["held"], ["held", "next"])


async def test_rows_have_left_before_the_work_goes_on(
    url: str, jars: PostgresDatabase, sql: PostgresPlainSql
):
    async def work(transaction: Transaction) -> None:
        # The first time the statement is prepared, which takes some turns.
        await transaction.execute_rows(ADD, many("first"))
        await transaction.now()
        await transaction.execute_rows(ADD, [*many("then"), {"name": "held", "weight": 2}])
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
        await transaction.execute_rows(ADD, [{"name": "a", "weight": 1}])
        await transaction.execute_rows(ADD, [{"name": "b", "weight": 0}])
        transaction.after_commit(lambda: reached.append("after the commit"))
        if goes_on:
            await transaction.now()
            reached.append("behind what failed")

    with pytest.raises(ConstraintViolatedError, match="jars_weight_check"):
        await jars.transact(work)

    assert reached == []
    assert names(sql) == []
    assert await jars.transact(putting("d")) == 1


async def test_inserts_of_few_rows_leave_as_one_statement_that_does_what_each_does(
    shelves: PostgresPlainSql, jars: PostgresDatabase
):
    async def work(transaction: Transaction) -> None:
        await transaction.execute_rows(_ADD_SHELF, [{"shelf": "s1"}])
        await transaction.execute_rows(_ADD_BOX, [{"box": "b1", "shelf": "s1"}])
        await transaction.execute_rows(_ADD_BOX, [{"box": "b2", "shelf": "s1"}])
        # The same again: it meets the one that it is together with.
        await transaction.execute_rows(_ADD_SHELF, [{"shelf": "s1"}, {"shelf": "s2"}])

    await jars.transact(work)

    found = shelves.rows("SELECT shelf FROM shelves ORDER BY shelf")
    assert found == [{"shelf": "s1"}, {"shelf": "s2"}]
    boxes = shelves.rows("SELECT box, shelf FROM boxes ORDER BY number")
    assert boxes == [{"box": "b1", "shelf": "s1"}, {"box": "b2", "shelf": "s1"}]
    # A statement's number in its transaction is written into each of its rows.
    assert len(shelves.rows("SELECT cmin FROM shelves UNION SELECT cmin FROM boxes")) == 1


async def test_inserts_of_many_rows_take_along_what_was_kept(
    shelves: PostgresPlainSql, jars: PostgresDatabase
):
    async def work(transaction: Transaction) -> None:
        await transaction.execute_rows(_ADD_SHELF, [{"shelf": "s1"}])
        await transaction.execute_rows(
            _ADD_BOX, [{"box": f"b{number}", "shelf": "s1"} for number in range(33)]
        )

    await jars.transact(work)

    boxes = shelves.rows("SELECT box FROM boxes ORDER BY number")
    assert [row["box"] for row in boxes] == [f"b{number}" for number in range(33)]
    assert len(shelves.rows("SELECT cmin FROM shelves UNION SELECT cmin FROM boxes")) == 1


@pytest.mark.parametrize("is_new", [True, False])
async def test_an_upsert_goes_alone_so_that_it_may_meet_its_own_row(
    shelves: PostgresPlainSql, jars: PostgresDatabase, *, is_new: bool
):
    async def work(transaction: Transaction) -> None:
        await transaction.execute_rows(_ADD_BOX, [{"box": "b1", "shelf": None}])
        await transaction.execute_rows(_LOCK_SHELF, [{"shelf": "s1"}])
        await transaction.execute_rows(_LOCK_SHELF, [{"shelf": "s1"}])

    if not is_new:
        shelves.rows("INSERT INTO shelves VALUES ('s1')")
    await jars.transact(work)

    assert shelves.rows("SELECT shelf FROM shelves") == [{"shelf": "s1"}]
    assert shelves.rows("SELECT box FROM boxes") == [{"box": "b1"}]


async def test_more_inserts_than_go_together_are_all_written(
    jars: PostgresDatabase, sql: PostgresPlainSql
):
    async def work(transaction: Transaction) -> None:
        for number in range(20):
            await transaction.execute_rows(ADD, [{"name": f"{number}", "weight": 1}])

    await jars.transact(work)

    assert names(sql) == [f"{number}" for number in range(20)]


@pytest.mark.parametrize("before", [[], many("before")], ids=["few", "many"])
async def test_rows_that_could_not_be_sent_are_not_left_out_of_what_is_committed(
    jars: PostgresDatabase, sql: PostgresPlainSql, before: list[dict[str, str | int]]
):
    async def work(transaction: Transaction) -> None:
        await transaction.execute_rows(ADD, [*before, {"name": "a", "weight": 2**64}])
        # No server hears of it, so its transaction is as good as before.
        with suppress(asyncpg.DataError):
            await transaction.now()

    with pytest.raises(asyncpg.DataError):
        await jars.transact(work)

    assert names(sql) == []
    assert await jars.transact(putting("b")) == 1


@pytest.mark.parametrize("before", [[], many("before")], ids=["few", "many"])
async def test_a_work_that_raises_with_rows_on_their_way_leaves_its_connection_as_it_was(
    url: str, sql: PostgresPlainSql, before: list[dict[str, str | int]]
):
    async def work(transaction: Transaction) -> None:
        pids.append(await pid_of(transaction))
        await transaction.execute_rows(ADD, [*before, {"name": "a", "weight": weights.pop()}])
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


@pytest.mark.parametrize("before", [[], many("before")], ids=["few", "many"])
async def test_a_work_that_is_cut_off_with_rows_on_their_way_commits_nothing(
    url: str,
    jars: PostgresDatabase,
    sql: PostgresPlainSql,
    before: list[dict[str, str | int]],
):
    async def work(transaction: Transaction) -> None:
        await transaction.execute_rows(ADD, [*before, {"name": "held", "weight": 1}])
        message = "cut off"
        raise asyncio.CancelledError(message)

    async with engine_in_transaction(url, putting("held")) as end:
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(asyncio.CancelledError):
                await jars.transact(work)
        await end()

    assert names(sql) == ["held"]
    assert await jars.transact(putting("b")) == 1
