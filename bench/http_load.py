"""The load generator: clients that order over HTTP as fast as they are answered.

It runs in a process of its own, so that it shares a machine with the service and not an
interpreter. A job comes as JSON on standard input, its result leaves as JSON on standard output.
All requests are rendered before the first is sent; each client keeps one connection and has one
request under way. Only an answer 201 counts as an order.
"""

import asyncio
import json
import subprocess
import sys
import time
from collections import Counter, deque
from typing import TypedDict

import uvloop

# A service that answers nothing shall not hold up the whole run.
TIME_LIMIT_S = 90.0

_HEAD_END = b"\r\n\r\n"
_LENGTH = b"\r\ncontent-length:"
_STATUS = slice(9, 12)
_CREATED = b"201"


class Job(TypedDict):
    """What to send: `order_count` requests by `client_count` clients, bodies and tokens in turn.

    After `stop_after_s` no more are sent; None is no limit.
    """

    host: str
    port: int
    client_count: int
    order_count: int
    key_prefix: str
    tokens: list[str]
    bodies: list[str]
    stop_after_s: float | None


class Outcome(TypedDict):
    """What came back: orders made, answers that were none, and how long all of it took."""

    created_count: int
    refused: dict[str, int]
    elapsed_s: float
    latency_ms: list[float]


class Client(asyncio.Protocol):
    """One connection, with one request under way at a time."""

    def __init__(self, requests: deque[bytes], *, latencies_s: list[float]) -> None:
        """Take requests from the shared store until it is empty."""
        self.statuses: Counter[bytes] = Counter()
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._requests = requests
        self._latencies_s = latencies_s
        self._received = b""
        self._sent_at_s = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # a connection can be written to
        """Keep the connection; `start` sends the first request."""
        self._transport = transport

    def start(self) -> None:
        """Send the first request."""
        self._send_next()

    def data_received(self, data: bytes) -> None:
        """Take a part of an answer; send the next request when it is whole."""
        self._received += data
        head, separator, body = self._received.partition(_HEAD_END)
        if not separator or len(body) < _body_length(head):
            return
        self._latencies_s.append(time.perf_counter() - self._sent_at_s)
        self.statuses[head[_STATUS]] += 1
        self._received = b""
        self._send_next()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits, if the service hung up."""
        if not self.finished.done():
            self.finished.set_exception(exc or ConnectionResetError("the service hung up"))

    def _send_next(self) -> None:
        if not self._requests:
            self.finished.set_result(None)
            self._transport.close()
            return
        self._sent_at_s = time.perf_counter()
        self._transport.write(self._requests.popleft())


def render(job: Job) -> deque[bytes]:
    """Return every request as the bytes that go over the wire, each with a key of its own."""
    bodies = [body.encode() for body in job["bodies"]]
    requests: deque[bytes] = deque()
    for number in range(job["order_count"]):
        body = bodies[number % len(bodies)]
        token = job["tokens"][number % len(job["tokens"])]
        head = (
            "POST /api/v1/orders HTTP/1.1\r\n"
            f"Host: {job['host']}:{job['port']}\r\n"
            f"Authorization: Bearer {token}\r\n"
            f"Idempotency-Key: {job['key_prefix']}-{number}\r\n"
            "Content-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n"
            "\r\n"
        )
        requests.append(head.encode() + body)
    return requests


async def place_orders(job: Job) -> Outcome:
    """Send all requests and return what came of them."""
    requests = render(job)
    latencies_s: list[float] = []
    loop = asyncio.get_running_loop()
    clients: list[Client] = []
    for _ in range(job["client_count"]):
        _, client = await loop.create_connection(
            lambda: Client(requests, latencies_s=latencies_s), job["host"], job["port"]
        )
        clients.append(client)
    started_at_s = time.perf_counter()
    for client in clients:
        client.start()
    if job["stop_after_s"] is not None:
        # Clients find the store empty, and end with the answer that they wait for.
        loop.call_later(job["stop_after_s"], requests.clear)
    async with asyncio.timeout(TIME_LIMIT_S):
        await asyncio.gather(*(client.finished for client in clients))
    elapsed_s = time.perf_counter() - started_at_s
    statuses: Counter[bytes] = Counter()
    for client in clients:
        statuses.update(client.statuses)
    created_count = statuses.pop(_CREATED, 0)
    return {
        "created_count": created_count,
        "refused": {status.decode(): count for status, count in statuses.items()},
        "elapsed_s": elapsed_s,
        "latency_ms": [round(1000 * latency_s, 3) for latency_s in latencies_s],
    }


def run_load(job: Job) -> Outcome:
    """Return what the load generator, in a process of its own, came back with."""
    finished = subprocess.run(
        [sys.executable, "-m", "bench.http_load"],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT_S + 30,
        check=False,
    )
    if finished.returncode:
        message = f"the load generator failed:\n{finished.stderr[-2000:]}"
        raise RuntimeError(message)
    outcome: Outcome = json.loads(finished.stdout)
    return outcome


def _body_length(head: bytes) -> int:
    _, _, rest = head.lower().partition(_LENGTH)
    return int(rest.partition(b"\r\n")[0])


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        outcome = runner.run(place_orders(json.load(sys.stdin)))
    json.dump(outcome, sys.stdout)
