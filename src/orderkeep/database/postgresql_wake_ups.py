"""Wakes loops in other processes when there is something to do for them: LISTEN and NOTIFY.

Invariant: a wake-up is never what anything rests on. It is sent after the commit that it tells of,
outside of every transaction and waited for by none; whoever misses one finds its work by its poll.

PostgreSQL lets transactions that notify commit one after the other. So the one connection here
sends for the whole process, a moment's wake-ups in one transaction that does nothing else.

A crash loses what was not sent yet. While the connection is away wake-ups are dropped; when it is
back every loop here looks once.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from orderkeep.database.postgresql_connection import PostgresLimits, connect, end_connection
from orderkeep.database.postgresql_errors import DRIVER_ERRORS, said_by
from orderkeep.database.transaction import StoreUnavailableError

if TYPE_CHECKING:
    from orderkeep.database.postgresql_connection import Connection

log = structlog.get_logger()

_CHANNEL = "orderkeep"

_NOTIFY_SQL = "SELECT pg_notify($1, told.name) FROM unnest($2::text[]) AS told(name)"

# Sent to oneself to hear whether listening works; no loop has it for a name.
_ECHO = ""
_ECHO_S_MAX = 2.0

# At most so often: what comes within it is one wake-up. An event waits for as long before it is
# sent; and each wake-up is a transaction, and a look of every process that hears it.
_SEND_INTERVAL_S = 0.004

_PAUSE_BASE_S = 0.5
_PAUSE_MAX_S = 15.0

_ANSWER_S = 5.0
_CLOSE_S_MAX = 1.0

# On a connection where nothing is heard, somebody may have set the pooler right since.
_DEAF_PAUSE_S = 300.0


class PostgresWakeUps:
    """The wake-ups that one process sends and hears."""

    def __init__(self, url: str, *, draw_jitter: Callable[[], float]) -> None:
        """Send and hear nothing before `run`.

        Args:
            url: Past any pooler in transaction mode, which would carry no notifications.
            draw_jitter: Draws 0.0..1.0 for each pause.
        """
        self._url = url
        self._draw_jitter = draw_jitter
        self._wakes: defaultdict[str, list[Callable[[], None]]] = defaultdict(list)
        self._told: set[str] = set()
        self._changed = asyncio.Event()
        self._is_connected = False
        self._is_heard = False

    def relay(self, name: str, wake: Callable[[], None]) -> Callable[[], None]:
        """Let `wake` be called when another process tells the name.

        Returns:
            What tells the others. It returns at once, and is called on the event loop.
        """
        self._wakes[name].append(wake)

        def tell() -> None:
            if self._is_connected:
                self._told.add(name)
                self._changed.set()

        return tell

    async def run(self, stop: asyncio.Event) -> None:
        """Send and hear until the stop event is set, connecting again whenever need be."""
        stopping = asyncio.create_task(self._note_stop(stop))
        failures_count = 0
        try:
            while not stop.is_set():
                try:
                    failures_count = await self._serve(stop, failures_count=failures_count)
                except (StoreUnavailableError, *DRIVER_ERRORS) as error:
                    failures_count += 1
                    if failures_count == 1:
                        log.warning("wake_ups_lost", reason=said_by(error))
                    await _pause(stop, pause_s=self._pause_s(failures_count))
        finally:
            stopping.cancel()

    async def _serve(self, stop: asyncio.Event, *, failures_count: int) -> int:
        """Send and hear over one connection; return 0 once it was a good one."""
        connection = await connect(self._url, limits=PostgresLimits())
        try:
            connection.add_termination_listener(lambda _connection: self._changed.set())
            await connection.add_listener(_CHANNEL, self._hear)
            if not await self._is_listening(connection):
                log.warning(
                    "wake_ups_unheard",
                    hint="a pooler in transaction mode carries none: loops poll instead",
                )
                await _pause(stop, pause_s=_DEAF_PAUSE_S)
                return failures_count
            self._is_connected = True
            if failures_count:
                log.info("wake_ups_back")
            self._wake_all()
            await self._send_until(stop, connection)
            return 0
        finally:
            self._is_connected = False
            self._told.clear()
            await end_connection(connection, within_s=_CLOSE_S_MAX)

    async def _is_listening(self, connection: "Connection") -> bool:
        self._is_heard = False
        await connection.execute(_NOTIFY_SQL, _CHANNEL, [_ECHO], timeout=_ANSWER_S)
        try:
            async with asyncio.timeout(_ECHO_S_MAX):
                while not self._is_heard and not connection.is_closed():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True

    async def _send_until(self, stop: asyncio.Event, connection: "Connection") -> None:
        while not stop.is_set() and not connection.is_closed():
            self._changed.clear()
            if self._told:
                names, self._told = sorted(self._told), set()
                await connection.execute(_NOTIFY_SQL, _CHANNEL, names, timeout=_ANSWER_S)
                await asyncio.sleep(_SEND_INTERVAL_S)
            else:
                await self._changed.wait()
        if not stop.is_set():
            message = "the connection for wake-ups ended"
            raise StoreUnavailableError(message)

    def _hear(self, connection: object, pid: int, _channel: str, name: object) -> None:
        if pid == connection.get_server_pid():  # type: ignore[attr-defined]  # the driver's own
            self._is_heard = True
            self._changed.set()
            return
        for wake in self._wakes.get(str(name), ()):
            wake()

    def _wake_all(self) -> None:
        for wakes in self._wakes.values():
            for wake in wakes:
                wake()

    async def _note_stop(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._changed.set()

    def _pause_s(self, failures_count: int) -> float:
        pause_s = min(_PAUSE_BASE_S * 2.0 ** min(failures_count - 1, 10), _PAUSE_MAX_S)
        return pause_s * (0.5 + self._draw_jitter())


async def _pause(stop: asyncio.Event, *, pause_s: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), pause_s)
    except TimeoutError:
        return
