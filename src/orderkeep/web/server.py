"""Serves an ASGI application over HTTP inside an event loop that somebody else owns.

The port is taken before anything starts, so that a port in use is one clear error and not half a
service. Signals belong to whoever runs the loop: the server stops when it is told to.
"""

import asyncio
import contextlib
import errno
import socket
from collections.abc import Iterator
from dataclasses import dataclass

import uvicorn
from litestar.types import ASGIApp

from orderkeep.web.connection import KEEP_ALIVE_S, BoundedConnection
from orderkeep.web.door import Door

# Connections that wait to be accepted; the kernel cuts it to its own limit.
_BACKLOG = 2048
# libuv accepts one connection for each turn of the loop and each descriptor. While a turn takes
# tens of milliseconds that is too few: those who come wait in the kernel, where nobody refuses
# them, until it drops them too. Each further descriptor is of the same port.
_ACCEPTED_COUNT_MAX = 32


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
    application: ASGIApp,
    listener: Listener,
    *,
    stop: asyncio.Event,
    shutdown_s: float,
    door: Door | None = None,
) -> None:
    """Serve until told to stop; then finish what is in hand, and close.

    Args:
        application: Answers the requests that are let in.
        door: Says which are; None lets all in.
        listener: The port, as `listen` took it; closed at the end.
        stop: Set to end: no further connection is taken from then on.
        shutdown_s: How long requests in hand may take to finish; then they are cancelled.
    """
    connection = type("Connection", (BoundedConnection,), {"door": door})
    server = _Server(
        uvicorn.Config(
            application,
            http=connection,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            server_header=False,
            # Nothing here trusts what a header says of the client's address.
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_S,
        )
    )
    # uvicorn counts whole seconds, of which ours may be a fraction.
    server.config.timeout_graceful_shutdown = shutdown_s  # type: ignore[assignment]  # reason: it only hands it to asyncio.wait_for
    sockets = [listener.socket, *(listener.socket.dup() for _ in range(_ACCEPTED_COUNT_MAX - 1))]
    serving = asyncio.ensure_future(server.serve(sockets=sockets))
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        await serving
    finally:
        stopping.cancel()
        serving.cancel()
        for each in sockets:
            each.close()


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
