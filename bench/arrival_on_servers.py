"""How long after its commit an order's event arrives at a consumer, at 300 orders a second.

One `orderkeep serve` takes orders over HTTP, at moments set beforehand: a late answer does not slow
the next request down. One `orderkeep work` dispatches and consumes. A queue of our own is bound to
`order.events`, as any program may have one, and what arrives there is timed.

When exactly a transaction is committed nobody is told, so the wait is given twice. Counted from the
beginning of the order's transaction it holds the transaction itself, and is too long; counted from
the answer over HTTP it lacks the answer's own way, and is too short. The truth lies between.
All three clocks are the same machine's.
"""

import asyncio
import json
import tempfile
from pathlib import Path
from typing import Any

import pika
import uvloop
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.channel import Channel
from pika.spec import Basic, BasicProperties

from bench.bare_amqp import open_channel
from bench.books import check_orders
from bench.figures import bar_line, keep, quantile, say, table
from bench.http_load import Job, render
from bench.running_shop import running_processes
from bench.servers import own_database, own_vhost, postgresql_server, rabbitmq_server, versions
from bench.sizes import arguments_of
from bench.stage import order_bodies, settings_for, stocked_database, user_tokens
from orderkeep.contracts import order_events
from orderkeep.instant import MICROSECONDS_PER_SECOND, Instant
from orderkeep.messaging.message import AGGREGATE_ID_HEADER
from orderkeep.wiring import chance

NAME = "arrival_on_servers"

ORDERS_PER_S = 300
WARM_UP_S = 3
MEASURED_S = 15

# What this is to reach; missed is said, and no failure.
P50_BAR_MS = 10.0
P99_BAR_MS = 50.0

# Far more than are under way at any moment.
_CONNECTION_COUNT = 64

_QUEUE = "bench.arrivals"
_ARRIVAL_LIMIT_S = 30.0
_LENGTH = b"\r\ncontent-length: "
_MICROSECONDS_PER_MILLISECOND = 1000

# When what happened to an order, by its number.
Moments = dict[str, Instant]


class Arrivals:
    """Notes when each order's creation arrives at a queue of our own."""

    def __init__(self, channel: Channel, *, order_count: int) -> None:
        """Receive so many orders over the channel."""
        self.moments: Moments = {}
        self._channel = channel
        self._order_count = order_count
        self._all_here = asyncio.Event()

    def start(self) -> None:
        """Receive from the queue, which exists."""
        self._channel.basic_consume(_QUEUE, self._take)

    async def await_all(self) -> None:
        """Wait until all have arrived."""
        async with asyncio.timeout(_ARRIVAL_LIMIT_S):
            await self._all_here.wait()

    def _take(
        self, channel: Channel, method: Basic.Deliver, properties: BasicProperties, _body: bytes
    ) -> None:
        # Of a copy, the first counts.
        self.moments.setdefault(properties.headers[AGGREGATE_ID_HEADER], chance.now())
        channel.basic_ack(method.delivery_tag)
        if len(self.moments) == self._order_count:
            self._all_here.set()


class Shoppers:
    """Sends requests at their time, and notes when each was answered."""

    def __init__(self, job: Job) -> None:
        """Send the job's requests."""
        self.moments: Moments = {}
        self.late_count = 0
        self._job = job
        self._free: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = (
            asyncio.Queue()
        )

    async def order(self, *, orders_per_s: float) -> None:
        """Send all requests, one at each moment, and wait for the last answer."""
        for _ in range(self._job["client_count"]):
            self._free.put_nowait(
                await asyncio.open_connection(self._job["host"], self._job["port"])
            )
        loop = asyncio.get_running_loop()
        begun_at_s = loop.time()
        async with asyncio.TaskGroup() as group:
            for number, request in enumerate(render(self._job)):
                wait_s = begun_at_s + number / orders_per_s - loop.time()
                if wait_s > 0:
                    await asyncio.sleep(wait_s)
                group.create_task(self._send(request))
        while not self._free.empty():
            self._free.get_nowait()[1].close()

    async def _send(self, request: bytes) -> None:
        if self._free.empty():
            # The service is not up to the rate.
            self.late_count += 1
        reader, writer = await self._free.get()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = head.lower().partition(_LENGTH)[2].partition(b"\r\n")[0]
        body = await reader.readexactly(int(length))
        now = chance.now()
        self._free.put_nowait((reader, writer))
        if b" 201 " not in head.partition(b"\r\n")[0]:
            message = f"an order was refused: {body.decode()}"
            raise RuntimeError(message)
        self.moments[json.loads(body)["order_no"]] = now


def _make_queue(broker_url: str) -> None:
    with pika.BlockingConnection(pika.URLParameters(broker_url)) as connection:
        channel = connection.channel()
        channel.queue_declare(_QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
        channel.queue_bind(_QUEUE, order_events.EXCHANGE, routing_key="order.created")


async def _watch(broker_url: str, job: Job, *, orders_per_s: float) -> tuple[Shoppers, Arrivals]:
    async with open_channel(broker_url, kind=AsyncioConnection) as channel:
        arrivals = Arrivals(channel, order_count=job["order_count"])
        arrivals.start()
        shoppers = Shoppers(job)
        await shoppers.order(orders_per_s=orders_per_s)
        await arrivals.await_all()
    return shoppers, arrivals


def run(*, orders_per_s: float = ORDERS_PER_S, measured_s: float = MEASURED_S) -> dict[str, Any]:
    """Measure and return the results as JSON."""
    server = postgresql_server()
    measured_on = versions()
    order_count = int(orders_per_s * (WARM_UP_S + measured_s))
    with (
        tempfile.TemporaryDirectory(prefix="orderkeep-bench-") as directory,
        own_database(server) as name,
        own_vhost(rabbitmq_server()) as broker_url,
    ):
        environment = {
            "ORDERKEEP_DATABASE_URL": server.url(name),
            "ORDERKEEP_BROKER_URL": broker_url,
            "ORDERKEEP_LOG_LEVEL": "warning",
        }
        folder = Path(directory)
        uvloop.run(_prepare(folder, environment))
        with running_processes(folder, environment=environment) as processes:
            _make_queue(broker_url)
            say(f"  {orders_per_s:g} orders/s for {WARM_UP_S + measured_s:g} s")
            shoppers, arrivals = uvloop.run(
                _watch(
                    broker_url,
                    {
                        "host": "127.0.0.1",
                        "port": processes.port,
                        "client_count": _CONNECTION_COUNT,
                        "order_count": order_count,
                        "key_prefix": "bench",
                        "tokens": user_tokens(),
                        "bodies": order_bodies(is_hot=False),
                        "stop_after_s": None,
                    },
                    orders_per_s=orders_per_s,
                )
            )
            processes.check()
        check_orders(server, name, order_count=order_count, line_count=2)
        begun: Moments = {
            row["order_no"]: row["created_at"]
            for row in server.query("SELECT order_no, created_at FROM orders", database=name)
        }
    counted_from = min(begun.values()) + WARM_UP_S * MICROSECONDS_PER_SECOND
    counted = [order_no for order_no, begun_at in begun.items() if begun_at >= counted_from]
    waits = {
        "from the beginning of the transaction": _waits_ms(counted, begun, arrivals.moments),
        "from the answer over HTTP": _waits_ms(counted, shoppers.moments, arrivals.moments),
    }
    longest = waits["from the beginning of the transaction"]
    return {
        "servers": measured_on,
        "orders_per_s": orders_per_s,
        "orders": len(counted),
        "sent_late": shoppers.late_count,
        "waits_ms": {
            since: {
                "p50": quantile(values, 0.50),
                "p99": quantile(values, 0.99),
                "max": max(values),
            }
            for since, values in waits.items()
        },
        "bar": {
            "p50_ms_max": P50_BAR_MS,
            "p99_ms_max": P99_BAR_MS,
            "is_met": quantile(longest, 0.50) <= P50_BAR_MS
            and quantile(longest, 0.99) <= P99_BAR_MS,
        },
    }


async def _prepare(folder: Path, environment: dict[str, str]) -> None:
    async with stocked_database(settings_for(folder, environment=environment)):
        pass


def _waits_ms(order_nos: list[str], begun: Moments, ended: Moments) -> list[float]:
    return [
        (ended[order_no] - begun[order_no]) / _MICROSECONDS_PER_MILLISECOND
        for order_no in order_nos
    ]


def show(results: dict[str, Any]) -> str:
    """Return the table."""
    bar = results["bar"]
    return "\n".join(
        [
            table(
                f"From commit to arrival at a consumer, at {results['orders_per_s']:g} orders/s"
                f" over HTTP ({results['orders']:,} orders, {results['sent_late']} sent late)",
                ["counted", "p50 ms", "p99 ms", "max ms"],
                [
                    [since, *(f"{waits[name]:,.1f}" for name in ("p50", "p99", "max"))]
                    for since, waits in results["waits_ms"].items()
                ],
            ),
            bar_line(
                f"p50 at most {bar['p50_ms_max']:g} ms, p99 at most"
                f" {bar['p99_ms_max']:g} ms, from the beginning of the transaction",
                is_met=bar["is_met"],
            ),
        ]
    )


if __name__ == "__main__":
    _results = run(**arguments_of(__doc__, orders_per_s=ORDERS_PER_S, measured_s=MEASURED_S))
    keep(NAME, _results)
    print(show(_results))
