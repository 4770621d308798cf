"""A connection that is there when it is asked for: made, kept, and made again once it is lost.

Invariant: nobody waits here for longer than one round over the addresses. Whoever asks while a
round is under way shares it; whoever asks right after one that failed is told so at once, for a
pause that grows, so that a broker which comes back is not met by a crowd.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pika
import structlog

from orderkeep.messaging.broker import BrokerUnavailableError
from orderkeep.messaging.rabbitmq.connection import (
    ConnectFailedError,
    Connection,
    address_of,
    connect,
)
from orderkeep.messaging.retry_schedule import pause_before_attempt

log = structlog.get_logger()

# Callers pause themselves. These pauses bound how often all of them together knock; the longest is
# what they add to the time that passes until a broker is found again.
_PAUSE_BASE_S = 0.1
_PAUSE_MAX_S = 2.0

_CLOSE_S_MAX = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Failure:
    error: str
    rounds_count: int
    pause_ends_at_s: float


class Line:
    """A way to the broker for one purpose."""

    def __init__(
        self, addresses: Sequence[pika.URLParameters], *, draw_jitter: Callable[[], float]
    ) -> None:
        """Connect to the first of the addresses that answers, once somebody asks.

        Args:
            addresses: Tried in turn.
            draw_jitter: Draws 0.0..1.0 for each pause.
        """
        self._addresses = addresses
        self._draw_jitter = draw_jitter
        self._connection: Connection | None = None
        self._connecting: asyncio.Task[Connection] | None = None
        self._failure: _Failure | None = None

    async def connection(self) -> Connection:
        """Return the open connection.

        Raises:
            BrokerUnavailableError: no address can be connected to.
        """
        if self._connection is not None and self._connection.is_open:
            return self._connection
        connecting = self._connecting
        if connecting is None:
            self._refuse_during_pause()
            connecting = asyncio.create_task(self._connect())
            self._connecting = connecting
            connecting.add_done_callback(self._note_connected)
        try:
            return await asyncio.shield(connecting)
        except asyncio.CancelledError:
            if connecting.cancelled():
                message = "the connection was given up"
                raise BrokerUnavailableError(message) from None
            raise

    def drop(self, reason: str) -> None:
        """End the connection now, with nothing flushed, or the attempt to make one."""
        if self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None
        if self._connection is not None:
            self._connection.drop(reason)
            self._connection = None

    async def close(self) -> None:
        """Say goodbye, and wait a little for the broker's."""
        connecting, connection = self._connecting, self._connection
        if connecting is not None:
            connecting.cancel()
            await asyncio.wait([connecting])
        self._connection = None
        if connection is None or not connection.is_open:
            return
        closed = asyncio.Event()
        connection.add_on_close_callback(lambda _connection, _reason: closed.set())
        connection.close()
        try:
            async with asyncio.timeout(_CLOSE_S_MAX):
                await closed.wait()
        except TimeoutError:
            connection.drop("it did not answer the goodbye")

    def _refuse_during_pause(self) -> None:
        failure = self._failure
        if failure is not None and asyncio.get_running_loop().time() < failure.pause_ends_at_s:
            raise BrokerUnavailableError(failure.error)

    async def _connect(self) -> Connection:
        reasons: list[str] = []
        for parameters in self._addresses:
            try:
                connection = await connect(parameters)
            except ConnectFailedError as error:
                reasons.append(f"{address_of(parameters)}: {error}")
            else:
                if reasons:
                    log.warning("broker_addresses_failed", reasons=reasons)
                return connection
        raise BrokerUnavailableError("; ".join(reasons))

    def _note_connected(self, connecting: asyncio.Task[Connection]) -> None:
        if self._connecting is not connecting:
            self._let_go(connecting)
            return
        self._connecting = None
        if connecting.cancelled():
            return
        error = connecting.exception()
        if error is None:
            self._failure = None
            self._connection = connecting.result()
            return
        rounds_count = 1 if self._failure is None else self._failure.rounds_count + 1
        pause_s = pause_before_attempt(
            rounds_count, jitter=self._draw_jitter(), base_s=_PAUSE_BASE_S, max_s=_PAUSE_MAX_S
        )
        self._failure = _Failure(
            error=str(error),
            rounds_count=rounds_count,
            pause_ends_at_s=asyncio.get_running_loop().time() + pause_s,
        )

    def _let_go(self, given_up: asyncio.Task[Connection]) -> None:
        # It was cancelled, but may have come to an end a moment before.
        if not given_up.cancelled() and given_up.exception() is None:
            given_up.result().drop("it came too late")
