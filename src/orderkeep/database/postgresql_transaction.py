"""One transaction on one connection to PostgreSQL: its statements, and when each of them is sent.

At most one statement is under way. `execute_rows` returns once its statement is sent; the next one
waits for the answer before it is sent, and COMMIT waits for it too. Plain inserts of few rows are
not even sent: they wait for others, and leave with them as one statement before anything else does.
So what a statement breaks is raised at a later one or at the end of the work, and never after
COMMIT; and nothing is committed without what was kept.

That a work awaits nothing but its transaction is held by the embedded engine, which runs the same
works in the same tests; here a foreign wait would hold locks, up to the idle limit of the server.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import asyncpg as asyncpg_dialect
from sqlalchemy.engine.interfaces import Dialect

from orderkeep.database.bulk import for_all_rows
from orderkeep.database.joined_inserts import is_plain_insert, joined
from orderkeep.database.statement import (
    CompiledStatement,
    DatabaseNow,
    RowStatement,
    Statement,
)
from orderkeep.database.transaction import Parameter, Row, Value
from orderkeep.instant import Instant

if TYPE_CHECKING:
    from orderkeep.database.postgresql_connection import Connection

_DIALECT: Dialect = asyncpg_dialect.dialect()  # type: ignore[no-untyped-call]  # theirs

_NOW = Statement(select(DatabaseNow().label("now")))

# Inserts of so few rows cost less than their round trips: a row takes a few tens of microseconds, a
# round trip some two hundred. Of more the next rows are made while the database works on the last.
_FEW_ROWS_MAX = 32

# So many are sent at the latest: of longer statements the driver keeps none prepared (15 kB).
_KEPT_COUNT_MAX = 8


class PostgresTransaction:
    """One open transaction on one connection."""

    def __init__(self, connection: "Connection", *, answer_s: float) -> None:
        """Run statements on the connection, on which a transaction is open.

        Args:
            answer_s: How long to wait for the answer to each.
        """
        self._connection = connection
        self._answer_s = answer_s
        self.callbacks: list[Callable[[], None]] = []
        self._under_way: asyncio.Task[str] | None = None
        # Inserts of few rows each that are not sent yet, in their order.
        self._kept: list[tuple[str, Sequence[Any]]] = []

    async def fetch_all(self, statement: Statement, **parameters: Parameter) -> list[Row]:
        """Return every row that the statement yields."""
        compiled = statement.compiled_for(_DIALECT)
        await self.answered()
        rows = await self._connection.fetch(
            compiled.sql, *_values(compiled, parameters), timeout=self._answer_s
        )
        return cast("list[Row]", rows)  # a Record is a Mapping in all but name

    async def fetch_one(self, statement: Statement, **parameters: Parameter) -> Row | None:
        """Return the first row that the statement yields, or None."""
        compiled = statement.compiled_for(_DIALECT)
        await self.answered()
        row = await self._connection.fetchrow(
            compiled.sql, *_values(compiled, parameters), timeout=self._answer_s
        )
        return cast("Row | None", row)  # a Record is a Mapping in all but name

    async def now(self) -> Instant:
        """Return the database's clock, exact to the microsecond."""
        row = await self.fetch_one(_NOW)
        assert row is not None
        return Instant(row["now"])

    async def execute(self, statement: Statement, **parameters: Parameter) -> int:
        """Run a statement and return how many rows it changed."""
        compiled = statement.compiled_for(_DIALECT)
        await self.answered()
        status = await self._connection.execute(
            compiled.sql, *_values(compiled, parameters), timeout=self._answer_s
        )
        return _changed_count(status)

    async def execute_rows(
        self, statement: RowStatement, rows: Sequence[Mapping[str, Value]]
    ) -> None:
        """Send the statement for all rows at once, few of them later; see above."""
        if not rows:
            return
        written = _written(statement, rows)
        if is_plain_insert(statement.compiled_for(_DIALECT).sql):
            self._kept.append(written)
            if len(rows) <= _FEW_ROWS_MAX and len(self._kept) < _KEPT_COUNT_MAX:
                return
            await self._let_answer()
            self._send_kept()
        else:
            await self.answered()
            self._send(*written)
        # In the next turn of the loop the driver writes it, at whose end uvloop sends it. Without
        # these two it would leave only once the work waits for something.
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    async def fetch_rows(
        self, statement: RowStatement, rows: Sequence[Mapping[str, Value]]
    ) -> list[Row]:
        """Run the statement for all rows at once and return what it yields."""
        if not rows:
            return []
        sql, values = _written(statement, rows)
        await self.answered()
        yielded = await self._connection.fetch(sql, *values, timeout=self._answer_s)
        return cast("list[Row]", yielded)  # a Record is a Mapping in all but name

    async def answered(self) -> None:
        """Wait for the answers to all statements so far, and send first what was kept.

        What has failed stays, and fails whatever comes after it.
        """
        await self._let_answer()
        if self._kept:
            self._send_kept()
            await self._let_answer()

    async def _let_answer(self) -> None:
        """Wait for the answer to the statement that is under way, if one is."""
        if self._under_way is not None:
            await self._under_way
            self._under_way = None

    def _send_kept(self) -> None:
        kept, self._kept = self._kept, []
        sql = joined(tuple(sql for sql, _ in kept))
        self._send(sql, [value for _, values in kept for value in values])

    def _send(self, sql: str, values: Sequence[Any]) -> None:
        self._under_way = asyncio.create_task(
            self._connection.execute(sql, *values, timeout=self._answer_s)
        )

    async def let_go(self) -> None:
        """Wait until no statement is under way, whatever became of the last one."""
        under_way, self._under_way = self._under_way, None
        if under_way is None:
            return
        # Or the loop complains of a failure that nobody was left to hear of.
        under_way.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        # Bounded: each statement has its time limit.
        await asyncio.wait({under_way})

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Keep the callback for when the commit is certain."""
        self.callbacks.append(callback)


def _changed_count(status: str) -> int:
    # Such as "UPDATE 3" or "INSERT 0 3"; what changes no rows has no number.
    count = status.rpartition(" ")[2]
    return int(count) if count.isdecimal() else 0


def _written(
    statement: RowStatement, rows: Sequence[Mapping[str, Value]]
) -> tuple[str, Sequence[Any]]:
    """Return the SQL text that does the statement for every row, and its values."""
    if len(rows) == 1:
        # As it was written, which is cheaper: nothing is read from arrays, and nothing is joined.
        compiled = statement.compiled_for(_DIALECT)
        return compiled.sql, compiled.positional({**rows[0], **compiled.defaults})
    compiled = statement.at_once(for_all_rows).compiled_for(_DIALECT)
    return compiled.sql, _columns(compiled, rows)


def _values(compiled: CompiledStatement, parameters: Mapping[str, Parameter]) -> Sequence[Any]:
    if compiled.defaults:
        return compiled.positional({**compiled.defaults, **parameters})
    return compiled.positional(parameters)


def _columns(compiled: CompiledStatement, rows: Sequence[Mapping[str, Value]]) -> Sequence[Any]:
    """Return the values of all rows, each column as a list, in the order of the placeholders."""
    names = tuple(compiled.lists)
    columns = dict(zip(names, _turned(rows, names), strict=True))
    return compiled.positional({**compiled.defaults, **columns})


def _turned(rows: Sequence[Mapping[str, Value]], names: Sequence[str]) -> Sequence[Sequence[Value]]:
    # In C, for it is done with every value that is written.
    if len(names) == 1:
        return [[row[names[0]] for row in rows]]
    return list(zip(*map(itemgetter(*names), rows), strict=True))
