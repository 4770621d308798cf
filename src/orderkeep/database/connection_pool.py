"""The few connections that all transactions of a process share.

Invariant: at most `size` connections are open or being opened, and one that has ended is never
handed out. Whoever waits is served in turn, those who give way after the others. Who waits for an
answer to a person waits for a moment only: beyond what the database can do, more waiting helps
nobody, and a refusal with `Retry-After` does.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from orderkeep.database.postgresql_connection import end_connection
from orderkeep.database.transaction import StoreOverloadedError
from orderkeep.database.turns import Turns, gives_way

if TYPE_CHECKING:
    from orderkeep.database.postgresql_connection import Connection

# A loop behind has time; but should connections not come back at all, it is better told.
_WAIT_BEHIND_S = 10.0

_CLOSE_S_MAX = 1.0


class ConnectionPool:
    """Connections, opened when they are needed and kept for the next who needs one."""

    def __init__(
        self, connect: Callable[[], Awaitable["Connection"]], *, size: int, wait_s: float
    ) -> None:
        """Open nothing yet.

        Args:
            connect: Opens one.
            size: How many there may be, at least 1.
            wait_s: How long to wait for one when all are in use.
        """
        self._connect = connect
        self._size = size
        self._wait_s = wait_s
        # Those in use and those being opened.
        self._taken_count = 0
        # The one used last is used next: the others may be left to grow cold.
        self._idle: list[Connection] = []
        self._waiting: Turns[asyncio.Future[None]] = Turns()

    async def take(self) -> "Connection":
        """Return a connection, which the caller gives back or ends.

        Raises:
            StoreOverloadedError: all are in use, and remain so.
            StoreUnavailableError: one was to be opened, and could not be.
        """
        if self._taken_count < self._size:
            self._taken_count += 1
        else:
            await self._wait()
        try:
            while self._idle:
                connection = self._idle.pop()
                if not connection.is_closed():
                    return connection
            return await self._connect()
        except BaseException:
            self._pass_on()
            raise

    def give_back(self, connection: "Connection") -> None:
        """Let others have the connection, unless it has ended."""
        if not connection.is_closed():
            self._idle.append(connection)
        self._pass_on()

    def drop_idle(self) -> None:
        """End the connections that nobody uses: what ended another may have ended them unnoticed.

        A server that has moved, or a network that drops what it carried, says nothing; each of
        them would cost somebody a time limit.
        """
        while self._idle:
            self._idle.pop().terminate()

    async def close(self) -> None:
        """End the connections that nobody uses; nobody takes one any more."""
        idle, self._idle = self._idle, []
        for connection in idle:
            await end_connection(connection, within_s=_CLOSE_S_MAX)

    async def _wait(self) -> None:
        """Wait until somebody passes on a place among the taken ones."""
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(place)
        wait_s = _WAIT_BEHIND_S if gives_way() else self._wait_s
        try:
            await asyncio.wait([place], timeout=wait_s)
        except BaseException:
            if not place.cancel():
                self._pass_on()
            raise
        if place.cancel():
            message = f"all {self._size} connections to PostgreSQL are in use"
            raise StoreOverloadedError(message)

    def _pass_on(self) -> None:
        while (place := self._waiting.begin()) is not None:
            if not place.done():  # done: whoever waited has given up
                place.set_result(None)
                return
        self._taken_count -= 1
