"""A way to PostgreSQL that can be cut at the worst moment: when COMMIT has arrived."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit, urlunsplit

from tests.condition import eventually

# The whole statement: the words that begin a transaction have it in them.
_COMMIT = b"COMMIT\x00"


class CuttingProxy:
    """Passes on what it gets.

    Attributes:
        url: Where it listens.
        cuts_count: How many of the coming answers to COMMIT are lost, and the connection with them.
        cut_count: How many were.
    """

    def __init__(self, target_url: str) -> None:
        self._target = urlsplit(target_url)
        self.url = ""
        self.cuts_count = 0
        self.cut_count = 0
        self._links: set[_Link] = set()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["CuttingProxy"]:
        server = await asyncio.start_server(self._link, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        netloc = f"{self._target.username}@127.0.0.1:{port}"
        self.url = urlunsplit(self._target._replace(netloc=netloc))
        try:
            yield self
        finally:
            server.close()
            await eventually(lambda: not self._links)

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = _Link()
        self._links.add(link)
        there_reader, there_writer = await asyncio.open_connection(
            self._target.hostname, self._target.port
        )
        answering = asyncio.create_task(self._answer(link, there_reader, writer))
        while data := await reader.read(65_536):
            if self.cuts_count > 0 and _COMMIT in data:
                self.cuts_count -= 1
                link.is_cut = True
            there_writer.write(data)
            await there_writer.drain()
        there_writer.close()
        await answering
        self._links.discard(link)

    async def _answer(
        self, link: "_Link", reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while data := await reader.read(65_536):
            if link.is_cut:
                # The server has carried it out; nobody hears of it.
                self.cut_count += 1
                break
            writer.write(data)
            await writer.drain()
        writer.close()


class _Link:
    """One client's connection."""

    is_cut = False
