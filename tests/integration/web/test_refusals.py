"""Refusals over the wire: the same however a request arrives, in order, and never in the way."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from orderkeep.web.door import Door
from orderkeep.web.gate import Gate
from orderkeep.web.server import listen, serve

DEADLINE_S = 10.0

HEAD_END = b"\r\n\r\n"


@dataclass
class HeldShop:
    """An application that holds `/held` until it is let go, and a door with one place.

    Attributes:
        served: The paths that were let in.
    """

    port: int = 0
    served: list[str] = field(default_factory=list)
    may_go: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, scope: dict, receive: Callable, send: Callable) -> None:
        """Answer one request, once its body is there."""
        self.served.append(scope["path"])
        if scope["path"] == "/held":
            await self.may_go.wait()
        while (await receive()).get("more_body", False):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"served", "more_body": False})


@dataclass
class Client:
    """One connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def ask(self, *parts: bytes) -> tuple[bytes, bytes]:
        """Send a request in parts, each in a segment of its own, and return head and body."""
        for part in parts:
            self.writer.write(part)
            await self.writer.drain()
            # The server reads what is there before more is.
            await asyncio.sleep(0.005)
        return await self.hear()

    async def hear(self, *, has_body: bool = True) -> tuple[bytes, bytes]:
        """Return the next answer's head, in lower case, and body."""
        async with asyncio.timeout(DEADLINE_S):
            head = (await self.reader.readuntil(HEAD_END)).lower()
            if b"transfer-encoding: chunked" in head:
                body = (await self.reader.readuntil(b"0\r\n\r\n")).split(b"\r\n")[1]
                return head, body
            length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
            return head, await self.reader.readexactly(length) if has_body else b""


@asynccontextmanager
async def full_service(*, has_gate: bool = False) -> AsyncIterator[tuple[HeldShop, Callable]]:
    """Serve with the only place taken; give the service, and what connects to it.

    Args:
        has_gate: What the door lets in although there is no place comes to a gate, which refuses
            it. Without, whoever is refused was refused at the door.
    """
    service = HeldShop()
    door = Door(
        new_request_id=lambda: "drawn-id",
        requests_in_hand_max=1,
        goes_first=lambda method, path: (method, path) == ("POST", "/cancel"),
        first_in_hand_max=2,
        goes_last=lambda method, path: (method, path) == ("POST", "/orders"),
        last_in_hand_max=1,
    )
    application: Any = Gate(service.answer, door=door) if has_gate else service.answer  # type: ignore[arg-type]  # messages are dicts here
    listener = listen("127.0.0.1", 0)
    stop = asyncio.Event()
    task = asyncio.create_task(serve(application, listener, stop=stop, shutdown_s=5.0, door=door))
    port = listener.socket.getsockname()[1]
    clients: list[Client] = []

    async def connect() -> Client:
        clients.append(Client(*await asyncio.open_connection("127.0.0.1", port)))
        return clients[-1]

    try:
        holder = await connect()
        holder.writer.write(b"GET /held HTTP/1.1\r\nHost: shop\r\n\r\n")
        async with asyncio.timeout(DEADLINE_S):
            while service.served != ["/held"]:
                await asyncio.sleep(0.001)
        yield service, connect
        service.may_go.set()
        assert (await holder.hear())[1] == b"served"
    finally:
        service.may_go.set()
        for client in clients:
            client.writer.close()
        stop.set()
        await asyncio.wait_for(task, DEADLINE_S)


ORDER = b"POST /orders HTTP/1.1\r\nHost: shop\r\nX-Request-Id: mine\r\n"

WAYS: dict[str, Sequence[bytes]] = {
    "at once": [ORDER + b"Content-Length: 5\r\n\r\n12345"],
    "at once, kept alive": [ORDER + b"Connection: keep-alive\r\nContent-Length: 5\r\n\r\n12345"],
    "without a body": [b"GET /orders HTTP/1.1\r\nHost: shop\r\nX-Request-Id: mine\r\n\r\n"],
    "with a query": [b"GET /orders?a=b HTTP/1.1\r\nHost: shop\r\nX-Request-Id: mine\r\n\r\n"],
    "an escaped path": [b"GET /ord%65rs HTTP/1.1\r\nHost: shop\r\nX-Request-Id: mine\r\n\r\n"],
    "head and body apart": [ORDER + b"Content-Length: 5\r\n\r\n", b"12345"],
    "bit by bit": [ORDER, b"Content-Length: 5\r", b"\n\r\n12", b"345"],
    "chunked": [ORDER + b"Transfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n0\r\n\r\n"],
}


@pytest.mark.parametrize("way", WAYS)
async def test_a_request_is_refused_the_same_however_it_arrives(way: str) -> None:
    async with full_service() as (service, connect):
        client = await connect()

        head, body = await client.ask(*WAYS[way])
        # What came of the first request is wholly over: the second is understood.
        again, _ = await client.ask(*WAYS[way])
        cancelled = await client.ask(b"POST /cancel HTTP/1.1\r\nContent-Length: 2\r\n\r\n12")

    assert head.startswith(b"http/1.1 503 ")
    assert b"\r\nretry-after: 1\r\n" in head
    assert b"\r\nx-request-id: mine\r\n" in head
    assert b"connection: close" not in head
    assert b'"code":"overloaded"' in body
    assert again == head
    assert cancelled[1] == b"served"
    assert service.served == ["/held", "/cancel"]


@pytest.mark.parametrize(
    "request_",
    [
        ORDER + b"Connection: close\r\nContent-Length: 5\r\n\r\n12345",
        b"POST /orders HTTP/1.0\r\nX-Request-Id: mine\r\nContent-Length: 5\r\n\r\n12345",
        # Who is refused before the body need not send it: what comes next is unclear.
        ORDER + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n",
    ],
)
async def test_who_wants_the_connection_closed_or_asks_before_the_body_has_it_closed(
    request_: bytes,
) -> None:
    async with full_service() as (_, connect):
        client = await connect()

        head, _ = await client.ask(request_)
        async with asyncio.timeout(DEADLINE_S):
            rest = await client.reader.read()

    assert b"\r\nconnection: close\r\n" in head
    assert rest == b""


async def test_a_refused_head_request_has_no_body() -> None:
    async with full_service(has_gate=True) as (_, connect):
        client = await connect()

        client.writer.write(b"HEAD /orders HTTP/1.1\r\nHost: shop\r\n\r\n")
        head, _ = await client.hear(has_body=False)
        following, _ = await client.ask(*WAYS["at once"])

    assert head.startswith(b"http/1.1 503 ")
    assert following.startswith(b"http/1.1 503 ")


async def test_answers_leave_in_the_order_of_their_requests() -> None:
    async with full_service(has_gate=True) as (service, connect):
        client = await connect()
        pipelined = b"POST /cancel HTTP/1.1\r\nContent-Length: 2\r\n\r\n12" + WAYS["at once"][0]

        client.writer.write(pipelined)
        first, second = await client.hear(), await client.hear()

    assert first[1] == b"served"
    assert second[0].startswith(b"http/1.1 503 ")
    assert service.served == ["/held", "/cancel"]


@pytest.mark.parametrize(
    "request_",
    [
        ORDER + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n12345",
        ORDER + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ORDER + b"Content-Length : 5\r\n\r\n12345",
        ORDER + b"Content-Length: +5\r\n\r\n12345",
    ],
)
async def test_what_is_unclear_is_an_error_and_no_second_request(request_: bytes) -> None:
    async with full_service() as (service, connect):
        client = await connect()

        client.writer.write(request_ + WAYS["at once"][0])
        async with asyncio.timeout(DEADLINE_S):
            answered = await client.reader.read()

    assert b" 400 " in answered
    assert service.served == ["/held"]


@pytest.mark.parametrize(
    "request_",
    [
        b"BREW /orders HTTP/1.1\r\nHost: shop\r\n\r\n",
        *(
            b"GET /orders HTTP/1.1\r\n%b\r\nHost: shop\r\n\r\n" % line
            for line in (
                b" X-After-A-Space: 1",
                b"X-Folded: 1\r\n 2",
                b"X-Bare-Feed: 1\nX-More: 2",
                b"X-Bare-Return: 1\rX-More: 2",
                b"X-Nothing: \x00",
                b"X-Bell: \x07",
                b"X-Deleted: \x7f",
                b"X Spaced: 1",
                b"X-\xff: 1",
                b"X(y): 1",
                b"no colon",
                b": no name",
            )
        ),
    ],
)
async def test_what_cannot_be_read_is_an_error_also_where_the_door_is_shut(request_: bytes) -> None:
    async with full_service() as (service, connect):
        client = await connect()

        client.writer.write(request_)
        async with asyncio.timeout(DEADLINE_S):
            answered = await client.reader.readuntil(HEAD_END)

    assert answered.startswith(b"HTTP/1.1 400 ")
    assert service.served == ["/held"]


async def test_once_a_place_is_free_all_is_served_again() -> None:
    async with full_service() as (service, connect):
        client = await connect()
        refused, _ = await client.ask(*WAYS["at once"])

        service.may_go.set()
        async with asyncio.timeout(DEADLINE_S):
            while (answer := await client.ask(*WAYS["at once"]))[1] != b"served":
                assert answer[0].startswith(b"http/1.1 503 ")

    assert refused.startswith(b"http/1.1 503 ")


async def test_a_crowd_that_comes_at_once_is_answered_each() -> None:
    async with full_service() as (service, connect):
        clients = await asyncio.gather(*(connect() for _ in range(200)))

        answers = await asyncio.gather(*(client.ask(*WAYS["at once"]) for client in clients))

    assert {head[:13] for head, _ in answers} == {b"http/1.1 503 "}
    assert service.served == ["/held"]
