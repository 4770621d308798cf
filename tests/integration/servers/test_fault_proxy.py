"""What stands between a client and a server does to their connection what it is told."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.condition import eventually
from tests.servers.fault_proxy import COMMIT, FaultProxy

QUESTION = b"SELECT 1\x00"


class Echo:
    """A server that answers with what it was asked, and remembers it."""

    def __init__(self) -> None:
        self.asked = b""

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1000):
            self.asked += data
            writer.write(data)
        writer.close()


@asynccontextmanager
async def proxied() -> AsyncIterator[tuple[Echo, FaultProxy]]:
    echo = Echo()
    server = await asyncio.start_server(echo.talk, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with FaultProxy(f"postgresql://postgres@127.0.0.1:{port}/shop").listening() as proxy:
        yield echo, proxy
    server.close()


@asynccontextmanager
async def connected(
    proxy: FaultProxy,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    port = int(proxy.url.rpartition(":")[2].partition("/")[0])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    yield reader, writer
    writer.close()


async def ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, question: bytes = QUESTION
) -> bytes:
    writer.write(question)
    return await reader.read(1000)


async def test_everything_is_passed_on_both_ways() -> None:
    async with proxied() as (_, proxy), connected(proxy) as (reader, writer):
        assert proxy.url.startswith("postgresql://postgres@127.0.0.1:")
        assert await ask(reader, writer) == QUESTION
    assert proxy.cut_count == 0


async def test_an_answer_to_commit_is_cut_off_after_the_commit_has_arrived() -> None:
    async with proxied() as (echo, proxy), connected(proxy) as (reader, writer):
        proxy.cut_answers_to(COMMIT, count=1)
        assert await ask(reader, writer) == QUESTION
        with pytest.raises(ConnectionError):
            await ask(reader, writer, COMMIT)
        assert echo.asked == QUESTION + COMMIT
        assert proxy.cut_counts == {"answer": 1}

    async with proxied() as (_, proxy), connected(proxy) as (reader, writer):
        assert await ask(reader, writer, COMMIT) == COMMIT


async def test_a_cut_ends_every_connection_without_a_goodbye() -> None:
    async with proxied() as (_, proxy), connected(proxy) as one, connected(proxy) as other:
        for reader, writer in (one, other):
            await ask(reader, writer)
        assert proxy.cut() == 2
        for reader, _ in (one, other):
            with pytest.raises(ConnectionError):
                await reader.read(1000)
        assert proxy.cut_counts == {"cut": 2}


async def test_what_is_swallowed_never_arrives_and_the_connection_does_not_go_on() -> None:
    async with proxied() as (echo, proxy), connected(proxy) as (reader, writer):
        await ask(reader, writer)
        proxy.swallow()
        writer.write(b"lost")
        await eventually(lambda: any(link.has_lost for link in proxy._links))
        assert proxy.heal() == 1
        with pytest.raises(ConnectionError):
            await reader.read(1000)
        assert echo.asked == QUESTION
        async with connected(proxy) as (new_reader, new_writer):
            assert await ask(new_reader, new_writer) == QUESTION
    assert proxy.cut_counts == {"swallowed": 1}


async def test_what_is_delayed_arrives_later() -> None:
    async with proxied() as (_, proxy), connected(proxy) as (reader, writer):
        await ask(reader, writer)
        proxy.delay_s = 0.05
        loop = asyncio.get_running_loop()
        asked_s = loop.time()
        assert await ask(reader, writer) == QUESTION
        assert loop.time() - asked_s >= 0.1


async def test_whoever_comes_while_the_server_is_away_finds_nobody() -> None:
    async with proxied() as (_, proxy):
        pass
    async with FaultProxy("amqp://127.0.0.1:1/").listening() as proxy:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", int(proxy.url.rpartition(":")[2].partition("/")[0])
        )
        with pytest.raises(ConnectionError):
            await reader.readexactly(1)
        writer.close()
