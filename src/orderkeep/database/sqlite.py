"""The embedded engine: one SQLite file in WAL mode, one writer thread, a few reader threads.

Invariant: a transaction that `transact` answered is on disk (`synchronous=FULL`), and at most one
is open for writing in this process. A crash before the commit leaves no trace of it; a crash after
it, before the answer, leaves all of it: callers tell the two apart by their own keys.

Transactions that wait at the same time share a commit, and so the wait for the disk. Each stands
in a savepoint of its own: one that fails takes nobody with it, and all are answered after the
commit. They run one after the other, so each sees what those before it did, as it would otherwise.

The writer thread drives the coroutine of a transaction itself, without an event loop: every method
of the transaction answers at once, so the coroutine runs to its end in one go. Two things follow.
A statement costs no hop between threads, and a transaction that awaits anything but the database
(a socket, a sleep, a lock) cannot be driven and fails: no network call inside a transaction.
"""

import asyncio
import json
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Generic, TypeVar, cast

from sqlalchemy import select
from sqlalchemy.dialects import sqlite as sqlite_dialect

from orderkeep.database.sqlite_connection import BUSY_TIMEOUT_S, open_connection, translated
from orderkeep.database.statement import (
    CompiledStatement,
    DatabaseNow,
    RowStatement,
    Statement,
)
from orderkeep.database.transaction import (
    Parameter,
    ReadTransaction,
    Row,
    StoreUnavailableError,
    Transaction,
    Value,
)
from orderkeep.database.turns import Turns
from orderkeep.failure_points import reach
from orderkeep.instant import Instant

T = TypeVar("T")

# Readers serve HTTP look-ups and reports; more than a few only take turns on the interpreter lock.
READER_COUNT = 4

# After so long no other transaction joins those that will share a commit: the first of them should
# not wait much longer for company than the disk takes to flush.
_SHARED_S_MAX = 0.02

# Values by position: looking up each name for each row takes as long as writing the row.
_DIALECT = sqlite_dialect.dialect(paramstyle="qmark")

_NOW = Statement(select(DatabaseNow().label("now")))


class SqliteTransaction:
    """One open transaction on one connection; it lives inside one thread."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.callbacks: list[Callable[[], None]] = []

    async def fetch_all(self, statement: Statement, **parameters: Parameter) -> list[Row]:
        """Return every row that the statement yields."""
        return cast("list[Row]", self._run(statement, parameters).fetchall())  # sqlite3.Row

    async def fetch_one(self, statement: Statement, **parameters: Parameter) -> Row | None:
        """Return the first row that the statement yields, or None."""
        return cast("Row | None", self._run(statement, parameters).fetchone())  # sqlite3.Row

    async def now(self) -> Instant:
        """Return the database's clock, exact to the millisecond."""
        row = self._run(_NOW, {}).fetchone()
        return Instant(row["now"])

    async def execute(self, statement: Statement, **parameters: Parameter) -> int:
        """Run a statement and return how many rows it changed."""
        return self._run(statement, parameters).rowcount

    async def execute_rows(
        self, statement: RowStatement, rows: Sequence[Mapping[str, Value]]
    ) -> None:
        """Run the statement once for each row."""
        if not rows:
            return
        compiled = statement.compiled_for(_DIALECT)
        self._connection.executemany(compiled.sql, _positional(compiled, rows))

    async def fetch_rows(
        self, statement: RowStatement, rows: Sequence[Mapping[str, Value]]
    ) -> list[Row]:
        """Run the statement once for each row and return what it yields."""
        if not rows:
            return []
        compiled = statement.compiled_for(_DIALECT)
        execute = self._connection.execute
        yielded: list[Row] = []
        for values in _positional(compiled, rows):
            yielded += execute(compiled.sql, values).fetchall()
        return yielded

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Keep the callback for the event loop to call once the commit is certain."""
        self.callbacks.append(callback)

    def _run(self, statement: Statement, parameters: Mapping[str, Parameter]) -> sqlite3.Cursor:
        compiled = statement.compiled_for(_DIALECT)
        values = {**compiled.defaults, **parameters}
        for name in compiled.lists:
            values[name] = json.dumps(values[name])
        return self._connection.execute(compiled.sql, compiled.positional(values))


class _Waiting(Generic[T]):
    """A transaction that waits for its turn, and afterwards for its commit."""

    def __init__(self, work: Callable[[Transaction], Awaitable[T]]) -> None:
        self.committed: Future[tuple[T, list[Callable[[], None]]]] = Future()
        self._work = work
        self._outcome: tuple[T, list[Callable[[], None]]] | None = None
        self._error: BaseException | None = None

    def run(self, connection: sqlite3.Connection) -> None:
        """Run the work in a savepoint; if it fails, that is its caller's and nobody else's.

        Raises:
            StoreUnavailableError: SQLite has rolled back all that shares the commit.
        """
        if not self.committed.set_running_or_notify_cancel():
            return
        connection.execute("SAVEPOINT one")
        try:
            transaction = SqliteTransaction(connection)
            self._outcome = (_drive(self._work(transaction)), transaction.callbacks)
        except BaseException as error:
            self._error = error
            if not connection.in_transaction:
                message = f"SQLite gave up all that was to be committed together: {error}"
                raise StoreUnavailableError(message) from error
            connection.execute("ROLLBACK TO one")
        connection.execute("RELEASE one")

    def answer(self) -> None:
        """Answer, now that it is certain what was committed.

        A refusal as well waits for that: it may rest on what another one did that shares the
        commit.
        """
        if self.committed.cancelled():
            return
        if self._error is not None:
            self.fail(self._error)
        else:
            assert self._outcome is not None
            self.committed.set_result(self._outcome)

    def fail(self, error: BaseException) -> None:
        """Answer that nothing of it was committed."""
        if not self.committed.cancelled():
            self.committed.set_exception(
                translated(error) if isinstance(error, sqlite3.Error) else error
            )


class SqliteDatabase:
    """One SQLite file, served to one event loop."""

    def __init__(self, path: Path, *, busy_timeout_s: float = BUSY_TIMEOUT_S) -> None:
        """Take the file; it is opened, and made if it is missing, with the first transaction.

        Args:
            path: The file.
            busy_timeout_s: How long to wait while another process writes.
        """
        self._path = path
        self._busy_timeout_s = busy_timeout_s
        self._turns: Turns[_Waiting[object]] = Turns()
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sqlite-writer")
        self._readers = ThreadPoolExecutor(READER_COUNT, thread_name_prefix="sqlite-reader")
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._is_closed = False

    async def transact(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        """Run the work on the writer thread, commit it, and return its answer."""
        if self._is_closed:
            message = "the database is closed"
            raise RuntimeError(message)
        waiting = _Waiting(work)
        self._turns.add(cast("_Waiting[object]", waiting))  # the line does not look at answers
        self._writer.submit(self._take_turn)
        running = asyncio.wrap_future(waiting.committed)
        running.add_done_callback(_call_back)
        # A caller that is cancelled (its client hung up) must take neither the commit along nor
        # what follows from it.
        answer, _ = await asyncio.shield(running)
        return answer

    async def read(self, work: Callable[[ReadTransaction], Awaitable[T]]) -> T:
        """Run the work on a snapshot, on a reader thread."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._readers, self._read, work)

    async def open_session(self, *, on_lost: Callable[[], None]) -> "SqliteSession":
        """Return a session that holds every part: one process has the file to itself."""
        del on_lost  # a file is not lost
        return SqliteSession(self)

    async def close(self) -> None:
        """Finish the transactions in hand and close the file."""
        self._is_closed = True
        self._writer.shutdown(wait=True)
        self._readers.shutdown(wait=True)
        for connection in self._connections:
            connection.close()

    def _take_turn(self) -> None:
        """Run the transaction whose turn it is, and those that join it, up to their commit."""
        first = self._turns.begin()
        if first is None:
            # There is a call for each transaction, and some went along with an earlier turn.
            return
        together = [first]
        try:
            connection = self._connection(is_writer=True)
            connection.execute("BEGIN IMMEDIATE")
            try:
                self._run_together(connection, together)
                reach("database.before_commit")
                connection.execute("COMMIT")
                reach("database.after_commit")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        except BaseException as error:  # noqa: BLE001 (nothing is committed: all callers' to decide)
            for waiting in together:
                waiting.fail(error)
        else:
            for waiting in together:
                waiting.answer()

    def _run_together(
        self, connection: sqlite3.Connection, together: list[_Waiting[object]]
    ) -> None:
        ends_at_s = time.monotonic() + _SHARED_S_MAX
        together[0].run(connection)
        while time.monotonic() < ends_at_s and (joining := self._turns.join()) is not None:
            together.append(joining)
            joining.run(connection)

    def _read(self, work: Callable[[ReadTransaction], Awaitable[T]]) -> T:
        try:
            connection = self._connection(is_writer=False)
            connection.execute("BEGIN")
            try:
                return _drive(work(SqliteTransaction(connection)))
            finally:
                connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            raise translated(error) from error

    def _connection(self, *, is_writer: bool) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = open_connection(self._path, busy_timeout_s=self._busy_timeout_s)
            if not is_writer:
                connection.execute("PRAGMA query_only=ON")
            self._local.connection = connection
            self._connections.append(connection)
        return connection


class SqliteSession:
    """The database itself: a file lock in the data directory has made this process the only one."""

    used_within_s: float | None = None

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database

    async def hold_share(self, name: str, *, part_count: int) -> frozenset[int]:
        """Hold every part."""
        del name
        return frozenset(range(part_count))

    async def transact(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        """Run the work as the database does."""
        return await self._database.transact(work)

    async def execute(self, statement: Statement, **parameters: Parameter) -> int:
        """Run the statement in a transaction of the database."""
        return await self._database.transact(
            lambda transaction: transaction.execute(statement, **parameters)
        )

    async def fetch_all(self, statement: Statement, **parameters: Parameter) -> list[Row]:
        """Run the statement in a look-up of the database."""
        return await self._database.read(
            lambda transaction: transaction.fetch_all(statement, **parameters)
        )

    async def close(self) -> None:
        """Leave the file open: it is its owner's to close."""


def _call_back(running: asyncio.Future[tuple[T, list[Callable[[], None]]]]) -> None:
    if running.cancelled() or running.exception() is not None:
        return
    for callback in running.result()[1]:
        callback()


def _positional(
    compiled: CompiledStatement, rows: Sequence[Mapping[str, Value]]
) -> Iterator[Sequence[Value]]:
    """Yield the values of each row in the order of the statement's placeholders."""
    if compiled.defaults.keys() - rows[0].keys():
        rows = [{**compiled.defaults, **row} for row in rows]
    return map(compiled.positional, rows)


def _drive(work: Awaitable[T]) -> T:
    coroutine = cast("Coroutine[object, None, T]", work)  # async functions return coroutines
    try:
        coroutine.send(None)
    except StopIteration as finished:
        return cast("T", finished.value)  # StopIteration is not generic
    coroutine.close()
    message = "a transaction awaited something other than the database"
    raise RuntimeError(message)
