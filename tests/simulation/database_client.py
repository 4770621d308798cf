"""The database port of one simulated process, over the simulated server."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from orderkeep.database.statement import Statement
from orderkeep.database.transaction import (
    CommitUnknownError,
    Parameter,
    ReadTransaction,
    Row,
    StoreBusyError,
    StoreUnavailableError,
    Transaction,
)
from tests.simulation.database_server import AbortedError, DatabaseServer

if TYPE_CHECKING:
    from tests.simulation.process import Process

T = TypeVar("T")

# As the engine across the network: a whole transaction is run again so often.
_TRIES_MAX = 5

_ABORTED_PAUSE_S = 0.02

# Statements that an aborted transaction ran before; most have fewer than twice as many.
_STATEMENTS_COUNT = 12

# A session is used more often than this, or its locks may be taken from it.
USED_WITHIN_S = 5.0


class SimulatedDatabase:
    """What one process sees of the server."""

    def __init__(self, server: DatabaseServer, *, process: "Process") -> None:
        self._server = server
        self._process = process
        self._faults = server.faults
        self._draws = process.draws

    async def transact(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        """Run the work in a transaction, as the port promises."""
        aborts_count = 0
        while True:
            try:
                return await self.attempt(work)
            except AbortedError as error:
                aborts_count += 1
                if aborts_count == _TRIES_MAX:
                    raise StoreBusyError(str(error)) from error
            await asyncio.sleep(_ABORTED_PAUSE_S * (1 + self._draws.random()))

    async def read(self, work: Callable[[ReadTransaction], Awaitable[T]]) -> T:
        """Run the work on a snapshot."""
        await self._travel()
        self._server.check_up()
        if self._faults.happens("database-away"):
            message = "the connection ended"
            raise StoreUnavailableError(message)
        return self._server.read(work)

    async def open_session(self, *, on_lost: Callable[[], None]) -> "SimulatedSession":
        """Open a session."""
        await self._travel()
        self._server.check_up()
        return SimulatedSession(self, server=self._server, process=self._process, on_lost=on_lost)

    async def close(self) -> None:
        """Hold nothing."""

    async def attempt(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        """Run the work once.

        Raises:
            AbortedError: the server asks for it to be run again.
            CommitUnknownError: nobody knows.
            StoreUnavailableError: nothing was committed.
        """
        await self._travel()
        server = self._server
        server.check_up()
        fault = self._faults.one_of(
            "database-away",
            "database-busy",
            "serialization-failure",
            "commit-unknown-and-done",
            "commit-unknown-and-undone",
        )
        if fault == "database-away":
            message = "the connection ended"
            raise StoreUnavailableError(message)
        if fault == "database-busy":
            message = "canceling statement due to lock timeout"
            raise StoreBusyError(message)
        outages_count = server.outages_count
        answer, callbacks = server.run(
            work,
            abort_after_count=self._draws.randrange(_STATEMENTS_COUNT)
            if fault == "serialization-failure"
            else None,
            is_undone=fault == "commit-unknown-and-undone",
        )
        self._process.note("commit", server.watch.commits_count)
        await self._travel()
        if fault is not None or server.outages_count != outages_count:
            message = f"the answer to COMMIT did not come ({fault or 'outage'})"
            raise CommitUnknownError(message)
        for callback in callbacks:
            callback()
        return answer

    async def _travel(self) -> None:
        """Take as long as a message to the server and back may take."""
        latency_s = self._process.world_latency_s * (0.5 + self._draws.random())
        if self._faults.happens("database-slow"):
            latency_s += 3 * self._draws.random()
        await self._process.pause(latency_s)


class SimulatedSession:
    """A connection of its own, and the parts that it holds."""

    used_within_s: float | None = USED_WITHIN_S

    def __init__(
        self,
        database: SimulatedDatabase,
        *,
        server: DatabaseServer,
        process: "Process",
        on_lost: Callable[[], None],
    ) -> None:
        self._database = database
        self._server = server
        self._process = process
        self._on_lost = on_lost
        self._is_lost = False
        self._number = server.register(self.lose)
        process.sessions[self._number] = self

    async def hold_share(self, name: str, *, part_count: int) -> frozenset[int]:
        """Hold this session's fair share of the parts."""
        await self._database._travel()
        self._check()
        return self._server.hold_share(self._number, name, part_count=part_count)

    async def transact(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        """Run the work on this connection."""
        self._check()
        aborts_count = 0
        while True:
            try:
                # Looked at again by the server itself: a session that is gone runs nothing.
                answer = await self._database.attempt(self._guarded(work))
                self._check_answer()
            except AbortedError as error:
                aborts_count += 1
                if aborts_count == _TRIES_MAX:
                    raise StoreBusyError(str(error)) from error
            except StoreUnavailableError as error:
                if not isinstance(error, StoreBusyError):
                    self.lose()
                raise
            else:
                return answer

    async def execute(self, statement: Statement, **parameters: Parameter) -> int:
        """Run the statement on this connection."""
        return await self.transact(lambda transaction: transaction.execute(statement, **parameters))

    async def fetch_all(self, statement: Statement, **parameters: Parameter) -> list[Row]:
        """Run the statement on this connection."""
        self._check()
        if self._database._faults.happens("session-lost"):
            self.lose()
        try:
            rows = await self._database.read(
                lambda transaction: transaction.fetch_all(statement, **parameters)
            )
            self._check()
        except StoreUnavailableError:
            self.lose()
            raise
        return rows

    async def close(self) -> None:
        """End the connection, and with it every lock."""
        self._is_lost = True
        self._end()

    def lose(self) -> None:
        """End by itself: the locks are free at once, and the process hears of it."""
        if self._is_lost:
            return
        self._is_lost = True
        self._end()
        self._process.hear(self._on_lost)

    def forget(self) -> None:
        """End with the process, which hears of nothing any more."""
        self._is_lost = True
        self._end()

    def _end(self) -> None:
        self._server.release(self._number)
        self._process.sessions.pop(self._number, None)

    def _guarded(
        self, work: Callable[[Transaction], Awaitable[T]]
    ) -> Callable[[Transaction], Awaitable[T]]:
        async def guarded(transaction: Transaction) -> T:
            self._check()
            return await work(transaction)

        return guarded

    def _check(self) -> None:
        if self._is_lost:
            message = "the session is lost"
            raise StoreUnavailableError(message)

    def _check_answer(self) -> None:
        if self._is_lost:
            message = "the session was lost before the answer to COMMIT came"
            raise CommitUnknownError(message)
