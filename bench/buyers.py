"""Buyers at an even rate: each orders what is in their cart over HTTP, and every second one pays.

It runs in a process of its own, so that it shares a machine with the service and not an
interpreter. A job comes as JSON on standard input, what became of it leaves as JSON on standard
output. Requests leave at their moments, whether or not the ones before are answered; only where no
connection is free they wait. Who pays does so as a foreign payment service would: a success on
`payment.success.notify`.
"""

import asyncio
import json
import subprocess
import sys
from collections import Counter
from typing import TextIO, TypedDict

import uvloop
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.channel import Channel

from bench.bare_amqp import open_channel, properties_of
from bench.stage import RECEIVER, SKU_COUNT, sign_buyer
from orderkeep.contracts import payment_success_notify
from orderkeep.contracts.amount import minor_of_text
from orderkeep.contracts.payment_success_notify import PaymentSucceeded
from orderkeep.instant import MICROSECONDS_PER_SECOND
from orderkeep.wiring import chance

LINES_PER_ORDER = 2

# Every user has each SKU in the cart once, and orders two at a time.
ORDERS_PER_USER = SKU_COUNT // LINES_PER_ORDER

_LENGTH = b"\r\ncontent-length: "


class Job(TypedDict):
    """Who buys: so many orders a second for so long, over so many connections."""

    host: str
    port: int
    broker_url: str
    connection_count: int
    orders_per_s: float
    duration_s: float


class Outcome(TypedDict):
    """What became of it.

    Attributes:
        late_count: Requests that had to wait for a connection.
        latency_ms: From the moment at which a request was to leave to its answer.
    """

    created_count: int
    paid_count: int
    late_count: int
    refused: dict[str, int]
    elapsed_s: float
    latency_ms: list[float]


def user_count_of(order_count: int) -> int:
    """Return how many users it takes to place so many orders."""
    return -(-order_count // ORDERS_PER_USER)


def cart_item_id(user: int, sku: int) -> str:
    """Return the id of the user's cart line of the SKU."""
    return f"bench-{user}-{sku}"


class Buyers:
    """All buyers of a job."""

    def __init__(self, job: Job, channel: Channel) -> None:
        """Order as the job says, and pay over the channel."""
        self._job = job
        self._channel = channel
        self._order_count = int(job["orders_per_s"] * job["duration_s"])
        self._user_count = user_count_of(self._order_count)
        self._tokens = [sign_buyer(user) for user in range(self._user_count)]
        self._free: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = (
            asyncio.Queue()
        )
        self._late_count = 0
        self._paid_count = 0
        self._statuses: Counter[str] = Counter()
        self._latency_ms: list[float] = []

    async def buy(self) -> Outcome:
        """Place all orders, each at its moment, and wait for the last answer."""
        for _ in range(self._job["connection_count"]):
            self._free.put_nowait(
                await asyncio.open_connection(self._job["host"], self._job["port"])
            )
        loop = asyncio.get_running_loop()
        begun_at_s = loop.time()
        async with asyncio.TaskGroup() as group:
            for number in range(self._order_count):
                at_s = begun_at_s + number / self._job["orders_per_s"]
                if (wait_s := at_s - loop.time()) > 0:
                    await asyncio.sleep(wait_s)
                group.create_task(self._order(number, at_s=at_s))
        elapsed_s = loop.time() - begun_at_s
        while not self._free.empty():
            self._free.get_nowait()[1].close()
        created_count = self._statuses.pop("201", 0)
        return {
            "created_count": created_count,
            "paid_count": self._paid_count,
            "late_count": self._late_count,
            "refused": dict(self._statuses),
            "elapsed_s": elapsed_s,
            "latency_ms": [round(ms, 1) for ms in self._latency_ms],
        }

    async def _order(self, number: int, *, at_s: float) -> None:
        loop = asyncio.get_running_loop()
        if self._free.empty():
            self._late_count += 1
        reader, writer = await self._free.get()
        writer.write(self._request(number))
        head = await reader.readuntil(b"\r\n\r\n")
        length = head.lower().partition(_LENGTH)[2].partition(b"\r\n")[0]
        body = await reader.readexactly(int(length))
        self._free.put_nowait((reader, writer))
        self._latency_ms.append(1000 * (loop.time() - at_s))
        status = head[9:12].decode()
        self._statuses[status] += 1
        if status == "201" and number % 2 == 0:
            self._pay(json.loads(body))

    def _request(self, number: int) -> bytes:
        user, place = number % self._user_count, number // self._user_count
        items = [
            {
                "sku_id": f"MUG-{sku:04d}",
                "quantity": 1,
                "cart_item_id": cart_item_id(user, sku),
            }
            for sku in range(LINES_PER_ORDER * place, LINES_PER_ORDER * (place + 1))
        ]
        body = json.dumps({"items": items, "receiver": RECEIVER}).encode()
        head = (
            "POST /api/v1/orders HTTP/1.1\r\n"
            f"Host: {self._job['host']}:{self._job['port']}\r\n"
            f"Authorization: Bearer {self._tokens[user]}\r\n"
            f"Idempotency-Key: bench-{number}\r\n"
            "Content-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n"
            "\r\n"
        )
        return head.encode() + body

    def _pay(self, order: dict[str, str]) -> None:
        now = chance.now()
        order_no = order["order_no"]
        self._channel.basic_publish(
            "",
            payment_success_notify.ROUTE,
            payment_success_notify.encode(
                PaymentSucceeded(
                    order_no=order_no,
                    trade_no=f"T{order_no}",
                    amount_minor=minor_of_text(order["pay_amount"]),
                    currency=order["currency"],
                    paid_at=now,
                    pay_channel="bank",
                )
            ),
            properties_of(
                message_id=chance.new_uuid(),
                type_=payment_success_notify.TYPE,
                headers={"x-schema-version": 1, "x-aggregate-id": order_no, "x-sequence": 1},
                timestamp_s=now // MICROSECONDS_PER_SECOND,
            ),
            mandatory=True,
        )
        self._paid_count += 1


async def _buy(job: Job) -> Outcome:
    # Closing the connection waits until the broker has read all of it.
    async with open_channel(job["broker_url"], kind=AsyncioConnection) as channel:
        return await Buyers(job, channel).buy()


def start_buyers(job: Job, *, outcome: TextIO) -> subprocess.Popen[str]:
    """Start the buyers, in a process of their own; `outcome_of` waits for them.

    Args:
        outcome: Takes what became of the orders. A file: nobody reads a pipe before they are done,
            and it holds less than that.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.buyers"],
        stdin=subprocess.PIPE,
        stdout=outcome,
        text=True,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(job))
    process.stdin.close()
    process.stdin = None
    return process


def outcome_of(process: subprocess.Popen[str], *, outcome: TextIO, limit_s: float) -> Outcome:
    """Wait for the buyers and return what became of their orders.

    Raises:
        RuntimeError: they failed.
        subprocess.TimeoutExpired: they are not finished in time.
    """
    process.wait(timeout=limit_s)
    if process.returncode:
        message = "the buyers failed"
        raise RuntimeError(message)
    outcome.seek(0)
    read: Outcome = json.load(outcome)
    return read


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        _outcome = runner.run(_buy(json.load(sys.stdin)))
    sys.stdout.write(json.dumps(_outcome))
