"""The server on a real port: taken once, stopped gently, never held by slow or endless clients."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx
import pytest

from orderkeep.web.connection import BoundedConnection, _JoiningTransport
from orderkeep.web.door import Door
from orderkeep.web.gate import Gate
from orderkeep.web.server import Listener, PortInUseError, listen, serve
from tests.unit.web.small_shop import Shop

DEADLINE_S = 10.0

LOOK = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
LAST_LOOK = LOOK[:-2] + b"Connection: close\r\n\r\n"


@asynccontextmanager
async def serving(
    application: Callable, *, shutdown_s: float = 5.0
) -> AsyncIterator[tuple[Listener, asyncio.Event, asyncio.Task]]:
    listener = listen("127.0.0.1", 0)
    stop = asyncio.Event()
    task = asyncio.create_task(serve(application, listener, stop=stop, shutdown_s=shutdown_s))
    try:
        yield listener, stop, task
    finally:
        stop.set()
        await asyncio.wait_for(task, DEADLINE_S)


def port_of(listener: Listener) -> int:
    return listener.socket.getsockname()[1]


async def test_the_application_is_served(shop: Shop) -> None:
    async with (
        serving(shop.build().asgi) as (listener, _, _),
        httpx.AsyncClient(base_url=listener.url) as client,
    ):
        live = await client.get("/health/live")
        placed = await client.post(
            "/api/v1/orders",
            json={"items": [{"sku_id": "a", "quantity": 1}]},
            headers=shop.headers(),
        )

    assert listener.url == f"http://127.0.0.1:{listener.url.rpartition(':')[2]}"
    assert live.json() == {"status": "ok"}
    assert placed.status_code == 201
    assert "Server" not in placed.headers


class _Recording(asyncio.Transport):
    """A transport that keeps what is written, and whether it is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.is_closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def close(self) -> None:
        self.is_closed = True


def test_a_head_leaves_with_what_follows_and_no_later_than_the_end() -> None:
    recording = _Recording()
    whole = _JoiningTransport(recording)
    whole.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    whole.write(b"head ")
    assert recording.written == [b"HTTP/1.1 100 Continue\r\n\r\n"]
    whole.write(b"body ")
    whole.write(b"more")
    broken = _JoiningTransport(recording)
    broken.write(b"only a head")
    broken.close()

    assert recording.written[1:] == [b"head body ", b"more", b"only a head"]
    assert recording.is_closed


@pytest.mark.parametrize(
    ("method", "status", "parts", "body"),
    [
        ("GET", 200, [b"tea"], b"tea"),
        ("HEAD", 200, [b"tea"], b""),
        ("GET", 204, [], b""),
        ("GET", 200, [b"tea ", b"pot"], b"tea pot"),
    ],
)
async def test_an_answer_arrives_whole(
    method: str, status: int, parts: list[bytes], body: bytes
) -> None:
    async def application(_scope: dict, _receive: Callable, send: Callable) -> None:
        await send({"type": "http.response.start", "status": status, "headers": []})
        for part in parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async with (
        serving(application) as (listener, _, _),
        httpx.AsyncClient(base_url=listener.url) as client,
    ):
        # Twice on one connection: nothing of the first may be left.
        answers = [await client.request(method, "/") for _ in range(2)]

    assert [answer.status_code for answer in answers] == [status] * 2
    assert [answer.content for answer in answers] == [body] * 2


async def test_a_chunked_body_beyond_the_limit_is_refused_over_the_wire(shop: Shop) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(200):
            yield b" " * 1024

    async with (
        serving(shop.build().asgi) as (listener, _, _),
        httpx.AsyncClient(base_url=listener.url) as client,
    ):
        answer = await client.post("/api/v1/orders", content=chunks(), headers=shop.headers())

    assert answer.status_code == 413
    assert answer.json()["code"] == "body_too_large"


def test_a_port_in_use_is_one_clear_error() -> None:
    first = listen("127.0.0.1", 0)
    port = port_of(first)

    with pytest.raises(PortInUseError) as caught:
        listen("127.0.0.1", port)
    first.close()

    assert str(caught.value) == (
        f"port {port} on 127.0.0.1 is in use:"
        " stop what uses it, or set ORDERKEEP_HTTP_PORT to another"
    )


def test_an_address_that_is_not_ours_is_one_clear_error() -> None:
    with pytest.raises(PortInUseError, match=r"no address|cannot be had"):
        listen("no.such.host.invalid", 0)
    with pytest.raises(PortInUseError, match="cannot be had"):
        listen("192.0.2.1", 0)


def test_a_port_is_free_again_once_it_is_closed() -> None:
    first = listen("127.0.0.1", 0)
    port = port_of(first)
    first.close()

    second = listen("127.0.0.1", port)
    second.close()

    assert second.url == f"http://127.0.0.1:{port}"


def held(until: asyncio.Event, arrived: asyncio.Event) -> Callable:
    async def application(_scope: dict, _receive: Callable, send: Callable) -> None:
        arrived.set()
        await until.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"finished", "more_body": False})

    return application


async def test_what_is_in_hand_is_finished_and_nothing_new_is_taken() -> None:
    until, arrived = asyncio.Event(), asyncio.Event()
    async with (
        serving(held(until, arrived)) as (listener, stop, task),
        httpx.AsyncClient(base_url=listener.url) as client,
    ):
        port = port_of(listener)
        in_hand = asyncio.create_task(client.get("/"))
        await arrived.wait()
        stop.set()
        async with asyncio.timeout(DEADLINE_S):
            while not is_refused(port):
                await asyncio.sleep(0.01)
        assert not task.done()
        until.set()
        answer = await in_hand
        await asyncio.wait_for(task, DEADLINE_S)

    assert answer.text == "finished"


def is_refused(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


async def test_what_does_not_finish_in_time_is_cancelled() -> None:
    until, arrived = asyncio.Event(), asyncio.Event()
    door = Door(new_request_id=lambda: "drawn-id", requests_in_hand_max=10)
    gate = Gate(held(until, arrived), door=door)
    async with (
        serving(gate, shutdown_s=0.05) as (listener, stop, task),
        httpx.AsyncClient(base_url=listener.url) as client,
    ):
        in_hand = asyncio.create_task(client.get("/"))
        await arrived.wait()
        stop.set()
        await asyncio.wait_for(task, DEADLINE_S)
        answer = await in_hand

    assert answer.status_code == 503
    assert answer.json()["code"] == "overloaded"


async def test_a_server_that_is_cancelled_gives_its_port_back() -> None:
    listener = listen("127.0.0.1", 0)
    port = port_of(listener)
    task = asyncio.create_task(
        serve(held(asyncio.Event(), asyncio.Event()), listener, stop=asyncio.Event(), shutdown_s=1)
    )
    await asyncio.sleep(0)

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert is_refused(port)


async def read_to_the_end(listener: Listener, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(listener))
    writer.write(request)
    try:
        return await asyncio.wait_for(reader.read(), DEADLINE_S)
    except ConnectionResetError:
        # The server closed while more was on its way.
        return b""
    finally:
        writer.close()


async def test_headers_without_end_are_cut_off(shop: Shop) -> None:
    async with serving(shop.build().asgi) as (listener, _, _):
        answer = await read_to_the_end(
            listener, b"GET /health/live HTTP/1.1\r\nX-Endless: " + b"x" * 200_000
        )

    assert answer.startswith(b"HTTP/1.1 400 ") or not answer


async def test_headers_of_a_sane_length_are_read(shop: Shop) -> None:
    async with serving(shop.build().asgi) as (listener, _, _):
        answer = await read_to_the_end(
            listener,
            b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Long: "
            + b"x" * 30_000
            + b"\r\n\r\n",
        )

    assert answer.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "request_",
    [
        b"",
        b"GET /health/li",
        b"GET /health/live HTTP/1.1\r\nHost: x\r\n",
        b"POST /api/v1/raw HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345",
    ],
)
async def test_a_request_that_does_not_come_to_its_end_is_cut_off(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, request_: bytes
) -> None:
    monkeypatch.setattr("orderkeep.web.connection.REQUEST_ARRIVAL_S", 0.05)
    async with serving(shop.build().asgi) as (listener, _, _):
        answer = await read_to_the_end(listener, request_)

    assert answer == b""


async def test_a_line_between_two_requests_does_not_keep_the_connection_for_ever(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orderkeep.web.connection.KEEP_ALIVE_S", 0.05)
    async with serving(shop.build().asgi) as (listener, _, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(listener))
        writer.write(LOOK)
        async with asyncio.timeout(DEADLINE_S):
            head = await reader.readuntil(b"\r\n\r\n")
            writer.write(b"\r\n")
            await reader.read()
        writer.close()

    assert head.startswith(b"HTTP/1.1 200 ")


async def test_an_answer_before_the_end_of_its_request_does_not_keep_the_connection_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("orderkeep.web.connection.KEEP_ALIVE_S", 0.05)
    async with serving(long_answer(1)) as (listener, _, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(listener))
        writer.write(b"POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\n")
        async with asyncio.timeout(DEADLINE_S):
            head = await reader.readuntil(b"\r\n\r\n")
            writer.write(b"1")
            await reader.read()
        writer.close()

    assert head.startswith(b"HTTP/1.1 200 ")


def long_answer(length: int) -> Callable:
    async def application(_scope: dict, _receive: Callable, send: Callable) -> None:
        headers = [(b"content-length", b"%d" % length)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"x" * length, "more_body": False})

    return application


@pytest.mark.parametrize(
    ("answer_bytes_count", "request_"),
    [
        pytest.param(1_000_000, b"GET / HTTP/1.1\r\n\r\n", id="long"),
        pytest.param(1_000_000, b"GET / HTTP/1.1\r\n\r\n" * 3, id="several"),
        pytest.param(50_000, b"GET / HTTP/1.1\r\n\r\n", id="short"),
        pytest.param(50_000, b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n", id="the last"),
        pytest.param(50_000, b"GET / HTTP/1.1\r\n\r\nnonsense\r\n", id="then nonsense"),
    ],
)
async def test_a_client_that_does_not_take_its_answers_is_cut_off(
    monkeypatch: pytest.MonkeyPatch, answer_bytes_count: int, request_: bytes
) -> None:
    lost = asyncio.Event()

    class Watched(BoundedConnection):
        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            lost.set()

    monkeypatch.setattr("orderkeep.web.server.BoundedConnection", Watched)
    monkeypatch.setattr("orderkeep.web.connection.ANSWER_TAKEN_S", 0.05)
    monkeypatch.setattr("orderkeep.web.server.KEEP_ALIVE_S", 0.05)
    async with serving(long_answer(answer_bytes_count)) as (listener, _, _):
        # What neither kernel keeps, the server does.
        listener.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", port_of(listener)))
            client.sendall(request_)

            await asyncio.wait_for(lost.wait(), DEADLINE_S)


async def test_a_client_that_takes_its_answer_slowly_is_not_cut_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("orderkeep.web.connection.ANSWER_TAKEN_S", 0.5)
    async with serving(long_answer(1_000_000)) as (listener, _, _):
        listener.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", port_of(listener)))
            client.sendall(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
            client.settimeout(0)
            answer = b""
            async with asyncio.timeout(DEADLINE_S):
                while piece := await asyncio.get_running_loop().sock_recv(client, 10_000):
                    answer += piece
                    await asyncio.sleep(0.01)

    assert len(answer.partition(b"\r\n\r\n")[2]) == 1_000_000


async def test_so_many_requests_may_follow_one_that_is_not_answered() -> None:
    until, arrived = asyncio.Event(), asyncio.Event()
    until.set()
    async with serving(held(until, arrived)) as (listener, _, _):
        answers = await read_to_the_end(listener, LOOK * 16 + LAST_LOOK)

    assert answers.count(b"finished") == 17


@pytest.mark.parametrize(
    "sent",
    [
        LOOK * 1000,
        LOOK + b"nonsense\r\n\r\n",
        LOOK * 2 + b"nonsense\r\n\r\n",
        LOOK + b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nnonsense",
    ],
    ids=["too much ahead", "nonsense", "nonsense behind two", "nonsense in a body"],
)
async def test_who_goes_on_with_nonsense_is_answered_what_came_first_and_cut_off(
    sent: bytes,
) -> None:
    until, arrived = asyncio.Event(), asyncio.Event()
    async with serving(held(until, arrived)) as (listener, _, _):
        reading = asyncio.create_task(read_to_the_end(listener, sent))
        await arrived.wait()
        until.set()
        answer = await reading

    assert answer.startswith(b"HTTP/1.1 200 ")
    # Nothing is said of the rest: it could pass for the answer to something else.
    assert answer.count(b"HTTP/1.1 ") == 1


async def test_who_has_said_all_is_answered_and_let_go() -> None:
    until, arrived = asyncio.Event(), asyncio.Event()
    async with serving(held(until, arrived)) as (listener, _, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(listener))
        writer.write(LOOK)
        writer.write_eof()
        await arrived.wait()
        until.set()
        async with asyncio.timeout(DEADLINE_S):
            answer = await reader.read()
        writer.close()

    assert answer.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("sent", [b"", LOOK[:-2], b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n1"])
async def test_who_stops_in_the_middle_is_let_go_at_once(sent: bytes) -> None:
    until, arrived = asyncio.Event(), asyncio.Event()
    async with serving(held(until, arrived)) as (listener, _, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(listener))
        writer.write(sent)
        writer.write_eof()
        async with asyncio.timeout(DEADLINE_S):
            answer = await reader.read()
        until.set()
        writer.close()

    assert answer == b""


async def test_blanks_behind_a_header_are_no_part_of_it(shop: Shop) -> None:
    async with serving(shop.build().asgi) as (listener, _, _):
        answer = await read_to_the_end(
            listener, LAST_LOOK[:-2] + b"X-Request-Id:  mine \t \r\n\r\n"
        )

    assert b"\r\nx-request-id: mine\r\n" in answer


async def test_a_body_that_is_nonsense_is_answered() -> None:
    until, arrived = asyncio.Event(), asyncio.Event()
    async with serving(held(until, arrived)) as (listener, _, _):
        answer = await read_to_the_end(
            listener, b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nnonsense"
        )
        until.set()

    assert answer.startswith(b"HTTP/1.1 400 ")


async def test_a_body_is_not_counted_as_headers_of_the_request_behind_it(shop: Shop) -> None:
    body = b" " * 65_000
    async with serving(shop.build().asgi) as (listener, _, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(listener))
        writer.write(b"POST /nowhere HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body))
        async with asyncio.timeout(DEADLINE_S):
            head = await reader.readuntil(b"\r\n\r\n")
            writer.write(body + LAST_LOOK[:-4] + b"\r\nX-Long: " + b"x" * 1000)
            # The server reads what is there before more is.
            await asyncio.sleep(0.1)
            writer.write(b"\r\n\r\n")
            answers = await reader.read()
        writer.close()

    assert head.startswith(b"HTTP/1.1 404 ")
    assert b"HTTP/1.1 200 " in answers


async def test_nonsense_is_answered_and_cut_off(shop: Shop) -> None:
    async with serving(shop.build().asgi) as (listener, _, _):
        answer = await read_to_the_end(listener, b"\x00\x01nonsense\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 400 ")
