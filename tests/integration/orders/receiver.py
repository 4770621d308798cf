"""A receiver of webhooks: a small HTTP server on a port of its own, which answers as it is told."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Self

# What a test scripts instead of a whole answer.
HANG = b"hang"
DRIP = b"drip"

OK = b"HTTP/1.1 204 No Content\r\n\r\n"
FAILURE = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 4\r\n\r\noops"
GARBAGE = b"this is not HTTP\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Hook:
    """One request as it arrived."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def message_id(self) -> str:
        """The delivery's identity."""
        return self.headers["webhook-id"]


@dataclass
class WebhookReceiver:
    """What arrived, and what is answered: the script first, then `otherwise`."""

    script: list[bytes] = field(default_factory=list)
    otherwise: bytes = OK
    hooks: list[Hook] = field(default_factory=list)
    connections_count: int = 0
    url: str = ""

    @property
    def message_ids(self) -> list[str]:
        """What arrived, in order."""
        return [hook.message_id for hook in self.hooks]

    @asynccontextmanager
    async def listen(self) -> AsyncIterator[Self]:
        """Serve as long as the context lasts."""
        tasks: set[asyncio.Task[None]] = set()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            tasks.add(task)
            self.connections_count += 1
            try:
                await self._serve(reader, writer)
            except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
                pass  # the client is gone, or the test is over
            finally:
                tasks.discard(task)
                writer.close()
                with contextlib.suppress(ConnectionError):
                    await writer.wait_closed()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/hooks"
        try:
            yield self
        finally:
            server.close()
            for task in list(tasks):
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            request_line, *lines = head.strip().split("\r\n")
            headers = {name.lower(): text for name, text in (line.split(": ", 1) for line in lines)}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            self.hooks.append(Hook(request_line.split(" ")[1], headers, body))
            answer = self.script.pop(0) if self.script else self.otherwise
            if answer == HANG:
                await asyncio.Event().wait()
            if answer == DRIP:
                writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
                await writer.drain()
                await asyncio.Event().wait()
            writer.write(answer)
            await writer.drain()
