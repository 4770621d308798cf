"""What a use case sees of a database: one open transaction.

Invariant: the edge (a request batch, a message batch, a sweep) opens the transaction and commits it
once. Use cases and stores receive it, never commit it, and await nothing but its methods. The
embedded engine holds them to the last: a transaction that awaits anything else fails at once.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar

from orderkeep.database.statement import RowStatement, Statement
from orderkeep.instant import Instant

# A column may hold text, a number, bytes or NULL, and the driver decides at run time which: the
# store that reads a row knows its columns and gives them their types in one place.
Row: TypeAlias = Mapping[str, Any]
Value: TypeAlias = str | int | bytes | bool | None
Parameter: TypeAlias = Value | Sequence[str] | Sequence[int]

T = TypeVar("T")


class ReadTransaction(Protocol):
    """A snapshot of the database, read only."""

    async def fetch_all(self, statement: Statement, **parameters: Parameter) -> list[Row]:
        """Return every row that the statement yields; the statement itself carries a LIMIT."""

    async def fetch_one(self, statement: Statement, **parameters: Parameter) -> Row | None:
        """Return the first row that the statement yields, or None."""

    async def now(self) -> Instant:
        """Return the database's clock: the only clock that due times are compared with."""


class Transaction(ReadTransaction, Protocol):
    """An open transaction that may write."""

    async def execute(self, statement: Statement, **parameters: Parameter) -> int:
        """Run a statement and return how many rows it changed."""

    async def execute_rows(
        self, statement: RowStatement, rows: Sequence[Mapping[str, Value]]
    ) -> None:
        """Run the statement once for each row, as one set where the engine can.

        Every row names every parameter of the statement. The order of rows is the order of locks,
        so callers sort them.
        """

    async def fetch_rows(
        self, statement: RowStatement, rows: Sequence[Mapping[str, Value]]
    ) -> list[Row]:
        """Do as `execute_rows`, and return what its RETURNING clause yields, in no set order.

        This is how a guarded statement tells for which rows its guard held.
        """

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Call back on the event loop once the commit is certain; never on a rollback."""


class Database(Protocol):
    """An engine that runs transactions."""

    async def transact(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        """Run `work` in a transaction, commit it, and return its answer.

        The work may be run more than once: the engine retries a whole transaction when the
        database asks for it (a serialization failure, a deadlock). A work that raises is rolled
        back. The commit goes through even if the caller is cancelled meanwhile.

        Raises:
            StoreUnavailableError: the database is away, full or busy; nothing is known to be
                committed.
            ConstraintViolatedError: a row broke a rule of the schema; nothing was committed.
        """

    async def read(self, work: Callable[[ReadTransaction], Awaitable[T]]) -> T:
        """Run `work` on a snapshot, beside the writers.

        Raises:
            StoreUnavailableError: the database is away.
        """

    async def close(self) -> None:
        """Finish what is in hand and release the files or connections."""


class StoreUnavailableError(Exception):
    """The database cannot serve now; the same work may succeed later. Never counts as a try."""


class ConstraintViolatedError(Exception):
    """A statement broke a UNIQUE, CHECK or NOT NULL rule of the schema."""
