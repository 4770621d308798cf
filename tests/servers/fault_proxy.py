"""A way to a server that can be made bad: slow, silent, cut, or cut at the worst moment.

    with ProxyThread("postgresql://postgres@127.0.0.1:5432/shop") as proxy:
        connect(proxy.url)
        proxy.cut_answers_to(COMMIT, count=1)

The worst moment is when a request has arrived and its answer has not: the server has carried out
what its client never learns of. So an answer is cut off only after the request was passed on.
"""

import asyncio
import socket
import struct
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Self, TypeVar
from urllib.parse import urlsplit, urlunsplit

# PostgreSQL: the whole statement, for the words that begin a transaction have it in them.
COMMIT = b"COMMIT\x00"

# AMQP: class and method of `basic.publish`; what answers it is the confirm.
PUBLISH = b"\x00\x3c\x00\x28"

# Whoever closes a connection so resets it.
_NO_LINGER = struct.pack("ii", 1, 0)

_READ_BYTES_MAX = 65_536
_CONNECT_S_MAX = 5.0
_END_S_MAX = 10.0

T = TypeVar("T")


class FaultProxy:
    """Passes on what it gets, as long as it is not told otherwise.

    Attributes:
        url: Where it listens.
        delay_s: How much later everything arrives, either way.
        cut_counts: How many connections were cut, by why: `cut`, `answer`, `swallowed`.
        cuts_count: How many of the coming answers to COMMIT are lost, and the connection with them.
    """

    def __init__(self, target_url: str) -> None:
        self._target = urlsplit(target_url)
        self.url = ""
        self.delay_s = 0.0
        self.cut_counts: Counter[str] = Counter()
        self.cuts_count = 0
        self._pattern = COMMIT
        self._is_silent = False
        self._links: set[_Link] = set()

    @property
    def cut_count(self) -> int:
        """How many connections were cut."""
        return self.cut_counts.total()

    def cut_answers_to(self, pattern: bytes, *, count: int) -> None:
        """Lose so many of the coming answers to what has the pattern, each with its connection."""
        self._pattern = pattern
        self.cuts_count = count

    def cut(self) -> int:
        """Cut every connection there is, as a machine that restarts does; return how many."""
        return self._cut(self._links, why="cut")

    def swallow(self) -> None:
        """Let nothing through any more, and say nothing of it: what is sent is gone."""
        self._is_silent = True

    def heal(self) -> int:
        """Pass on everything again; cut what lost something, and return how many that were.

        What was swallowed cannot be given back: a connection that went on would lack it.
        """
        self._is_silent = False
        self.delay_s = 0.0
        self.cuts_count = 0
        return self._cut({link for link in self._links if link.has_lost}, why="swallowed")

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Self]:
        """Listen, as long as the context lasts."""
        server = await asyncio.start_server(self._link, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        user, _, _ = self._target.netloc.rpartition("@")
        netloc = f"{user}@127.0.0.1:{port}" if user else f"127.0.0.1:{port}"
        self.url = urlunsplit(self._target._replace(netloc=netloc))
        try:
            yield self
        finally:
            server.close()
            links = list(self._links)
            for link in links:
                link.close()
            if tasks := [link.task for link in links if link.task is not None]:
                await asyncio.wait(tasks, timeout=_END_S_MAX)

    def _cut(self, links: "set[_Link]", *, why: str) -> int:
        for link in list(links):
            link.abort()
        self.cut_counts[why] += len(links)
        return len(links)

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = _Link(writer)
        link.task = asyncio.current_task()
        self._links.add(link)
        try:
            async with asyncio.timeout(_CONNECT_S_MAX):
                there_reader, there = await asyncio.open_connection(
                    self._target.hostname, self._target.port
                )
            link.there = there
            answering = asyncio.create_task(self._answer(link, there_reader))
            await self._ask(link, reader)
            await answering
        except (OSError, TimeoutError):
            # The server is away: whoever comes finds nobody.
            link.abort()
        finally:
            link.close()
            self._links.discard(link)

    async def _ask(self, link: "_Link", reader: asyncio.StreamReader) -> None:
        assert link.there is not None
        while data := await _read(reader):
            if await self._is_lost(link):
                continue
            if self.cuts_count > 0 and self._pattern in data:
                self.cuts_count -= 1
                link.is_cut = True
            await _write(link.there, data)
        link.there.close()

    async def _answer(self, link: "_Link", reader: asyncio.StreamReader) -> None:
        while data := await _read(reader):
            if await self._is_lost(link):
                continue
            if link.is_cut:
                # The server has carried it out; nobody hears of it.
                self.cut_counts["answer"] += 1
                link.abort()
                return
            await _write(link.here, data)
        link.here.close()

    async def _is_lost(self, link: "_Link") -> bool:
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        link.has_lost = link.has_lost or self._is_silent
        return link.has_lost


class _Link:
    """One client's connection, and ours to the server for it."""

    def __init__(self, here: asyncio.StreamWriter) -> None:
        self.here = here
        self.there: asyncio.StreamWriter | None = None
        self.task: asyncio.Task | None = None
        self.is_cut = False
        self.has_lost = False

    def abort(self) -> None:
        """End both sides without a goodbye."""
        for writer in (self.here, self.there):
            if writer is not None and not writer.transport.is_closing():
                # Without this the end would be an orderly one.
                writer.get_extra_info("socket").setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER
                )
                writer.transport.abort()

    def close(self) -> None:
        """End both sides."""
        for writer in (self.here, self.there):
            if writer is not None:
                writer.close()


async def _read(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read(_READ_BYTES_MAX)
    except OSError:
        return b""


async def _write(writer: asyncio.StreamWriter, data: bytes) -> None:
    try:
        writer.write(data)
        await writer.drain()
    except OSError:
        return


class ProxyThread:
    """A proxy in a thread with a loop of its own; what is told to it here is done there."""

    def __init__(self, target_url: str, *, name: str) -> None:
        self._proxy = FaultProxy(target_url)
        self._loop = asyncio.new_event_loop()
        self._over: asyncio.Event | None = None
        self._is_listening = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"proxy of {name}")
        self.name = name

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._is_listening.wait(_END_S_MAX), "the proxy does not listen"
        return self

    def __exit__(self, *_error: object) -> None:
        assert self._over is not None
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()

    @property
    def url(self) -> str:
        """Where it listens."""
        return self._proxy.url

    @property
    def cut_counts(self) -> Counter[str]:
        """How many connections were cut, by why."""
        return self._proxy.cut_counts

    def cut(self) -> int:
        """See `FaultProxy.cut`."""
        return self._tell(self._proxy.cut)

    def cut_answers_to(self, pattern: bytes, *, count: int) -> None:
        """See `FaultProxy.cut_answers_to`."""
        self._tell(lambda: self._proxy.cut_answers_to(pattern, count=count))

    def delay(self, seconds: float) -> None:
        """Let everything arrive so much later."""
        self._proxy.delay_s = seconds

    def swallow(self) -> None:
        """See `FaultProxy.swallow`."""
        self._tell(self._proxy.swallow)

    def heal(self) -> int:
        """See `FaultProxy.heal`."""
        return self._tell(self._proxy.heal)

    def _tell(self, act: Callable[[], T]) -> T:
        async def carry_out() -> T:
            return act()

        return asyncio.run_coroutine_threadsafe(carry_out(), self._loop).result(_END_S_MAX)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._live())

    async def _live(self) -> None:
        self._over = asyncio.Event()
        async with self._proxy.listening():
            self._is_listening.set()
            await self._over.wait()
