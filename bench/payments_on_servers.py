"""How many payments per second are consumed from a quorum queue and committed to PostgreSQL.

Each turn has a database with unpaid orders, and a queue with one message of a success for each. In
turns:

- the service's own consumer, with the default settings, pays all of them: inbox, order, history,
  stock, payment and events in one commit for each batch, then one acknowledgement;
- a bare consumer on the same client library receives the same messages and acknowledges a hundred
  at once: what the broker and the library can do with no database at all;
- so does one in C, where librabbitmq can be compiled with: what the broker can do.

After each turn of ours the books are checked: every order is paid, once, and no message is left.
"""

import asyncio
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pika
import uvloop

from bench.bare_amqp import (
    KINDS,
    REPEAT_COUNT,
    BareMessage,
    consume_all,
    open_channel,
    properties_of,
    publish_all,
)
from bench.bare_librabbitmq import LIBRABBITMQ, consume_from_c, has_librabbitmq
from bench.books import WrongBooksError
from bench.figures import Figure, bar_line, figure_of, keep, say, table
from bench.placing_by_desk import open_desk, order_requests
from bench.plots import Plot
from bench.servers import (
    own_database,
    own_vhost,
    postgresql_server,
    rabbitmq_server,
    tidy_up,
    versions,
)
from bench.sizes import arguments_of
from bench.stage import settings_for, stocked_database
from orderkeep.contracts import payment_success_notify
from orderkeep.contracts.payment_success_notify import PaymentSucceeded
from orderkeep.contracts.topology import TOPOLOGY
from orderkeep.instant import MICROSECONDS_PER_SECOND
from orderkeep.logs import configure_logging
from orderkeep.messaging.delivery import DeliveryPolicy, Subscription
from orderkeep.messaging.settling import MessageOutcome
from orderkeep.orders.consumers.payment_success_notify import payment_success_consumer
from orderkeep.orders.payment import LatePaymentPolicy
from orderkeep.settings import Settings
from orderkeep.wiring import chance
from orderkeep.wiring.storage import build_outboxes, open_brokers, open_database
from tests.servers.postgresql import PostgresServer

NAME = "payments_on_servers"

ROUND_COUNT = 2

FULL_SIZES = {"round_count": 9}

PAYMENT_COUNT = 5000

CONSUMER = "the consumer"

# What this is to reach; missed is said, and no failure.
LIMIT_BAR = 0.5

_WAITING_COUNT = 256
_TIME_LIMIT_S = 60.0

_BOOKS = """
SELECT
    (SELECT count(*) FROM orders WHERE status = 'paid' AND version = 2) AS paid,
    (SELECT count(*) FROM order_payments WHERE outcome = 'accepted') AS payments,
    (SELECT count(*) FROM order_inbox) AS inbox,
    (SELECT count(*) FROM order_outbox WHERE type = 'order.paid') AS events,
    (SELECT count(*) FROM payment_cases) AS cases,
    (SELECT count(*) FROM order_dead_letters) AS dead_letters
"""


@dataclass(slots=True, kw_only=True)
class Paying:
    """The rounds on one pair of servers.

    Attributes:
        template: The database with unpaid orders, to be copied.
        messages: A success for each of them.
        rates: Payments per second, a value for each round, by the name of the row.
    """

    server: PostgresServer
    template: str
    folder: Path
    messages: list[BareMessage] = field(default_factory=list)
    rates: dict[str, list[float]] = field(default_factory=dict)

    def settings(self, name: str, *, broker_url: str | None = None) -> Settings:
        """Return the settings for the named database."""
        environment = {"ORDERKEEP_DATABASE_URL": self.server.url(name)}
        if broker_url is not None:
            environment["ORDERKEEP_BROKER_URL"] = broker_url
        return settings_for(self.folder, environment=environment)

    async def place_orders(self) -> None:
        """Place the orders, and make the messages that pay them."""
        settings = self.settings(self.template)
        async with stocked_database(settings):
            pass
        requests = order_requests(is_hot=False)
        async with open_desk(settings) as desk:

            async def buyer(order_count: int) -> None:
                for _ in range(order_count):
                    await desk.place(next(requests))

            each_count, more_count = divmod(PAYMENT_COUNT, _WAITING_COUNT)
            await asyncio.gather(
                *(buyer(each_count + (number < more_count)) for number in range(_WAITING_COUNT))
            )
        orders = self.server.query("SELECT * FROM orders", database=self.template)
        self.messages = [_message(order) for order in orders]

    async def publish(self, broker_url: str, *, repeat_count: int) -> None:
        """Make the queues and fill the one of payments, with each message so many times."""
        settings = self.settings(self.template, broker_url=broker_url)
        brokers = open_brokers(settings, open_database(settings))
        await brokers.consuming.declare(TOPOLOGY)
        await brokers.close()
        async with open_channel(broker_url, kind=pika.adapters.AsyncioConnection) as channel:
            await publish_all(channel, repeat_count * self.messages)

    async def by_consumer(self, settings: Settings) -> float:
        """Pay all orders with the service's own consumer; return payments per second."""
        database = open_database(settings)
        brokers = open_brokers(settings, database)
        outbox = build_outboxes(settings)["orders"]
        finished = asyncio.Event()
        handled_count = 0

        def count(_queue: str, outcome: MessageOutcome, message_count: int) -> None:
            nonlocal handled_count
            assert outcome is MessageOutcome.HANDLED
            handled_count += message_count
            if handled_count >= PAYMENT_COUNT:
                finished.set()

        subscription = Subscription(
            payment_success_consumer(
                outbox=outbox,
                policy=LatePaymentPolicy(settings.late_payment_policy),
                unknown_order_retry_for_s=settings.unknown_order_retry_for_s,
                draw_refund_no=chance.draw_refund_no,
            ),
            database=database,
            broker=brokers.consuming,
            topology=TOPOLOGY,
            outbox=outbox,
            draw_jitter=chance.draw_jitter,
            policy=DeliveryPolicy(prefetch=settings.prefetch),
            count_outcome=count,
            aggregate_name="order_no",
        )
        try:
            # Connected before the clock runs, as the bare consumer is.
            await brokers.consuming.declare(TOPOLOGY)
            started_at_s = time.perf_counter()
            stop = asyncio.Event()
            running = asyncio.create_task(subscription.run(stop))
            async with asyncio.timeout(_TIME_LIMIT_S):
                await finished.wait()
            elapsed_s = time.perf_counter() - started_at_s
            stop.set()
            await running
        finally:
            await brokers.close()
            await database.close()
        return handled_count / elapsed_s

    async def by_bare_consumer(self, kind: str, broker_url: str) -> float:
        """Receive and acknowledge all; return messages per second."""
        message_count = REPEAT_COUNT * PAYMENT_COUNT
        if kind == LIBRABBITMQ:
            return message_count / await asyncio.to_thread(
                consume_from_c,
                broker_url,
                payment_success_notify.QUEUE,
                message_count=message_count,
            )
        async with open_channel(broker_url, kind=KINDS[kind]) as channel:
            elapsed_s = await consume_all(
                channel, payment_success_notify.QUEUE, message_count=message_count
            )
            return message_count / elapsed_s

    def check(self, name: str) -> None:
        """Check that every order is paid, once.

        Raises:
            WrongBooksError: one is not, or is twice.
        """
        expected = {
            **dict.fromkeys(("paid", "payments", "inbox", "events"), PAYMENT_COUNT),
            "cases": 0,
            "dead_letters": 0,
        }
        (found,) = self.server.query(_BOOKS, database=name)
        if found != expected:
            message = f"expected {expected}, found {found}"
            raise WrongBooksError(message)


def _message(order: dict[str, Any]) -> BareMessage:
    order_no = order["order_no"]
    paid_at = order["created_at"]
    return BareMessage(
        exchange="",
        routing_key=payment_success_notify.ROUTE,
        body=payment_success_notify.encode(
            PaymentSucceeded(
                order_no=order_no,
                trade_no=f"T{order_no}",
                payment_no=chance.draw_payment_no(),
                user_id=order["user_id"],
                amount_minor=order["pay_amount_minor"],
                currency=order["currency"],
                paid_at=paid_at,
                pay_channel="sandbox",
            )
        ),
        properties=properties_of(
            message_id=chance.new_uuid(),
            type_=payment_success_notify.TYPE,
            headers={"x-schema-version": 1, "x-aggregate-id": order_no, "x-sequence": 1},
            timestamp_s=paid_at // MICROSECONDS_PER_SECOND,
        ),
    )


def _check_queue_is_empty(broker_url: str) -> None:
    with pika.BlockingConnection(pika.URLParameters(broker_url)) as connection:
        declared = connection.channel().queue_declare(payment_success_notify.QUEUE, passive=True)
        left_count = declared.method.message_count
    if left_count:
        message = f"{left_count} messages are left in the queue"
        raise WrongBooksError(message)


def measure(paying: Paying, *, round_count: int) -> None:
    """Measure all ways in turns."""
    for number in range(round_count):
        for way in (CONSUMER, *KINDS, *([LIBRABBITMQ] if has_librabbitmq() else [])):
            with (
                own_database(paying.server, template=paying.template) as name,
                own_vhost(rabbitmq_server()) as broker_url,
            ):
                repeat_count = 1 if way == CONSUMER else REPEAT_COUNT
                uvloop.run(paying.publish(broker_url, repeat_count=repeat_count))
                if way == CONSUMER:
                    settings = paying.settings(name, broker_url=broker_url)
                    rate = uvloop.run(paying.by_consumer(settings))
                    paying.check(name)
                else:
                    rate = uvloop.run(paying.by_bare_consumer(way, broker_url))
                _check_queue_is_empty(broker_url)
            paying.rates.setdefault(way, []).append(rate)
            say(f"  round {number + 1} of {round_count}, {way}: {rate:,.0f} payments/s")


def run(*, round_count: int = ROUND_COUNT) -> dict[str, Any]:
    """Measure and return the results as JSON."""
    configure_logging("warning", log_format="auto")
    server = postgresql_server()
    measured_on = versions()
    with (
        tempfile.TemporaryDirectory(prefix="orderkeep-bench-") as directory,
        own_database(server) as template,
    ):
        paying = Paying(server=server, template=template, folder=Path(directory))
        uvloop.run(paying.place_orders())
        tidy_up(server, template)
        measure(paying, round_count=round_count)
    figures = {way: figure_of(rates) for way, rates in paying.rates.items()}
    return {
        "servers": measured_on,
        "rounds": round_count,
        "payments": PAYMENT_COUNT,
        "payments_per_s": {way: figure.as_json() for way, figure in figures.items()},
        "of_the_limit": {
            way: round(figures[CONSUMER].median / figure.median, 2)
            for way, figure in figures.items()
            if way != CONSUMER
        },
    }


def show(results: dict[str, Any]) -> str:
    """Return the table."""
    rates = results["payments_per_s"]
    plain = next(iter(KINDS))
    return "\n".join(
        [
            table(
                "Payments per second, quorum queue to PostgreSQL: median of"
                f" {results['rounds']} rounds (lowest to highest), in turns,"
                f" {results['payments']:,} payments each",
                ["", "payments/s", "the consumer is"],
                [
                    [CONSUMER, str(Figure(**rates[CONSUMER])), ""],
                    *(
                        [way, str(Figure(**rates[way])), f"{ratio:.2f} times that"]
                        for way, ratio in results["of_the_limit"].items()
                    ),
                ],
            ),
            bar_line(
                f"at least {LIMIT_BAR:g} times {plain}",
                is_met=results["of_the_limit"][plain] >= LIMIT_BAR,
            ),
        ]
    )


def plots(results: dict[str, Any]) -> list[Plot]:
    """Return the plot of all that was measured."""
    return [
        Plot(
            name="payments",
            title="Payments per second, from a quorum queue; only the first is committed",
            bars={way: Figure(**one) for way, one in results["payments_per_s"].items()},
            ours=[CONSUMER],
        )
    ]


if __name__ == "__main__":
    _results = run(**arguments_of(__doc__, round_count=ROUND_COUNT))
    keep(NAME, _results)
    print(show(_results))
