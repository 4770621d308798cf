"""One transaction on one connection to PostgreSQL: its statements, its commit, and how it fails.

Invariant: COMMIT is sent once for a transaction. Up to there an error leaves nothing behind, and
the work may be run again; an error in place of the answer to COMMIT leaves open what happened, and
is said to.

At most one statement is under way. `execute_rows` returns once its statement is sent; the next one
waits for the answer before it is sent, and COMMIT waits for it too. So what a statement breaks is
raised at the next one or at the end of the work, and never after COMMIT.

A crash before the commit leaves nothing: the server rolls back when the connection ends. One after
it, before the answer, leaves all of it: callers tell the two apart by their own keys.

That a work awaits nothing but its transaction is held by the embedded engine, which runs the same
works in the same tests; here a foreign wait would hold locks, up to the idle limit of the server.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

import asyncpg
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import asyncpg as asyncpg_dialect
from sqlalchemy.engine.interfaces import Dialect

from orderkeep.database.bulk import for_all_rows
from orderkeep.database.postgresql_errors import (
    DRIVER_ERRORS,
    is_asked_again,
    is_end_of_connection,
    is_rolled_back,
    said_by,
    translated,
)
from orderkeep.database.statement import (
    CompiledStatement,
    DatabaseNow,
    RowStatement,
    Statement,
)
from orderkeep.database.transaction import (
    CommitUnknownError,
    ConstraintViolatedError,
    Parameter,
    ReadTransaction,
    Row,
    StoreUnavailableError,
    Transaction,
    Value,
)
from orderkeep.failure_points import reach
from orderkeep.instant import Instant

if TYPE_CHECKING:
    from orderkeep.database.postgresql_connection import Connection

T = TypeVar("T")

_DIALECT: Dialect = asyncpg_dialect.dialect()  # type: ignore[no-untyped-call]  # theirs

_NOW = Statement(select(DatabaseNow().label("now")))

# Of transactions that stand in each other's way one always gets through, so each try has a fair
# chance; ten in a row fail only where something is wrong.
ASKED_AGAIN_TRIES_MAX = 10

# A rollback writes nothing: a server that does not answer it so soon is given up.
_ROLLBACK_S_MAX = 2.0


class AskedAgainError(StoreUnavailableError):
    """The database rolled back the transaction and asks for it again."""


class KeyTakenError(ConstraintViolatedError):
    """A row with the same unique key is there; it may have come while the work was running.

    Then the work looked before it was there, and would find it now.
    """


class ConnectionEndedError(StoreUnavailableError):
    """The connection ended before COMMIT was sent: nothing was committed."""


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
        # Such as "UPDATE 3" or "INSERT 0 3"; what changes no rows has no number.
        count = status.rpartition(" ")[2]
        return int(count) if count.isdecimal() else 0

    async def execute_rows(
        self, statement: RowStatement, rows: Sequence[Mapping[str, Value]]
    ) -> None:
        """Send the statement for all rows at once; see above for when it fails."""
        if not rows:
            return
        compiled = statement.at_once(for_all_rows).compiled_for(_DIALECT)
        columns = _columns(compiled, rows)
        await self.answered()
        self._under_way = asyncio.create_task(
            self._connection.execute(compiled.sql, *columns, timeout=self._answer_s)
        )
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
        compiled = statement.at_once(for_all_rows).compiled_for(_DIALECT)
        columns = _columns(compiled, rows)
        await self.answered()
        yielded = await self._connection.fetch(compiled.sql, *columns, timeout=self._answer_s)
        return cast("list[Row]", yielded)  # a Record is a Mapping in all but name

    async def answered(self) -> None:
        """Wait for the answer to the statement that is under way, if one is."""
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            await under_way

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


async def commit_work(
    connection: "Connection",
    work: Callable[[Transaction], Awaitable[T]],
    *,
    begin: str,
    answer_s: float,
) -> T:
    """Run the work in a transaction on the connection, commit it, and return its answer.

    Once this has raised, the connection is either out of the transaction or closed.

    Raises:
        AskedAgainError: nothing was committed; the database asks for the same again.
        ConnectionEndedError: nothing was committed; another connection may do.
        CommitUnknownError: the answer to COMMIT did not come.
        StoreUnavailableError: nothing was committed.
        ConstraintViolatedError: nothing was committed.
    """
    transaction = PostgresTransaction(connection, answer_s=answer_s)
    try:
        await _begin_to_write(connection, begin, answer_s=answer_s)
        answer = await work(transaction)
        await transaction.answered()
        reach("database.before_commit")
    except BaseException as error:  # noqa: BLE001 (rolled back, and raised by its right name)
        await _let_go(transaction, connection, after=error)
        await _roll_back(connection, after=error)
        _raise(error, connection)
    await _commit(connection, answer_s=answer_s)
    reach("database.after_commit")
    for callback in transaction.callbacks:
        # Called before whoever waits for the answer goes on; and what one of them raises is not
        # the transaction's, which is committed.
        asyncio.get_running_loop().call_soon(callback)
    return answer


async def read_work(
    connection: "Connection",
    work: Callable[[ReadTransaction], Awaitable[T]],
    *,
    begin: str,
    answer_s: float,
) -> T:
    """Run the work on a snapshot and return its answer.

    Once this has raised, the connection is either out of the transaction or closed.

    Raises:
        AskedAgainError: the database asks for the same again.
        ConnectionEndedError: another connection may do.
        StoreUnavailableError: the database cannot serve now.
    """
    try:
        await connection.execute(begin, timeout=answer_s)
        answer = await work(PostgresTransaction(connection, answer_s=answer_s))
    except BaseException as error:  # noqa: BLE001 (rolled back, and raised by its right name)
        await _roll_back(connection, after=error)
        _raise(error, connection)
    # The answer is read: whatever becomes of the connection takes nothing from it.
    await _roll_back(connection, after=None)
    return answer


async def _begin_to_write(connection: "Connection", begin: str, *, answer_s: float) -> None:
    try:
        await connection.execute(begin, timeout=answer_s)
    except asyncpg.FeatureNotSupportedError as error:
        # What a server says that has become a replica: another one is the primary now.
        connection.terminate()
        message = "the server is a replica, which takes no writes"
        raise ConnectionEndedError(message) from error


async def _commit(connection: "Connection", *, answer_s: float) -> None:
    if connection.is_closed():
        message = "the connection to PostgreSQL ended before COMMIT was sent"
        raise ConnectionEndedError(message)
    try:
        status = await connection.execute("COMMIT", timeout=answer_s)
    except BaseException as error:
        if is_rolled_back(error):
            _raise(error, connection)
        connection.terminate()
        if not isinstance(error, DRIVER_ERRORS):
            raise
        message = f"the answer to COMMIT did not come: {said_by(error)}"
        raise CommitUnknownError(message) from error
    if status != "COMMIT":
        message = "the work went on after one of its statements had failed; nothing is committed"
        raise RuntimeError(message)


async def _let_go(
    transaction: PostgresTransaction, connection: "Connection", *, after: BaseException
) -> None:
    """Have the connection to ourselves again, or end it."""
    if isinstance(after, asyncio.CancelledError):
        # What is under way ends with it.
        connection.terminate()
    try:
        await transaction.let_go()
    except BaseException:
        connection.terminate()
        raise


async def _roll_back(connection: "Connection", *, after: BaseException | None) -> None:
    """End the transaction, or the connection."""
    if connection.is_closed():
        return
    is_ended = after is not None and is_end_of_connection(after, is_closed=False)
    if is_ended or isinstance(after, asyncio.CancelledError):
        connection.terminate()
        return
    try:
        await connection.execute("ROLLBACK", timeout=_ROLLBACK_S_MAX)
    except DRIVER_ERRORS:
        connection.terminate()
    except BaseException:
        connection.terminate()
        raise


def _raise(error: BaseException, connection: "Connection") -> NoReturn:
    """Raise the error as callers of transactions know it."""
    if not isinstance(error, DRIVER_ERRORS):
        raise error
    if is_asked_again(error):
        message = f"PostgreSQL asks for the transaction again: {said_by(error)}"
        raise AskedAgainError(message) from error
    is_closed = connection.is_closed()
    if is_end_of_connection(error, is_closed=is_closed):
        message = f"the connection to PostgreSQL ended: {said_by(error)}"
        raise ConnectionEndedError(message) from error
    named = translated(error, is_closed=is_closed)
    if named is error:
        raise error
    if isinstance(named, ConstraintViolatedError):
        # Not with its cause: the details of that are the values of a row, which no log may hold.
        if isinstance(error, asyncpg.UniqueViolationError):
            raise KeyTakenError(*named.args) from None
        raise named from None
    raise named from error


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
