"""The engine across the network: PostgreSQL, any number of processes beside each other.

Invariant: a transaction that `transact` answered is committed on the server, as safe as that one
keeps it. A whole transaction is run again where nothing of it was committed and the reason has
nothing to do with it: the database asks for it, the connection ended, or a unique key was taken
while the work was running, which it would find now. An answer to COMMIT that
did not come is neither: `CommitUnknownError` leaves it to the keys that the work itself writes.

Transactions run at READ COMMITTED, so whatever can race is one guarded statement, or is read under
its row's lock; see CONTRIBUTING.md. Look-ups run on a snapshot (REPEATABLE READ), so that a report
of several statements tells of one moment.

A crash of the process ends its connections, and the server rolls back what was open. A server that
goes away costs each caller an error that says "not now", and is found again by the next one: no
connection that has ended is used, and none that was idle meanwhile.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, TypeVar

from orderkeep.database.connection_pool import ConnectionPool
from orderkeep.database.in_hand import InHand
from orderkeep.database.postgresql_commit import (
    ASKED_AGAIN_TRIES_MAX,
    AskedAgainError,
    ConnectionEndedError,
    KeyTakenError,
    commit_work,
    read_work,
)
from orderkeep.database.postgresql_connection import (
    PostgresLimits,
    begin,
    begin_read,
    connect,
    set_limits,
)
from orderkeep.database.postgresql_pooler import refuse_transaction_pooler
from orderkeep.database.postgresql_session import PostgresSession, opened_session
from orderkeep.database.retries import run_again
from orderkeep.database.transaction import ReadTransaction, Transaction

if TYPE_CHECKING:
    from orderkeep.database.postgresql_connection import Connection

T = TypeVar("T")

POOL_SIZE = 8

# As long as a few transactions take. Whoever waits longer is told to come back.
POOL_WAIT_S = 0.25

# Several statements at their limit, and less than a process has for its shutdown.
_CLOSE_S_MAX = 10.0

# The pool may hold one more connection that has ended unnoticed; a third such end is an outage.
_CONNECTION_ENDED_TRIES_MAX = 3

_TRIES_MAX: Mapping[type[Exception], int] = {
    AskedAgainError: ASKED_AGAIN_TRIES_MAX,
    # Once more: a work that looks before it writes then finds what was written meanwhile.
    KeyTakenError: 2,
    ConnectionEndedError: _CONNECTION_ENDED_TRIES_MAX,
}


class PostgresDatabase:
    """One PostgreSQL database, served to one event loop."""

    def __init__(
        self,
        url: str,
        *,
        direct_url: str | None = None,
        draw_jitter: Callable[[], float],
        pool_size: int = POOL_SIZE,
        pool_wait_s: float = POOL_WAIT_S,
        limits: PostgresLimits | None = None,
    ) -> None:
        """Take the database; the first transaction connects.

        Args:
            url: `postgresql://USER:PW@HOST:PORT/DB?sslmode=…`.
            direct_url: The same database past a pooler in transaction mode, which `url` then leads
                through: nothing is prepared or set beyond a transaction there. None, or the same,
                is that there is none.
            draw_jitter: Draws 0.0..1.0 for each pause.
            pool_size: How many transactions and look-ups run at once.
            pool_wait_s: How long one waits for its turn.
            limits: None takes the defaults.
        """
        self._url = url
        self._direct_url = direct_url or url
        self._is_pooled = self._direct_url != url
        self._draw_jitter = draw_jitter
        self._limits = limits or PostgresLimits()
        self._pool = ConnectionPool(self._connect, size=pool_size, wait_s=pool_wait_s)
        self._in_hand = InHand()
        self._sessions: list[PostgresSession] = []
        self._is_direct_known = False
        self._is_closed = False

    async def transact(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        """Run the work in a transaction, commit it, and return its answer."""
        begin_sql = begin(self._limits, is_pooled=self._is_pooled)

        async def attempt() -> T:
            return await self._with_connection(
                lambda connection: commit_work(
                    connection, work, begin=begin_sql, answer_s=self._limits.answer_s
                )
            )

        return await self._run(attempt)

    async def read(self, work: Callable[[ReadTransaction], Awaitable[T]]) -> T:
        """Run the work on a snapshot."""
        begin_sql = begin_read(self._limits, is_pooled=self._is_pooled)

        async def attempt() -> T:
            return await self._with_connection(
                lambda connection: read_work(
                    connection, work, begin=begin_sql, answer_s=self._limits.read_answer_s
                )
            )

        return await self._run(attempt)

    async def open_session(self, *, on_lost: Callable[[], None]) -> PostgresSession:
        """Return a connection of its own, outside the pool."""
        self._refuse_closed()
        connection = await connect(self._direct_url, limits=self._limits)
        try:
            if not self._is_direct_known:
                await refuse_transaction_pooler(
                    connection,
                    connect=lambda: connect(self._direct_url, limits=self._limits, is_pooled=True),
                )
                self._is_direct_known = True
            session = await opened_session(
                connection, limits=self._limits, draw_jitter=self._draw_jitter, on_lost=on_lost
            )
        except BaseException:
            connection.terminate()
            raise
        self._sessions = [opened for opened in self._sessions if not opened.is_closed]
        self._sessions.append(session)
        return session

    async def close(self) -> None:
        """Finish what is in hand and close the connections; what takes long is cut off."""
        self._is_closed = True
        await self._in_hand.end(within_s=_CLOSE_S_MAX)
        await self._pool.close()
        for session in self._sessions:
            await session.close()

    async def _run(self, attempt: Callable[[], Awaitable[T]]) -> T:
        self._refuse_closed()
        # A caller that is cancelled (its client hung up) must take neither the commit along nor
        # what follows from it.
        return await self._in_hand.run(
            run_again(attempt, tries_max=_TRIES_MAX, draw_jitter=self._draw_jitter)
        )

    async def _with_connection(self, use: Callable[["Connection"], Awaitable[T]]) -> T:
        connection = await self._pool.take()
        try:
            return await use(connection)
        finally:
            if connection.is_closed():
                self._pool.drop_idle()
            self._pool.give_back(connection)

    async def _connect(self) -> "Connection":
        connection = await connect(self._url, limits=self._limits, is_pooled=self._is_pooled)
        if not self._is_pooled:
            await set_limits(connection, limits=self._limits)
        return connection

    def _refuse_closed(self) -> None:
        if self._is_closed:
            message = "the database is closed"
            raise RuntimeError(message)
