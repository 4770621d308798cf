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

        It may return before the rows are written. What they break is raised here, by the next
        statement, or at the end of the work; nothing is committed then.
        """

    async def fetch_rows(
        self, statement: RowStatement, rows: Sequence[Mapping[str, Value]]
    ) -> list[Row]:
        """Do as `execute_rows`, and return what its RETURNING clause yields, in no set order.

        This is how a guarded statement tells for which rows its guard held.
        """

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Call back on the event loop once the commit is certain; never on a rollback."""


class Session(Protocol):
    """One connection of its own, with the locks that live exactly as long as it does.

    For a loop of which several may run, each for a part of the work: what it holds, reads and
    writes goes over this one connection, so nobody works on a part whose lock is gone.
    """

    @property
    def used_within_s(self) -> float | None:
        """Use it at least this often: who does not is taken for dead, and loses its locks.

        None is never: there is nobody to lose them to.
        """

    async def hold_share(self, name: str, *, part_count: int) -> frozenset[int]:
        """Hold this session's fair share of the parts `0..part_count-1`, and return what it holds.

        Parts that are free are taken, up to the share; what is held above it is given back. All
        sessions that ask under one name share the parts; two never hold the same one. To be asked
        again and again: others come and go. Nothing of a part may be under way while asking.

        Raises:
            StoreUnavailableError: the connection is lost, and with it every lock.
        """

    async def transact(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        """Do as `Database.transact`, on this connection and no other.

        The work is run again only where the database asks for it (a serialization failure, a
        deadlock): never on another connection, which would not have the locks.

        Raises:
            CommitUnknownError: the work is committed, or not; the connection is lost, and with it
                every lock.
            StoreUnavailableError: nothing was committed. As a rule the connection is lost, and
                with it every lock; after too long a wait for a row's lock it is not.
            ConstraintViolatedError: a row broke a rule of the schema; nothing was committed.
        """

    async def execute(self, statement: Statement, **parameters: Parameter) -> int:
        """Do as `transact` with nothing but this statement; return how many rows it changed.

        Across a network it is one round trip, where a transaction takes three at least.
        """

    async def fetch_all(self, statement: Statement, **parameters: Parameter) -> list[Row]:
        """Return every row that the statement, which only reads, yields on a snapshot of its own.

        Raises:
            StoreUnavailableError: the connection is lost, and with it every lock; or the statement
                took too long.
        """

    async def close(self) -> None:
        """End the connection, and with it every lock."""


class Database(Protocol):
    """An engine that runs transactions."""

    async def transact(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        """Run `work` in a transaction, commit it, and return its answer.

        The work may be run more than once: the engine runs a whole transaction again, where nothing
        of it was committed, when the database asks for it (a serialization failure, a deadlock),
        when a unique key was taken meanwhile, and when the connection ended before COMMIT. A work
        that raises is rolled back. The commit goes through even if the caller is cancelled
        meanwhile.

        Raises:
            CommitUnknownError: the work is committed, or not; run it again to know.
            StoreUnavailableError: the database is away, full or busy; of the subclasses only the
                one above leaves open whether anything was committed.
            ConstraintViolatedError: a row broke a rule of the schema; nothing was committed.
        """

    async def read(self, work: Callable[[ReadTransaction], Awaitable[T]]) -> T:
        """Run `work` on a snapshot, beside the writers; it may be run more than once.

        Raises:
            StoreUnavailableError: the database is away.
        """

    async def open_session(self, *, on_lost: Callable[[], None]) -> Session:
        """Return a connection of its own.

        Args:
            on_lost: Called on the event loop, at once, when the connection ends by itself.

        Raises:
            TransactionPoolerError: there is no connection of one's own to be had.
            StoreTooOldError: the database is of a version that lacks something.
            StoreUnavailableError: the database is away.
        """

    async def close(self) -> None:
        """Finish what is in hand and release the files or connections."""


class StoreUnavailableError(Exception):
    """The database cannot serve now; the same work may succeed later. Never counts as a try."""


class StoreBusyError(StoreUnavailableError):
    """The database serves, but this work met something that somebody else holds, or took too long.

    Other work may pass: whoever runs several together runs them one by one, so that nobody waits
    for the one that cannot.
    """


class StoreOverloadedError(StoreUnavailableError):
    """The database may be well, but all connections to it are in use: there is too much to do."""


class StoreTooOldError(StoreUnavailableError):
    """The database is of a version that lacks something; the message names the oldest that will do.

    Somebody has to upgrade it.
    """


class CommitUnknownError(StoreUnavailableError):
    """The answer did not come, to COMMIT or to a statement alone: all is committed, or nothing.

    Whoever runs the same work again meets its own unique keys, and these tell which.
    """


class TransactionPoolerError(StoreUnavailableError):
    """A session was opened through a pooler that gives each transaction another connection."""


class ConstraintViolatedError(Exception):
    """A statement broke a UNIQUE, CHECK or NOT NULL rule of the schema."""
