"""The simulated database server: one SQLite in memory, run inline, that fails as a seed says.

The SQL is the product's own. A transaction runs to its end without a pause between statements, so
two of them never interleave: what READ COMMITTED allows inside a transaction is not simulated here.
What lies between transactions is: pauses, aborts, commits whose answer is lost, outages, sessions
that end with all that they held.
"""

import sqlite3
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import lru_cache
from typing import TypeVar

from sqlalchemy.dialects import sqlite as sqlite_dialect
from sqlalchemy.schema import CreateIndex, CreateTable

from orderkeep.carts import tables as _carts
from orderkeep.database import audit as _audit
from orderkeep.database.schema import METADATA
from orderkeep.database.sqlite import SqliteTransaction, _drive
from orderkeep.database.sqlite_connection import translated
from orderkeep.database.statement import RowStatement, Statement
from orderkeep.database.transaction import Parameter, Row, StoreUnavailableError, Value
from orderkeep.failure_points import reach
from orderkeep.instant import Instant
from orderkeep.orders import tables as _orders
from orderkeep.payments import tables as _payments
from tests.simulation.dice import instant_at
from tests.simulation.faults import Faults
from tests.simulation.virtual_loop import VirtualLoop
from tests.simulation.watch import Watch, trigger_sql

T = TypeVar("T")

# Imported for the tables that they declare.
_DECLARING = (_carts, _audit, _orders, _payments)

_MILLISECONDS_PER_DAY = 86_400_000
_JULIAN_DAY_OF_1970 = 2_440_587.5

# More than all statements of the product.
_CACHED_STATEMENTS_COUNT = 1024


class AbortedError(Exception):
    """The server aborted the transaction and asks for it to be run again."""


class SimulatedTransaction(SqliteTransaction):
    """A transaction that reads the virtual clock."""

    def __init__(self, connection: sqlite3.Connection, *, now: Callable[[], Instant]) -> None:
        super().__init__(connection)
        self._now = now

    async def now(self) -> Instant:
        """Return the server's clock."""
        return self._now()


class AbortingTransaction(SimulatedTransaction):
    """A transaction that the server aborts at one of its statements."""

    left_count = 0

    async def fetch_all(self, statement: Statement, **parameters: Parameter) -> list[Row]:
        self._pass()
        return await super().fetch_all(statement, **parameters)

    async def fetch_one(self, statement: Statement, **parameters: Parameter) -> Row | None:
        self._pass()
        return await super().fetch_one(statement, **parameters)

    async def execute(self, statement: Statement, **parameters: Parameter) -> int:
        self._pass()
        return await super().execute(statement, **parameters)

    async def execute_rows(
        self, statement: RowStatement, rows: Sequence[Mapping[str, Value]]
    ) -> None:
        self._pass()
        await super().execute_rows(statement, rows)

    async def fetch_rows(
        self, statement: RowStatement, rows: Sequence[Mapping[str, Value]]
    ) -> list[Row]:
        self._pass()
        return await super().fetch_rows(statement, rows)

    def _pass(self) -> None:
        self.left_count -= 1
        if self.left_count < 0:
            self.abort()

    def abort(self) -> None:
        """Abort it here.

        Raises:
            AbortedError: always.
        """
        message = "could not serialize access due to concurrent update"
        raise AbortedError(message)


class DatabaseServer:
    """The database of one world, and the locks of its sessions."""

    def __init__(self, loop: VirtualLoop, *, faults: Faults, watch: Watch) -> None:
        self.loop = loop
        self.faults = faults
        self.watch = watch
        self.down_until_s = 0.0
        self.outages_count = 0
        self.connection = _connection()
        _template().backup(self.connection)
        # What statements themselves read the clock with.
        self.connection.create_function("julianday", 1, self._julian_day)
        watch.attach(self.connection)
        watch.now = self.now
        # By the name of what is shared: which parts each session holds. A dict keeps the order in
        # which the sessions came.
        self._shares: dict[str, dict[object, set[int]]] = {}
        self.sessions: dict[int, Callable[[], None]] = {}
        self._session_number = 0

    def _julian_day(self, _word: str) -> float:
        # Whole milliseconds, as SQLite has them, and none that is still to come.
        milliseconds = self.now() // 1000
        return milliseconds / _MILLISECONDS_PER_DAY + _JULIAN_DAY_OF_1970

    def now(self) -> Instant:
        """Return the server's clock, which is right."""
        return instant_at(self.loop.now_s)

    @property
    def is_down(self) -> bool:
        return self.loop.now_s < self.down_until_s

    def go_down(self, *, for_s: float) -> None:
        """Refuse everything for so long; every session ends."""
        self.outages_count += 1
        self.down_until_s = max(self.down_until_s, self.loop.now_s + for_s)
        for lose in list(self.sessions.values()):
            lose()

    def check_up(self) -> None:
        """Raise if the server is away.

        Raises:
            StoreUnavailableError: it is.
        """
        if self.is_down:
            message = "the database does not answer"
            raise StoreUnavailableError(message)

    def run(
        self,
        work: Callable[[SimulatedTransaction], Awaitable[T]],
        *,
        abort_after_count: int | None = None,
        is_undone: bool = False,
    ) -> tuple[T, list[Callable[[], None]]]:
        """Run a transaction, and return its answer and what is to be called after its commit.

        Args:
            work: What to run.
            abort_after_count: Abort it after so many statements, or at its commit.
            is_undone: Roll it back at its end.

        Raises:
            AbortedError: it was aborted; nothing of it is left.
        """
        if abort_after_count is None:
            transaction = SimulatedTransaction(self.connection, now=self.now)
        else:
            transaction = AbortingTransaction(self.connection, now=self.now)
            transaction.left_count = abort_after_count
        self.connection.execute("BEGIN")
        try:
            answer = _drive(work(transaction))
            reach("database.before_commit")
            if isinstance(transaction, AbortingTransaction):
                transaction.abort()
            self.connection.execute("ROLLBACK" if is_undone else "COMMIT")
        except BaseException as error:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            self.watch.rolled_back()
            if isinstance(error, sqlite3.Error):
                raise translated(error) from error
            raise
        if is_undone:
            self.watch.rolled_back()
        else:
            self.watch.committed()
            reach("database.after_commit")
        return answer, transaction.callbacks

    def read(self, work: Callable[[SimulatedTransaction], Awaitable[T]]) -> T:
        """Run the work on what is committed: nobody writes meanwhile."""
        return _drive(work(SimulatedTransaction(self.connection, now=self.now)))

    # What sessions share.

    def register(self, lose: Callable[[], None]) -> int:
        """Return the number of a new session; `lose` is called when the server ends it."""
        self._session_number += 1
        self.sessions[self._session_number] = lose
        return self._session_number

    def hold_share(self, session: int, name: str, *, part_count: int) -> frozenset[int]:
        """Give the session its fair share of the parts, as far as nobody else holds them."""
        holders = self._shares.setdefault(name, {})
        mine = holders.setdefault(session, set())
        fair_count = -(-part_count // len(holders))
        while len(mine) > fair_count:
            mine.discard(max(mine))
        taken = {part for parts in holders.values() for part in parts}
        for part in range(part_count):
            if len(mine) < fair_count and part not in taken:
                mine.add(part)
        return frozenset(mine)

    def release(self, session: int) -> None:
        """End the session, and with it every lock."""
        self.sessions.pop(session, None)
        for holders in self._shares.values():
            holders.pop(session, None)

    def close(self) -> None:
        self.connection.close()


def _connection() -> sqlite3.Connection:
    connection = sqlite3.connect(
        ":memory:", isolation_level=None, cached_statements=_CACHED_STATEMENTS_COUNT
    )
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA foreign_keys=ON")
    return connection


@lru_cache(1)
def _template() -> sqlite3.Connection:
    """Return a database with every table and the watch's triggers, to be copied."""
    connection = _connection()
    # The triggers name it; what each world hears is its own.
    connection.create_function("noted", -1, lambda *_values: None)
    dialect = sqlite_dialect.dialect()
    for table in METADATA.sorted_tables:
        connection.execute(str(CreateTable(table).compile(dialect=dialect)))
        for index in sorted(table.indexes, key=lambda index: str(index.name)):
            connection.execute(str(CreateIndex(index).compile(dialect=dialect)))
    for sql in trigger_sql():
        connection.execute(sql)
    return connection
