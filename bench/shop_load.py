"""A whole shop under an even load: `serve`, `work`, buyers, and a look at what is left to do.

Buyers have filled carts, order over HTTP at an even rate, and every second order is paid; the
others close when the order timeout is over. What has not been done is looked at once a second.
"""

import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pika
import uvloop
from pika.adapters.blocking_connection import BlockingChannel

from bench.books import WrongBooksError
from bench.buyers import Outcome, outcome_of, start_buyers, user_count_of
from bench.running_shop import RunningProcesses, running_processes
from bench.servers import (
    count_of,
    own_database,
    own_vhost,
    postgresql_server,
    rabbitmq_server,
    tidy_up,
)
from bench.stage import SKU_COUNT, settings_for, stocked_database
from orderkeep.contracts.topology import TOPOLOGY
from tests.servers.postgresql import PostgresServer

CONNECTION_COUNT = 256

# Orders that nobody pays close in the run, and not all after it.
ORDER_TIMEOUT_S = 10

_LOOK_AGAIN_S = 1.0

# After the load: time to close the last orders, and to work off what is left.
DRAIN_LIMIT_S = 120.0

# Users and lines as `buyers` names them; positions in the order of the SKUs.
_FILL_CARTS = """
WITH users AS (
    INSERT INTO carts (user_id, updated_at)
    SELECT 'buyer-' || number, 1 FROM generate_series(0, {user_count} - 1) AS number
)
INSERT INTO cart_items (
    cart_item_id, user_id, sku_id, quantity, position, created_at, updated_at
)
SELECT
    'bench-' || number || '-' || sku, 'buyer-' || number, 'MUG-' || lpad(sku::text, 4, '0'),
    1, sku, 1, 1
FROM generate_series(0, {user_count} - 1) AS number, generate_series(0, {sku_count} - 1) AS sku
"""

# What could be done now and is not: events to send, orders to close.
_LEFT = """
WITH clock AS MATERIALIZED (
    SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now
)
SELECT
    (SELECT count(*) FROM order_outbox WHERE state = 'pending' AND not_before <= now)
    + (SELECT count(*) FROM cart_outbox WHERE state = 'pending' AND not_before <= now)
    + (SELECT count(*) FROM payment_outbox WHERE state = 'pending' AND not_before <= now)
    + (SELECT count(*) FROM orders WHERE status = 'pending_payment' AND expires_at <= now)
FROM clock
"""

_ENDS = """
SELECT
    (SELECT count(*) FROM orders) AS orders,
    (SELECT count(*) FROM orders WHERE status = 'paid') AS paid,
    (SELECT count(*) FROM orders WHERE status = 'closed') AS closed,
    (SELECT count(*) FROM orders WHERE closed_at < expires_at) AS early,
    (SELECT count(*) FROM cart_items) AS cart_lines,
    (SELECT count(*) FROM order_dead_letters) AS dead_letters
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What there was to do at one moment, in seconds from the beginning of the load."""

    at_s: float
    left_count: int


class Shop:
    """A shop that runs, with filled carts."""

    def __init__(
        self,
        server: PostgresServer,
        *,
        name: str,
        broker_url: str,
        running: RunningProcesses,
        order_count_max: int,
    ) -> None:
        """Look at the shop in the named database, whose carts are for so many orders."""
        self.running = running
        self._server = server
        self._name = name
        self._broker_url = broker_url
        self._line_count = user_count_of(order_count_max) * SKU_COUNT

    def load(
        self, *, orders_per_s: float, duration_s: float, look: Callable[[float], None]
    ) -> tuple[Outcome, list[Look]]:
        """Let buyers order at the rate; return what became of it, and what was left to do when.

        Args:
            orders_per_s: How many order, and half as many pay.
            duration_s: For how long.
            look: Called once a second with the seconds from the beginning.
        """
        looks: list[Look] = []
        with tempfile.TemporaryFile("w+", encoding="utf-8") as outcome:
            buyers = start_buyers(
                {
                    "host": "127.0.0.1",
                    "port": self.running.port,
                    "broker_url": self._broker_url,
                    "connection_count": CONNECTION_COUNT,
                    "orders_per_s": orders_per_s,
                    "duration_s": duration_s,
                },
                outcome=outcome,
            )
            try:
                with self._channel() as channel:
                    started_at_s = time.monotonic()
                    while buyers.poll() is None and (
                        time.monotonic() - started_at_s < duration_s + DRAIN_LIMIT_S
                    ):
                        threading.Event().wait(_LOOK_AGAIN_S)
                        self.running.check()
                        at_s = time.monotonic() - started_at_s
                        look(at_s)
                        looks.append(Look(at_s=at_s, left_count=self._left_count(channel)))
                return outcome_of(buyers, outcome=outcome, limit_s=1.0), looks
            finally:
                buyers.kill()
                buyers.wait()

    def await_rest(self) -> float:
        """Wait until nothing is left to do and every order has ended; return how long that took.

        Raises:
            WrongBooksError: there is still something after two minutes.
        """
        started_at_s = time.monotonic()
        with self._channel() as channel:
            while left_count := self._left_count(channel) + self._count(
                "SELECT count(*) FROM orders WHERE status = 'pending_payment'"
            ):
                self.running.check()
                if time.monotonic() - started_at_s > DRAIN_LIMIT_S:
                    message = f"{left_count} are still to be done after {DRAIN_LIMIT_S:g} s"
                    raise WrongBooksError(message)
                threading.Event().wait(_LOOK_AGAIN_S)
        return time.monotonic() - started_at_s

    def check(self, outcome: Outcome) -> None:
        """Check that every order that was answered has ended, and every line left its cart.

        A payment that came after its order's deadline finds it closed: so many more are closed.

        Raises:
            WrongBooksError: one has not, or a line is left.
        """
        (ends,) = self._server.query(_ENDS, database=self._name)
        created_count = outcome["created_count"]
        if (
            ends["orders"] != created_count
            or ends["paid"] + ends["closed"] != created_count
            or ends["paid"] > outcome["paid_count"]
            or ends["early"]
            or ends["dead_letters"]
            or ends["cart_lines"] != self._line_count - 2 * created_count
        ):
            message = f"of {outcome['created_count']} orders and {self._line_count} lines: {ends}"
            raise WrongBooksError(message)

    def _count(self, sql: str) -> int:
        count: int = count_of(self._server, self._name, sql)
        return count

    def _left_count(self, channel: BlockingChannel) -> int:
        waiting = sum(
            channel.queue_declare(queue.name, passive=True).method.message_count
            for queue in TOPOLOGY.queues
        )
        return waiting + self._count(_LEFT)

    @contextmanager
    def _channel(self) -> Iterator[BlockingChannel]:
        with pika.BlockingConnection(pika.URLParameters(self._broker_url)) as connection:
            yield connection.channel()


@contextmanager
def running_whole_shop(*, order_count_max: int) -> Iterator[Shop]:
    """Run a shop in a new database and a new virtual host, with carts for so many orders."""
    server = postgresql_server()
    with (
        tempfile.TemporaryDirectory(prefix="orderkeep-bench-") as directory,
        own_database(server) as name,
        own_vhost(rabbitmq_server()) as broker_url,
    ):
        environment = {
            "ORDERKEEP_DATABASE_URL": server.url(name),
            "ORDERKEEP_BROKER_URL": broker_url,
            "ORDERKEEP_ORDER_TIMEOUT_S": str(ORDER_TIMEOUT_S),
            "ORDERKEEP_LOG_LEVEL": "warning",
        }
        folder = Path(directory)
        uvloop.run(_stock(folder, environment))
        server.query(
            _FILL_CARTS.format(user_count=user_count_of(order_count_max), sku_count=SKU_COUNT),
            database=name,
        )
        tidy_up(server, name)
        with running_processes(folder, environment=environment) as running:
            yield Shop(
                server,
                name=name,
                broker_url=broker_url,
                running=running,
                order_count_max=order_count_max,
            )


async def _stock(folder: Path, environment: dict[str, str]) -> None:
    async with stocked_database(settings_for(folder, environment=environment)):
        pass
