"""A connection of its own, outside the pool, with the locks that live exactly as long as it does.

Invariant: a part is held by one session, through an advisory lock of that session's connection, and
all that concerns the part is read and written over the same connection. So whoever has lost its
locks cannot settle anything either. A process that is stopped, or cut off, stops using its session:
the server ends it after `idle_session_s`, and its parts are free.

Sessions know of each other by a shared lock that each of them holds under the name of what they
share. Each computes its own share from what it sees; two that see different things for a moment
only leave a part untaken, or one asks for it in vain, until they ask again.

A crash ends the connection, and with it the locks. The answer to a COMMIT that is lost leaves open
what happened, as everywhere: see `postgresql_commit.py`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, TypeVar
from zlib import crc32

from orderkeep.database.in_hand import InHand
from orderkeep.database.postgresql_commit import (
    ASKED_AGAIN_TRIES_MAX,
    AskedAgainError,
    commit_alone,
    commit_work,
    read_alone,
)
from orderkeep.database.postgresql_connection import (
    PostgresLimits,
    begin,
    end_connection,
    set_limits,
)
from orderkeep.database.postgresql_errors import DRIVER_ERRORS, said_by
from orderkeep.database.postgresql_pooler import POOLER_WORDS
from orderkeep.database.retries import run_again
from orderkeep.database.statement import Statement
from orderkeep.database.transaction import (
    Parameter,
    Row,
    StoreUnavailableError,
    Transaction,
    TransactionPoolerError,
)

if TYPE_CHECKING:
    from orderkeep.database.postgresql_connection import Connection

T = TypeVar("T")

# Whoever is in the middle of a statement when a session is closed gets this long to end it.
_CLOSE_S_MAX = 2.0

# Locks with two keys of 32 bits: here what is shared, and the part. The view has them unsigned.
_LOCKS_SQL = """
SELECT locks.objid::bigint AS part, locks.pid
FROM pg_catalog.pg_locks AS locks
WHERE locks.locktype = 'advisory' AND locks.objsubid = 2 AND locks.granted
    AND locks.classid = $1::bigint::oid
    AND locks.database = (
        SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database()
    )
"""
_ATTEND_SQL = "SELECT pg_try_advisory_lock_shared($1::int, $2::int)"
_TAKE_SQL = """
SELECT wanted.part FROM unnest($2::int[]) AS wanted(part)
WHERE pg_try_advisory_lock($1::int, wanted.part)
"""
_GIVE_BACK_SQL = """
SELECT pg_advisory_unlock($1::int, excess.part) FROM unnest($2::int[]) AS excess(part)
"""
_IDENTITY_SQL = "SELECT pg_backend_pid() AS pid, current_schema() AS schema"


class PostgresSession:
    """One connection; opened by `PostgresDatabase.open_session`."""

    def __init__(
        self,
        connection: "Connection",
        *,
        pid: int,
        schema: str,
        limits: PostgresLimits,
        draw_jitter: Callable[[], float],
        on_lost: Callable[[], None],
    ) -> None:
        """Have the connection to itself; see `opened_session`."""
        self._connection = connection
        self._pid = pid
        self._schema = schema
        self._limits = limits
        self._draw_jitter = draw_jitter
        self._on_lost = on_lost
        self._attended: set[tuple[int, int]] = set()
        self._turn = asyncio.Lock()
        self._in_hand = InHand()
        self._is_closing = False
        connection.add_termination_listener(self._note_end)

    @property
    def used_within_s(self) -> float | None:
        """Half of what the server allows: one late use is no loss."""
        return self._limits.idle_session_s / 2

    @property
    def is_closed(self) -> bool:
        """Whether the connection has ended, and with it every lock."""
        return self._connection.is_closed()

    @property
    def pid(self) -> int:
        """The number of the process that serves the connection."""
        return self._pid

    async def hold_share(self, name: str, *, part_count: int) -> frozenset[int]:
        """Hold this session's fair share of the parts; one round trip where nothing changes."""
        return await self._in_hand.run(self._hold_share(name, part_count=part_count))

    async def transact(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        """Run the work on this connection, again only where the database asks for it."""
        return await self._in_hand.run(self._transact(work))

    async def execute(self, statement: Statement, **parameters: Parameter) -> int:
        """Run the statement on this connection, again only where the database asks for it."""
        return await self._in_hand.run(self._execute(statement, parameters))

    async def fetch_all(self, statement: Statement, **parameters: Parameter) -> list[Row]:
        """Run the statement on this connection."""
        return await self._in_hand.run(self._fetch_all(statement, parameters))

    async def close(self) -> None:
        """End the connection, and with it every lock."""
        self._is_closing = True
        await self._in_hand.end(within_s=_CLOSE_S_MAX)
        await end_connection(self._connection, within_s=_CLOSE_S_MAX)

    async def _transact(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        async def attempt() -> T:
            self._check()
            return await commit_work(
                self._connection,
                work,
                begin=begin(self._limits, is_pooled=False),
                answer_s=self._limits.answer_s,
            )

        return await self._run_again(attempt)

    async def _execute(self, statement: Statement, parameters: Mapping[str, Parameter]) -> int:
        async def attempt() -> int:
            self._check()
            return await commit_alone(
                self._connection, statement, parameters, answer_s=self._limits.answer_s
            )

        return await self._run_again(attempt)

    async def _fetch_all(
        self, statement: Statement, parameters: Mapping[str, Parameter]
    ) -> list[Row]:
        async with self._turn:
            self._check()
            return await read_alone(
                self._connection, statement, parameters, answer_s=self._limits.answer_s
            )

    async def _run_again(self, attempt: Callable[[], Awaitable[T]]) -> T:
        async with self._turn:
            return await run_again(
                attempt,
                tries_max={AskedAgainError: ASKED_AGAIN_TRIES_MAX},
                draw_jitter=self._draw_jitter,
            )

    async def _hold_share(self, name: str, *, part_count: int) -> frozenset[int]:
        key = crc32(f"{self._schema}.{name}".encode())
        async with self._turn:
            self._check()
            try:
                return await self._share(key, part_count=part_count)
            except DRIVER_ERRORS as error:
                self._connection.terminate()
                message = f"the session is lost: {said_by(error)}"
                raise StoreUnavailableError(message) from error

    async def _share(self, key: int, *, part_count: int) -> frozenset[int]:
        signed_key = key - 2**32 if key >= 2**31 else key
        answer_s = self._limits.answer_s
        if (key, part_count) not in self._attended:
            await self._connection.fetch(_ATTEND_SQL, signed_key, part_count, timeout=answer_s)
            self._attended.add((key, part_count))
        rows = await self._connection.fetch(_LOCKS_SQL, key, timeout=answer_s)
        present = sorted({row["pid"] for row in rows if row["part"] == part_count})
        if self._pid not in present:
            # The lock was taken, and this connection has it not: it is served by another process.
            self._connection.terminate()
            raise TransactionPoolerError(POOLER_WORDS)
        mine = {row["part"] for row in rows if row["pid"] == self._pid} - {part_count}
        taken = {row["part"] for row in rows} - {part_count}
        rank = present.index(self._pid)
        share_count = part_count // len(present) + (rank < part_count % len(present))
        # Each begins at a place of its own, so that two that come at once seldom want the same.
        start = rank * part_count // len(present)
        places = [(start + offset) % part_count for offset in range(part_count)]
        if len(mine) > share_count:
            excess = [part for part in reversed(places) if part in mine][: len(mine) - share_count]
            await self._connection.fetch(_GIVE_BACK_SQL, signed_key, excess, timeout=answer_s)
            return frozenset(mine.difference(excess))
        wanted = [part for part in places if part not in taken][: share_count - len(mine)]
        if not wanted:
            return frozenset(mine)
        got = await self._connection.fetch(_TAKE_SQL, signed_key, wanted, timeout=answer_s)
        return frozenset(mine.union(row["part"] for row in got))

    def _check(self) -> None:
        if self._is_closing or self.is_closed:
            message = "the session to PostgreSQL has ended, and its locks with it"
            raise StoreUnavailableError(message)

    def _note_end(self, _connection: object) -> None:
        if not self._is_closing:
            self._on_lost()


async def opened_session(
    connection: "Connection",
    *,
    limits: PostgresLimits,
    draw_jitter: Callable[[], float],
    on_lost: Callable[[], None],
) -> PostgresSession:
    """Return the session on a connection that nobody else uses.

    Raises:
        StoreUnavailableError: the connection is lost already.
    """
    await set_limits(connection, limits=limits, is_session=True)
    try:
        row = await connection.fetchrow(_IDENTITY_SQL, timeout=limits.answer_s)
    except DRIVER_ERRORS as error:
        connection.terminate()
        message = f"the session is lost: {said_by(error)}"
        raise StoreUnavailableError(message) from error
    assert row is not None
    return PostgresSession(
        connection,
        pid=row["pid"],
        schema=row["schema"] or "",
        limits=limits,
        draw_jitter=draw_jitter,
        on_lost=on_lost,
    )
