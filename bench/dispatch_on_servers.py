"""How fast outbox rows in PostgreSQL become messages that a quorum queue has confirmed.

The outbox holds what real orders leave there. In turns:

- the service's own dispatcher, with the default settings, works until nothing is left;
- a bare publisher on the same client library sends the same messages, with the same properties, to
  the same queues, from memory: what the broker and the library can do with no database at all;
- so does one in C, where librabbitmq can be compiled with: what the broker can do.

Each turn has a database and a virtual host of its own. After each the books are checked: every row
is sent, and every queue holds what was sent to it.

Beside them stands the outbox that this project began from: every five seconds it reads a hundred
rows, publishes each, waits for its confirm and marks it as sent. One such round is measured here.
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
    open_channel,
    prepared_for,
    properties_of,
    publish_all,
)
from bench.bare_librabbitmq import LIBRABBITMQ, has_librabbitmq, publish_from_c
from bench.books import WrongBooksError
from bench.figures import Figure, bar_line, figure_of, keep, say, table
from bench.outbox_dispatch import (
    PEER_BATCH_SIZE,
    PEER_INTERVAL_S,
    dispatch_all,
    dispatcher_of,
    fill,
    peer_round,
)
from bench.plots import Plot
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
from orderkeep.contracts import order_timeout_queue
from orderkeep.contracts.topology import HOLD_QUEUE_PREFIX, TIMEOUT_EXCHANGE, TOPOLOGY
from orderkeep.instant import MICROSECONDS_PER_SECOND
from orderkeep.logs import configure_logging
from orderkeep.messaging.headers import decode_headers
from orderkeep.settings import Settings
from orderkeep.wiring.collector import spare_what_stays
from orderkeep.wiring.storage import build_outboxes, open_brokers, open_database
from tests.servers.postgresql import PostgresServer

NAME = "dispatch_on_servers"

ROUND_COUNT = 2

FULL_SIZES = {"round_count": 9}

# Each leaves a timeout check, two cart items and `order.created`, which reaches two queues.
ORDER_COUNT = 5000

# By how many rows it reads at a time: as it is when nobody sets it, and as who has much to send
# sets it (`ORDERKEEP_OUTBOX_BATCH_SIZE`).
BATCH_SIZES = {"the dispatcher": 100, "the dispatcher, 500 rows at a time": 500}
OURS = tuple(BATCH_SIZES)

# What this is to reach; missed is said, and no failure.
LIMIT_BAR = 0.7
PEER_BAR = 200.0


@dataclass(slots=True, kw_only=True)
class Dispatching:
    """The rounds on one pair of servers.

    Attributes:
        template: The database whose outbox is full, to be copied.
        event_count: How many rows it has.
        rates: Events per second, a value for each round, by the name of the row.
    """

    server: PostgresServer
    template: str
    folder: Path
    event_count: int = 0
    rates: dict[str, list[float]] = field(default_factory=dict)

    def settings(
        self, name: str, *, broker_url: str | None = None, batch_size: int = 100
    ) -> Settings:
        """Return the settings for the named database."""
        environment = {
            "ORDERKEEP_DATABASE_URL": self.server.url(name),
            "ORDERKEEP_OUTBOX_BATCH_SIZE": str(batch_size),
        }
        if broker_url is not None:
            environment["ORDERKEEP_BROKER_URL"] = broker_url
        return settings_for(self.folder, environment=environment)

    async def fill(self) -> None:
        """Fill the outbox of the template."""
        settings = self.settings(self.template)
        async with stocked_database(settings) as database:
            self.event_count = await fill(
                database, build_outboxes(settings)["orders"], order_count=ORDER_COUNT
            )

    async def by_dispatcher(self, settings: Settings) -> float:
        """Dispatch everything; return events per second."""
        database = open_database(settings)
        brokers = open_brokers(settings, database)
        outbox = build_outboxes(settings)["orders"]
        broker = brokers.publishing[outbox.tables.service]
        dispatcher = dispatcher_of(settings, outbox=outbox, database=database, broker=broker)
        try:
            await broker.declare(TOPOLOGY)
            started_at_s = time.perf_counter()
            sent_count = await dispatch_all(dispatcher)
            elapsed_s = time.perf_counter() - started_at_s
        finally:
            await dispatcher.close()
            await brokers.close()
            await database.close()
        if sent_count != self.event_count:
            message = f"{sent_count} of {self.event_count} events were sent"
            raise WrongBooksError(message)
        return sent_count / elapsed_s

    async def by_peer(self, settings: Settings) -> float:
        """Return how long a round of the peer takes."""
        database = open_database(settings)
        brokers = open_brokers(settings, database)
        outbox = build_outboxes(settings)["orders"]
        broker = brokers.publishing[outbox.tables.service]
        try:
            await broker.declare(TOPOLOGY)
            return await peer_round(database, broker, outbox)
        finally:
            await brokers.close()
            await database.close()

    async def by_bare_publisher(self, kind: str, settings: Settings) -> float:
        """Publish the same messages from memory; return events per second."""
        brokers = open_brokers(settings, open_database(settings))
        await brokers.consuming.declare(TOPOLOGY)
        await brokers.close()
        (broker_url,) = settings.broker_url
        if kind == LIBRABBITMQ:
            wanted = REPEAT_COUNT * self.messages()
            return len(wanted) / await asyncio.to_thread(publish_from_c, broker_url, wanted)
        messages = prepared_for(KINDS[kind], REPEAT_COUNT * self.messages())
        async with open_channel(broker_url, kind=KINDS[kind]) as channel:
            return len(messages) / await publish_all(channel, messages)

    def messages(self) -> list[BareMessage]:
        """Return what the rows of the template become on the wire."""
        rows = self.server.query("SELECT * FROM order_outbox ORDER BY id", database=self.template)
        return [_bare_message(row) for row in rows]


def _bare_message(row: dict[str, Any]) -> BareMessage:
    exchange, routing_key, expiration_ms = "", row["route"], None
    if row["route"] == order_timeout_queue.ROUTE:
        held_s = (row["deliver_at"] - row["created_at"]) // MICROSECONDS_PER_SECOND
        exchange, routing_key = TIMEOUT_EXCHANGE, f"{HOLD_QUEUE_PREFIX}{1000 * held_s}"
        expiration_ms = 1000 * held_s
    elif row["route"] in {exchange.name for exchange in TOPOLOGY.exchanges}:
        exchange, routing_key = row["route"], row["type"]
    return BareMessage(
        exchange=exchange,
        routing_key=routing_key,
        body=row["body"],
        properties=properties_of(
            message_id=row["message_id"],
            type_=row["type"],
            headers=dict(decode_headers(row["headers"])),
            timestamp_s=row["created_at"] // MICROSECONDS_PER_SECOND,
            expiration_ms=expiration_ms,
        ),
    )


def check_queues(broker_url: str, expected: dict[str, int]) -> None:
    """Check how many messages the queues hold.

    Raises:
        WrongBooksError: they hold others.
    """
    with pika.BlockingConnection(pika.URLParameters(broker_url)) as connection:
        channel = connection.channel()
        held = {
            queue: channel.queue_declare(queue, passive=True).method.message_count
            for queue in expected
        }
    if held != expected:
        message = f"queues hold {held}, expected {expected}"
        raise WrongBooksError(message)


def _expected_in_queues(order_count: int) -> dict[str, int]:
    return {
        "cart-sync": 2 * order_count,
        "order.outbox": order_count,
        "payment.order.events": order_count,
        f"{HOLD_QUEUE_PREFIX}1800000": order_count,
        "order.timeout.queue": 0,
    }


def measure(dispatching: Dispatching, *, round_count: int) -> None:
    """Measure all ways in turns."""
    server = dispatching.server
    for number in range(round_count):
        for way in (*OURS, *KINDS, *([LIBRABBITMQ] if has_librabbitmq() else [])):
            with (
                own_database(server, template=dispatching.template) as name,
                own_vhost(rabbitmq_server()) as broker_url,
            ):
                settings = dispatching.settings(
                    name, broker_url=broker_url, batch_size=BATCH_SIZES.get(way, 100)
                )
                if way in OURS:
                    rate = uvloop.run(dispatching.by_dispatcher(settings))
                    left_count = count_of(
                        server, name, "SELECT count(*) FROM order_outbox WHERE state <> 'sent'"
                    )
                    if left_count:
                        message = f"{left_count} rows are not sent"
                        raise WrongBooksError(message)
                else:
                    rate = uvloop.run(dispatching.by_bare_publisher(way, settings))
                repeat_count = 1 if way in OURS else REPEAT_COUNT
                check_queues(broker_url, _expected_in_queues(repeat_count * ORDER_COUNT))
            dispatching.rates.setdefault(way, []).append(rate)
            say(f"  round {number + 1} of {round_count}, {way}: {rate:,.0f} events/s")


def run(*, round_count: int = ROUND_COUNT) -> dict[str, Any]:
    """Measure and return the results as JSON."""
    # As in the service, whose dispatcher has a line for each event at `debug` alone.
    configure_logging("warning", log_format="auto")
    server = postgresql_server()
    measured_on = versions()
    with (
        tempfile.TemporaryDirectory(prefix="orderkeep-bench-") as directory,
        own_database(server) as template,
    ):
        dispatching = Dispatching(server=server, template=template, folder=Path(directory))
        uvloop.run(dispatching.fill())
        tidy_up(server, template)
        # As in the service; whoever publishes beside it has the same of it.
        spare_what_stays()
        measure(dispatching, round_count=round_count)
        with (
            own_database(server, template=template) as name,
            own_vhost(rabbitmq_server()) as broker_url,
        ):
            peer_s = uvloop.run(
                dispatching.by_peer(dispatching.settings(name, broker_url=broker_url))
            )
    figures = {way: figure_of(rates) for way, rates in dispatching.rates.items()}
    ours = max(figures[way].median for way in OURS)
    peer_rate = PEER_BATCH_SIZE / max(PEER_INTERVAL_S, peer_s)
    return {
        "servers": measured_on,
        "rounds": round_count,
        "events": dispatching.event_count,
        "events_per_s": {way: figure.as_json() for way, figure in figures.items()},
        "of_the_limit": {
            way: round(ours / figure.median, 2)
            for way, figure in figures.items()
            if way not in OURS
        },
        "simulated_peer": {
            "round_s": round(peer_s, 3),
            "events_per_s": round(peer_rate, 1),
            "events_per_s_without_the_wait": round(PEER_BATCH_SIZE / peer_s, 1),
            "times_as_fast": round(ours / peer_rate, 1),
        },
    }


def show(results: dict[str, Any]) -> str:
    """Return the table."""
    peer = results["simulated_peer"]
    plain = next(iter(KINDS))
    return "\n".join(
        [
            table(
                "Outbox events per second, PostgreSQL to quorum queues: median of"
                f" {results['rounds']} rounds (lowest to highest), in turns,"
                f" {results['events']:,} events each",
                ["", "events/s", "the faster is"],
                [
                    *([way, str(Figure(**results["events_per_s"][way])), ""] for way in OURS),
                    *(
                        [
                            way,
                            str(Figure(**results["events_per_s"][way])),
                            f"{results['of_the_limit'][way]:.2f} times that",
                        ]
                        for way in results["of_the_limit"]
                    ),
                    [
                        f"peer: {PEER_BATCH_SIZE} rows every {PEER_INTERVAL_S:g} s, one by one",
                        f"{peer['events_per_s']:,.0f}",
                        f"{peer['times_as_fast']:,.0f} times that",
                    ],
                    [
                        f"the same peer, if it never waited (one round: {peer['round_s']:.2f} s)",
                        f"{peer['events_per_s_without_the_wait']:,.0f}",
                        "",
                    ],
                ],
            ),
            bar_line(
                f"at least {LIMIT_BAR:g} times {plain}, {PEER_BAR:g} times the peer",
                is_met=results["of_the_limit"][plain] >= LIMIT_BAR
                and peer["times_as_fast"] >= PEER_BAR,
            ),
        ]
    )


def plots(results: dict[str, Any]) -> list[Plot]:
    """Return the plot of all that was measured, without the peer, which it would not show."""
    return [
        Plot(
            name="dispatch",
            title="Events per second, from the outbox to quorum queues",
            bars={way: Figure(**one) for way, one in results["events_per_s"].items()},
            ours=OURS,
        )
    ]


if __name__ == "__main__":
    _results = run(**arguments_of(__doc__, round_count=ROUND_COUNT))
    keep(NAME, _results)
    print(show(_results))
