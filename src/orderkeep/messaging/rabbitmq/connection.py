"""One connection to RabbitMQ: pika's, with what it reads and writes changed in four places.

1. The properties of a message that comes in are left as bytes. pika would decode them for every
   message, and loses what it cannot express.
2. A publication is written as frames that are encoded already: `frames.py`.
3. What is written together leaves together: a batch of messages is one write, not one for each.
4. `drop` ends the connection at once, and takes back even what the kernel has not sent yet.

Invariant: after `drop` nothing that was written before reaches the broker, except what the network
already carries.
"""

import asyncio
import logging
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Protocol

import pika
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.exceptions import AMQPConnectionError
from pika.frame import Frame, Header, Method, ProtocolHeader, decode_frame
from pika.spec import Connection as ConnectionMethods

from orderkeep.messaging.broker import BrokerRefusedError
from orderkeep.messaging.column_text import error_words
from orderkeep.messaging.rabbitmq.frames import CONTENT_HEADER, FRAME_END, FRAME_HEADER, HEADER_TYPE
from orderkeep.messaging.rabbitmq.options import RabbitOptions
from orderkeep.messaging.rabbitmq.properties import RawProperties

_CONTENT_HEADER_TYPE = bytes((HEADER_TYPE,))

# Closing a socket that lingers for no time drops what it has not sent.
_LINGER_NOT = struct.pack("ii", 1, 0)

# Beyond the connection's own time limits, for a resolver that never answers.
_RESOLVE_S_MAX = 5.0


class ConnectFailedError(Exception):
    """An address could not be connected to."""


class DroppedError(AMQPConnectionError):
    """We ended the connection ourselves, without a goodbye."""


class _Socket(Protocol):
    def setsockopt(self, level: int, option: int, value: bytes) -> None: ...

    def close(self) -> None: ...


class _Transport(Protocol):
    _sock: _Socket


class Connection(AsyncioConnection):
    """A connection as this package uses it.

    Attributes:
        blocked_reason: Why the broker takes no messages now, or None if it does.
        on_alarm: Told when that changes.
    """

    if TYPE_CHECKING:
        # Of pika's, what its types leave out. A test holds them to the installed pika.
        bytes_sent: int
        frames_sent: int
        _frame_buffer: bytes
        _transport: _Transport | None

        def _adapter_emit_data(self, data: bytes) -> None: ...

        def _terminate_stream(self, error: Exception | None) -> None: ...

    blocked_reason: str | None = None
    on_alarm: Callable[["Connection"], None] | None = None
    _gathered: list[bytes] | None = None

    def watch_alarms(self) -> None:
        """Keep `blocked_reason` as the broker tells; called once, on an open connection."""
        self.add_on_connection_blocked_callback(_note_blocked)
        self.add_on_connection_unblocked_callback(_note_unblocked)

    @property
    def frame_size_max(self) -> int:
        """The largest frame that was agreed on, in bytes."""
        size: int = self.params.frame_max
        return size

    @contextmanager
    def gathered_writes(self) -> Iterator[None]:
        """Write what is written in the context in one go, at its end."""
        self._gathered = []
        try:
            yield
        finally:
            gathered, self._gathered = self._gathered, None
            if gathered:
                self._emit(b"".join(gathered))

    def write_frames(self, frames: Sequence[bytes]) -> None:
        """Write frames that are encoded already."""
        self._output_marshaled_frames(frames)

    def drop(self, reason: str) -> None:
        """End the connection now, with nothing flushed; it counts as lost soon after."""
        transport = self._transport
        if transport is None or self.is_closed:
            return
        connected = transport._sock  # noqa: SLF001 (pika has no other way to it)
        self._terminate_stream(DroppedError(reason))
        with suppress(OSError):
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
        connected.close()

    def _output_marshaled_frames(self, marshaled_frames: Sequence[bytes]) -> None:
        """Write frames; called by pika."""
        data = b"".join(marshaled_frames)
        self.bytes_sent += len(data)
        self.frames_sent += len(marshaled_frames)
        if self._gathered is None:
            self._emit(data)
        else:
            self._gathered.append(data)

    def _emit(self, data: bytes) -> None:
        try:
            self._adapter_emit_data(data)
        except RuntimeError as error:
            # A reset behind much that was not read yet: uvloop lets pika read a part of it and then
            # lets go of the socket, and nobody tells pika. A little later, for pika is in the
            # middle of something, and would go on with it on a connection that has ended.
            asyncio.get_running_loop().call_soon(self.drop, error_words(error))

    def _read_frame(self) -> tuple[int, Frame | ProtocolHeader | None]:
        """Return the first frame of what has come in, and its length; called by pika."""
        buffer = self._frame_buffer
        if buffer[:1] != _CONTENT_HEADER_TYPE or len(buffer) < FRAME_HEADER.size:
            return decode_frame(buffer)
        _type, channel_number, size = FRAME_HEADER.unpack_from(buffer)
        start = FRAME_HEADER.size
        end = start + size
        if end >= len(buffer):
            return 0, None
        if buffer[end : end + 1] != FRAME_END:
            # pika knows what to do about it.
            return decode_frame(buffer)
        _class, _weight, body_size = CONTENT_HEADER.unpack_from(buffer, start)
        properties = RawProperties(buffer[start + CONTENT_HEADER.size : end])
        return end + 1, Header(channel_number, body_size, properties)


def parameters_of(url: str, *, options: RabbitOptions, name: str) -> pika.URLParameters:
    """Return what pika needs to connect to an `amqp://` or `amqps://` address.

    The certificate behind an `amqps://` address is verified, by the authorities of the system, or
    by those of `?ssl_options={'cafile': PATH}`.

    Args:
        url: The address.
        options: How long anything may take.
        name: Of the connection, as the broker's operator sees it.

    Raises:
        BrokerRefusedError: the address is none.
    """
    try:
        parameters = pika.URLParameters(url)
    except (ValueError, TypeError, SyntaxError, AttributeError) as error:
        # The library's words may quote the address, and so the password.
        message = (
            "an address in ORDERKEEP_BROKER_URL cannot be read: look at what stands behind its `?`,"
            " of which only what RabbitMQ's own documents name is known"
        )
        raise BrokerRefusedError(message) from error
    parameters.heartbeat = options.heartbeat_s
    parameters.socket_timeout = options.connect_timeout_s
    parameters.stack_timeout = options.connect_timeout_s
    parameters.connection_attempts = 1
    parameters.retry_delay = 0
    # We decide ourselves what to do about an alarm.
    parameters.blocked_connection_timeout = None
    parameters.client_properties = {"connection_name": name, "product": "Orderkeep"}
    return parameters


def address_of(parameters: pika.URLParameters) -> str:
    """Return the address as log lines show it, without the password."""
    scheme = "amqp" if parameters.ssl_options is None else "amqps"
    return f"{scheme}://{parameters.host}:{parameters.port}/{parameters.virtual_host.strip('/')}"


async def connect(parameters: pika.URLParameters) -> Connection:
    """Return an open connection.

    Raises:
        ConnectFailedError: there is none to be had at this address now.
    """
    # Whatever pika has to say reaches us as an error or an event, and then the log.
    logging.getLogger("pika").setLevel(logging.CRITICAL)
    loop = asyncio.get_running_loop()
    opened: asyncio.Future[Connection] = loop.create_future()

    def note(result: AsyncioConnection | Exception) -> None:
        if isinstance(result, Connection):
            if opened.done():
                # Nobody waits for it any more.
                result.drop("it came too late")
            else:
                opened.set_result(result)
        elif not opened.done():
            opened.set_exception(ConnectFailedError(_words(result)))

    workflow = Connection.create_connection([parameters], on_done=note, custom_ioloop=loop)
    limit_s = (parameters.socket_timeout or 0) + _RESOLVE_S_MAX
    try:
        async with asyncio.timeout(limit_s):
            connection = await opened
    except TimeoutError as error:
        message = f"no answer within {limit_s:g} s"
        raise ConnectFailedError(message) from error
    except asyncio.CancelledError:
        if opened.done() and not opened.cancelled() and opened.exception() is None:
            opened.result().drop("it came too late")
        raise
    finally:
        if opened.cancelled():
            # Whoever asked has given up, or the time is over. Where the handshake is under way,
            # pika 1.3 does not abort but asserts; what comes of it then is dropped when it comes.
            with suppress(AssertionError):
                workflow.abort()
    connection.watch_alarms()
    return connection


def _note_blocked(connection: AsyncioConnection, frame: Method[ConnectionMethods.Blocked]) -> None:
    _note_alarm(connection, str(frame.method.reason or "an alarm"))


def _note_unblocked(
    connection: AsyncioConnection, _frame: Method[ConnectionMethods.Unblocked]
) -> None:
    _note_alarm(connection, None)


def _note_alarm(connection: AsyncioConnection, reason: str | None) -> None:
    assert isinstance(connection, Connection)
    connection.blocked_reason = reason
    if connection.on_alarm is not None:
        connection.on_alarm(connection)


def _words(error: object) -> str:
    """Return what went wrong, from the bottom of what pika has wrapped around it."""
    while True:
        inner = getattr(error, "exception", None)
        many = getattr(error, "exceptions", None)
        if isinstance(inner, BaseException):
            error = inner
        elif many:
            error = many[-1]
        else:
            return error_words(error) if isinstance(error, BaseException) else str(error)
