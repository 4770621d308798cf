"""Serves an ASGI application over HTTP inside an event loop that somebody else owns.

The port is taken before anything starts, so that a port in use is one clear error and not half a
service. Signals belong to whoever runs the loop: the server stops when it is told to. A client that
sends endless headers, or too slowly, is cut off: it may not hold memory or a place for ever.
"""

import asyncio
import contextlib
import errno
import socket
from collections.abc import Iterator
from dataclasses import dataclass

import structlog
import uvicorn
from litestar.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

log = structlog.get_logger()

# Connections that wait to be accepted; the kernel cuts it to its own limit.
_BACKLOG = 2048

# Longer than load balancers keep an idle connection, which must not reuse one that is closing.
_KEEP_ALIVE_S = 75

# Ten times what a browser sends; llhttp itself has no limit.
HEAD_BYTES_MAX = 64 * 1024

# From the first byte to the last of a request: 64 KiB take half that at 4 KiB/s.
REQUEST_ARRIVAL_S = 30.0


class PortInUseError(Exception):
    """The address to listen on cannot be had; the message says which and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """A port that is taken, and not served yet.

    Attributes:
        url: Where to reach it, with the port that was chosen where 0 was asked for.
    """

    socket: socket.socket
    url: str

    def close(self) -> None:
        """Give the port back, if nothing has served it."""
        self.socket.close()


def listen(host: str, port: int, *, variable: str = "ORDERKEEP_HTTP_PORT") -> Listener:
    """Take the port.

    Args:
        host: A name or an address of this machine.
        port: 0 takes any that is free.
        variable: The setting that names the port, for the error.

    Raises:
        PortInUseError: somebody else has it, or it may not be taken.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        message = f"{host} is no address to listen on ({error.strerror})"
        raise PortInUseError(message) from error
    try:
        # A restart need not wait for the last run's connections to time out.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        reason = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be had ({error})"
        message = f"port {port} on {host} {reason}: stop what uses it, or set {variable} to another"
        raise PortInUseError(message) from error
    listening.settimeout(0)  # asyncio wants a socket that never blocks
    shown_host = f"[{host}]" if ":" in host else host
    return Listener(socket=listening, url=f"http://{shown_host}:{listening.getsockname()[1]}")


async def serve(
    application: ASGIApp, listener: Listener, *, stop: asyncio.Event, shutdown_s: float
) -> None:
    """Serve until told to stop; then finish what is in hand, and close.

    Args:
        application: Answers the requests.
        listener: The port, as `listen` took it; closed at the end.
        stop: Set to end: no further connection is taken from then on.
        shutdown_s: How long requests in hand may take to finish; then they are cancelled.
    """
    server = _Server(
        uvicorn.Config(
            application,
            http=_BoundedProtocol,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            server_header=False,
            # Nothing here trusts what a header says of the client's address.
            proxy_headers=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
        )
    )
    # uvicorn counts whole seconds, of which ours may be a fraction.
    server.config.timeout_graceful_shutdown = shutdown_s  # type: ignore[assignment]  # reason: it only hands it to asyncio.wait_for
    serving = asyncio.ensure_future(server.serve(sockets=[listener.socket]))
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        await serving
    finally:
        stopping.cancel()
        serving.cancel()
        listener.close()


class _BoundedProtocol(HttpToolsProtocol):
    """uvicorn's connection, with bounds on how large a request's head is and how long it takes."""

    _deadline: asyncio.TimerHandle | None = None
    _is_in_head = False
    _head_bytes_count = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # reason: as uvicorn has it
        super().connection_made(transport)
        self._set_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        self._clear_deadline()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._is_in_head:
            self._head_bytes_count = 0
            return
        self._head_bytes_count += len(data)
        if self._head_bytes_count > HEAD_BYTES_MAX:
            log.warning("request_head_too_large")
            self.send_400_response("The headers are too large.")

    def on_message_begin(self) -> None:
        self._is_in_head = True
        self._set_deadline()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._clear_deadline()
        super().on_message_complete()

    def _set_deadline(self) -> None:
        self._clear_deadline()
        self._deadline = self.loop.call_later(REQUEST_ARRIVAL_S, self.transport.close)

    def _clear_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
