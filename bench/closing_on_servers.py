"""How many orders per second close when very many are due at once, and how late when paced.

Twice, each with a database and a virtual host of its own, and one `orderkeep work`:

- all orders are due at one moment, as after a sale that began at noon. They are placed as fast as
  it goes; `work` tells the broker of them, which holds their timeout checks until they are due;
- orders are placed at an even rate, and fall due at that rate. Lateness is `closed_at` minus
  `expires_at`, both as they stand in the database.

A hold queue takes a message in the first tenth of its time only. So `hold_s`, the order timeout of
`work`, is ten times as long as it takes to place the orders and to tell of them. How many the
broker held is said; the others waited in the outbox.

The broker gives up what has expired as fast as `dead_letter_worker_consumer_prefetch` lets it. That
is set to the 512 that the documents advise, if the broker is of this machine, and set back
afterwards.
"""

import asyncio
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pika
import uvloop

from bench.figures import bar_line, keep, quantile, say, table
from bench.placing_due import place_due
from bench.running_shop import RunningProcesses, running_processes
from bench.servers import (
    count_of,
    own_database,
    own_vhost,
    postgresql_server,
    rabbitmq_server,
    tidy_up,
    versions,
)
from bench.sizes import arguments_of
from bench.stage import settings_for, stocked_database
from orderkeep.contracts.topology import HOLD_QUEUE_PREFIX
from orderkeep.instant import MICROSECONDS_PER_SECOND, Instant, after
from orderkeep.wiring import chance
from orderkeep.wiring.storage import build_outboxes, open_database
from tests.servers.erlang_shell import ErlangError
from tests.servers.postgresql import PostgresServer

NAME = "closing_on_servers"

ORDER_COUNT = 5_000
HOLD_S = 40.0
PACED_PER_S = 1000.0
PACED_S = 10.0
PACED_HOLD_S = 15.0

FULL_SIZES = {"order_count": 100_000, "hold_s": 600.0, "paced_s": 120.0, "paced_hold_s": 120.0}

# What this is to reach.
CLOSED_PER_S_BAR = 5000.0
P99_BAR_MS = 250.0

DEAD_LETTER_PREFETCH = 512

_BATCH_SIZE = 128
_WRITER_COUNT = 4
_LOOK_AGAIN_S = 0.5

# After the last deadline; the sweep closes what no message closed after one.
_CLOSE_LIMIT_S = 180.0
_CLOSED_PER_S_MIN = 200

_MICROSECONDS_PER_MILLISECOND = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Closings:
    """What became of orders that were due.

    Attributes:
        held_count: Timeout checks that the broker held.
        swept_count: Orders that the sweep closed.
        after_first_deadline_s: From the first deadline to the last closing.
    """

    order_count: int
    held_count: int
    swept_count: int
    lateness_ms: list[float]
    after_first_deadline_s: float

    def as_json(self) -> dict[str, Any]:
        """Return what is shown of it."""
        return {
            "orders": self.order_count,
            "held_by_the_broker": self.held_count,
            "closed_by_sweep": self.swept_count,
            "lost": self.order_count - len(self.lateness_ms),
            "early": sum(late_ms < 0 for late_ms in self.lateness_ms),
            "closed_per_s": round(len(self.lateness_ms) / self.after_first_deadline_s, 1),
            "lateness_ms": {
                "p50": quantile(self.lateness_ms, 0.50),
                "p99": quantile(self.lateness_ms, 0.99),
                "max": max(self.lateness_ms),
            },
        }


class Closing:
    """One database with orders, and the `work` that closes them."""

    def __init__(
        self, server: PostgresServer, *, name: str, broker_url: str, folder: Path, hold_s: float
    ) -> None:
        """Close orders in the named database, which has no schema yet."""
        self.environment = {
            "ORDERKEEP_DATABASE_URL": server.url(name),
            "ORDERKEEP_BROKER_URL": broker_url,
            "ORDERKEEP_ORDER_TIMEOUT_S": f"{hold_s:g}",
            "ORDERKEEP_LOG_LEVEL": "warning",
        }
        self._server = server
        self._name = name
        self._broker_url = broker_url
        self._hold_s = hold_s
        self._folder = folder
        self._settings = settings_for(folder, environment=self.environment)

    async def stock(self) -> None:
        """Make the schema and the catalogue."""
        async with stocked_database(self._settings):
            pass

    async def place_all(self, order_count: int, *, due_at: Instant) -> None:
        """Place all orders as fast as it goes, due at one moment."""
        database = open_database(self._settings)
        outbox = build_outboxes(self._settings)["orders"]
        firsts = iter(range(0, order_count, _BATCH_SIZE))

        async def writer() -> None:
            for first in firsts:
                count = min(_BATCH_SIZE, order_count - first)
                await place_due(database, outbox, first_number=first, count=count, due_at=due_at)

        try:
            await asyncio.gather(*(writer() for _ in range(_WRITER_COUNT)))
        finally:
            await database.close()

    async def place_paced(self, order_count: int, *, orders_per_s: float) -> None:
        """Place orders at an even rate, ten in a commit, each due after the order timeout."""
        database = open_database(self._settings)
        outbox = build_outboxes(self._settings)["orders"]
        loop = asyncio.get_running_loop()
        begun_at_s = loop.time()
        # Where the machine is too slow for the rate, orders are late, and due as much later.
        in_hand = asyncio.Semaphore(_WRITER_COUNT)

        async def place_ten(first: int) -> None:
            async with in_hand:
                due_at = after(chance.now(), seconds=self._hold_s)
                await place_due(database, outbox, first_number=first, count=10, due_at=due_at)

        try:
            async with asyncio.TaskGroup() as group:
                for first in range(0, order_count, 10):
                    await asyncio.sleep(begun_at_s + first / orders_per_s - loop.time())
                    group.create_task(place_ten(first))
        finally:
            await database.close()

    @contextmanager
    def running_work(self) -> Iterator[RunningProcesses]:
        """Run `orderkeep work` until the context ends."""
        self._folder.mkdir(exist_ok=True)
        with running_processes(
            self._folder, environment=self.environment, names=("work",)
        ) as running:
            yield running

    def held_count(self) -> int:
        """Return how many timeout checks the broker holds."""
        name = f"{HOLD_QUEUE_PREFIX}{1000 * self._hold_s:.0f}"
        with pika.BlockingConnection(pika.URLParameters(self._broker_url)) as connection:
            declared = connection.channel().queue_declare(name, passive=True)
            count: int = declared.method.message_count
            return count

    def await_closings(self, count: int, *, running: RunningProcesses, held: int) -> Closings:
        """Wait until so many orders are closed, or the time is up, and tell what became of all."""
        last_due_at = self._count("SELECT max(expires_at) FROM orders")
        limit_s = (last_due_at - chance.now()) / MICROSECONDS_PER_SECOND
        limit_s += _CLOSE_LIMIT_S + count / _CLOSED_PER_S_MIN
        ends_at_s = time.monotonic() + limit_s
        while (
            closed_count := self._count("SELECT count(*) FROM orders WHERE status = 'closed'")
        ) < count and time.monotonic() < ends_at_s:
            running.check()
            threading.Event().wait(_LOOK_AGAIN_S)
        if not closed_count:
            message = "no order was closed"
            raise RuntimeError(message)
        rows = self._server.query(
            "SELECT closed_at - expires_at AS late_us FROM orders WHERE status = 'closed'",
            database=self._name,
        )
        after_us = self._count("SELECT max(closed_at) - min(expires_at) FROM orders")
        return Closings(
            order_count=count,
            held_count=held,
            swept_count=self._count("SELECT count(*) FROM order_history WHERE actor = 'sweep'"),
            lateness_ms=[row["late_us"] / _MICROSECONDS_PER_MILLISECOND for row in rows],
            after_first_deadline_s=after_us / MICROSECONDS_PER_SECOND,
        )

    def _count(self, sql: str) -> int:
        count: int = count_of(self._server, self._name, sql)
        return count


@contextmanager
def dead_letter_prefetch() -> Iterator[int | None]:
    """Let new hold queues give up 512 at a time; give what holds, None where nobody can tell."""
    server = rabbitmq_server()
    name = "rabbit, dead_letter_worker_consumer_prefetch"
    try:
        before = server.evaluate(f"application:get_env({name}, 32).").strip()
        server.evaluate(f"application:set_env({name}, {DEAD_LETTER_PREFETCH}).")
    except ErlangError:
        yield None
        return
    try:
        yield DEAD_LETTER_PREFETCH
    finally:
        server.evaluate(f"application:set_env({name}, {before}).")


@contextmanager
def prepared(folder: Path, *, hold_s: float) -> Iterator[Closing]:
    """Give a new database with a catalogue, and a virtual host."""
    server = postgresql_server()
    with own_database(server) as name, own_vhost(rabbitmq_server()) as broker_url:
        closing = Closing(server, name=name, broker_url=broker_url, folder=folder, hold_s=hold_s)
        uvloop.run(closing.stock())
        tidy_up(server, name)
        yield closing


def close_at_once(folder: Path, *, order_count: int, hold_s: float) -> Closings:
    """Let so many orders be due at one moment."""
    with prepared(folder, hold_s=hold_s) as closing, closing.running_work() as running:
        due_at = after(chance.now(), seconds=hold_s)
        say(f"  placing {order_count:,} orders, all due at one moment in {hold_s:g} s")
        uvloop.run(closing.place_all(order_count, due_at=due_at))
        _wait_until(due_at, before_s=1.0)
        running.check()
        held_count = closing.held_count()
        say(f"  {held_count:,} of {order_count:,} are held by the broker")
        return closing.await_closings(order_count, running=running, held=held_count)


def close_paced(folder: Path, *, orders_per_s: float, paced_s: float, hold_s: float) -> Closings:
    """Let orders be due at an even rate."""
    order_count = int(orders_per_s * paced_s) // 10 * 10
    with prepared(folder, hold_s=hold_s) as closing, closing.running_work() as running:
        say(f"  {orders_per_s:,.0f} orders/s for {paced_s:g} s, due {hold_s:g} s later")
        uvloop.run(closing.place_paced(order_count, orders_per_s=orders_per_s))
        held_count = closing.held_count()
        return closing.await_closings(order_count, running=running, held=held_count)


def _left_s(moment: Instant) -> float:
    return (moment - chance.now()) / MICROSECONDS_PER_SECOND


def _wait_until(moment: Instant, *, before_s: float) -> None:
    threading.Event().wait(max(0.0, _left_s(moment) - before_s))


def run(
    *,
    order_count: int = ORDER_COUNT,
    hold_s: float = HOLD_S,
    paced_per_s: float = PACED_PER_S,
    paced_s: float = PACED_S,
    paced_hold_s: float = PACED_HOLD_S,
) -> dict[str, Any]:
    """Measure and return the results as JSON."""
    measured_on = versions()
    with (
        tempfile.TemporaryDirectory(prefix="orderkeep-bench-") as directory,
        dead_letter_prefetch() as prefetch,
    ):
        folder = Path(directory)
        at_once = close_at_once(folder / "at-once", order_count=order_count, hold_s=hold_s)
        paced = close_paced(
            folder / "paced", orders_per_s=paced_per_s, paced_s=paced_s, hold_s=paced_hold_s
        )
    results = {
        "due at one moment": at_once.as_json(),
        f"due at {paced_per_s:,.0f}/s": paced.as_json(),
    }
    return {
        "servers": measured_on,
        "dead_letter_prefetch": prefetch,
        "closings": results,
        "is_wrong": any(one["lost"] or one["early"] for one in results.values()),
    }


def show(results: dict[str, Any]) -> str:
    """Return the table."""
    at_once, paced = results["closings"].values()
    prefetch = results["dead_letter_prefetch"]
    return "\n".join(
        [
            table(
                "Closings, RabbitMQ to PostgreSQL, one `work`; the broker's dead-letter prefetch is"
                f" {prefetch or 'unknown'}",
                [
                    "",
                    "orders",
                    "held",
                    "closed/s",
                    "late p50 / p99 / max ms",
                    "early",
                    "lost",
                    "swept",
                ],
                [
                    [
                        due,
                        f"{one['orders']:,}",
                        f"{one['held_by_the_broker']:,}",
                        f"{one['closed_per_s']:,.0f}",
                        " / ".join(f"{ms:,.0f}" for ms in one["lateness_ms"].values()),
                        *(str(one[name]) for name in ("early", "lost", "closed_by_sweep")),
                    ]
                    for due, one in results["closings"].items()
                ],
            ),
            bar_line(
                f"due at one moment, at least {CLOSED_PER_S_BAR:,.0f} closed/s, none early",
                is_met=at_once["closed_per_s"] >= CLOSED_PER_S_BAR
                and not at_once["early"] + at_once["lost"],
            ),
            bar_line(
                f"paced, p99 at most {P99_BAR_MS:g} ms late, none early",
                is_met=paced["lateness_ms"]["p99"] <= P99_BAR_MS
                and not paced["early"] + paced["lost"],
            ),
        ]
    )


if __name__ == "__main__":
    _results = run(
        **arguments_of(
            __doc__,
            order_count=ORDER_COUNT,
            hold_s=HOLD_S,
            paced_per_s=PACED_PER_S,
            paced_s=PACED_S,
            paced_hold_s=PACED_HOLD_S,
        )
    )
    keep(NAME, _results)
    print(show(_results))
    sys.exit(_results["is_wrong"])
