"""How many outbox events per second the dispatcher sends, over queues in the database.

The outbox is filled with what real orders leave there; then the service's own dispatcher, with the
default settings, works until nothing is left. Nothing else runs.

Beside it stands a simulated peer, the outbox this project began from: every five seconds it reads
a hundred rows, publishes each, marks each as sent, one commit after the other. One such round is
measured here, over the same broker; its rate is that round's hundred rows in five seconds.
"""

import asyncio
import tempfile
import time
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from bench.figures import Figure, figure_of, keep, say, table
from bench.stage import settings_for, stocked_database
from orderkeep.contracts.topology import TOPOLOGY
from orderkeep.database.transaction import Database, Transaction
from orderkeep.instant import Instant, after
from orderkeep.logs import configure_logging
from orderkeep.messaging.broker import Broker
from orderkeep.messaging.dispatcher import Dispatcher
from orderkeep.messaging.message import Event, PublishResult
from orderkeep.messaging.outbox import PARTITION_COUNT, Outbox
from orderkeep.messaging.outbox_reading import OutboxReading
from orderkeep.messaging.outbox_settling import DispatchPolicy
from orderkeep.orders.events import created_event_count, created_events
from orderkeep.orders.order import Order, OrderLine, OrderNumber, Status
from orderkeep.orders.order_number import make_order_number
from orderkeep.settings import Settings
from orderkeep.wiring import chance
from orderkeep.wiring.storage import build_outboxes, open_brokers

NAME = "outbox_dispatch"

# Of the embedded engine, and not among what ten minutes hold.
NEEDS_FULL = True

ROUND_COUNT = 3

# Each leaves a timeout check, two cart items and `order.created`, which reaches two queues.
ORDER_COUNT = 5500
_FILL_BATCH_SIZE = 500

# The peer's numbers.
PEER_BATCH_SIZE = 100
PEER_INTERVAL_S = 5.0

_TIME_LIMIT_S = 60.0


def made_up_order(*, now: Instant) -> Order:
    """Return an order of two lines that came from a cart."""
    lines = tuple(
        OrderLine(
            line_no=line_no,
            sku_id=f"MUG-{line_no:04d}",
            title=f"Stoneware mug MUG-{line_no:04d}",
            unit_price_minor=1990,
            quantity=line_no,
            subtotal_minor=1990 * line_no,
            cart_item_id=chance.new_uuid(),
        )
        for line_no in (1, 2)
    )
    return Order(
        order_no=OrderNumber(make_order_number(now, drawn=chance.draw_order_number())),
        user_id="buyer-1",
        status=Status.PENDING_PAYMENT,
        version=1,
        event_seq=created_event_count(lines),
        lines=lines,
        total_amount_minor=5970,
        pay_amount_minor=5970,
        currency="CNY",
        created_at=now,
        expires_at=after(now, seconds=1800),
    )


async def fill(database: Database, outbox: Outbox, *, order_count: int) -> int:
    """Append the events of made-up orders, in batches of 500; return how many there are."""
    event_count = 0
    for _ in range(order_count // _FILL_BATCH_SIZE):

        async def append(transaction: Transaction) -> int:
            now = await transaction.now()
            events: list[Event] = []
            for _ in range(_FILL_BATCH_SIZE):
                events.extend(created_events(made_up_order(now=now)))
            await outbox.append(transaction, events, now=now)
            return len(events)

        event_count += await database.transact(append)
    return event_count


async def dispatch_all(dispatcher: Dispatcher) -> int:
    """Run rounds of the dispatcher until one finds nothing; return how many rows it sent."""
    sent_count = 0
    async with asyncio.timeout(_TIME_LIMIT_S):
        while True:
            dispatched = await dispatcher.run_once()
            if dispatched.refused_count or dispatched.held_back_count:
                message = "the broker did not take every event"
                raise RuntimeError(message)
            if not dispatched.sent_count:
                return sent_count
            sent_count += dispatched.sent_count


async def peer_round(database: Database, broker: Broker, outbox: Outbox) -> float:
    """Do what the peer does every five seconds, and return how long it took."""
    reading = OutboxReading(outbox.tables)
    started_at_s = time.perf_counter()
    ready = await database.read(
        lambda transaction: reading.ready(
            transaction,
            partitions=range(PARTITION_COUNT),
            paused_routes=(),
            limit=PEER_BATCH_SIZE,
        )
    )
    assert len(ready.rows) == PEER_BATCH_SIZE
    for row in ready.rows:
        message = replace(row.message, order_key=None)
        (published,) = await broker.publish([message], now=ready.now)
        assert published.result is PublishResult.CONFIRMED

        async def mark_sent(transaction: Transaction, row_id: int = row.id) -> None:
            await reading.settle_sent(transaction, [row_id])

        await database.transact(mark_sent)
    return time.perf_counter() - started_at_s


def dispatcher_of(
    settings: Settings, *, outbox: Outbox, database: Database, broker: Broker
) -> Dispatcher:
    """Return the dispatcher as the service has it."""
    return Dispatcher(
        outbox,
        database=database,
        broker=broker,
        topology=TOPOLOGY,
        draw_jitter=chance.draw_jitter,
        policy=DispatchPolicy(
            poll_interval_s=settings.outbox_poll_interval_s,
            batch_size=settings.outbox_batch_size,
        ),
        aggregate_name="order_no",
    )


async def _measure_once(data_dir: Path, *, with_peer: bool) -> tuple[int, float, float | None]:
    """Return how many events were sent, in how many seconds, and how long the peer's round took."""
    settings = settings_for(data_dir)
    async with stocked_database(settings) as database:
        queue = open_brokers(settings, database).database_queue
        assert queue is not None
        outbox = build_outboxes(settings)["orders"]
        await queue.declare(TOPOLOGY)
        filled_count = await fill(database, outbox, order_count=ORDER_COUNT)
        peer_s = await peer_round(database, queue, outbox) if with_peer else None
        dispatcher = dispatcher_of(settings, outbox=outbox, database=database, broker=queue)
        started_at_s = time.perf_counter()
        sent_count = await dispatch_all(dispatcher)
        elapsed_s = time.perf_counter() - started_at_s
        assert sent_count == filled_count - (PEER_BATCH_SIZE if with_peer else 0)
        return sent_count, elapsed_s, peer_s


def run() -> dict[str, Any]:
    """Measure and return the results as JSON."""
    # As in the service, whose dispatcher has a line for each event at `debug` alone.
    configure_logging("warning", log_format="auto")
    return asyncio.run(_run())


async def _run() -> dict[str, Any]:
    rates: list[float] = []
    peer_rounds_s: list[float] = []
    sent_count = 0
    with tempfile.TemporaryDirectory(prefix="orderkeep-bench-") as directory:
        for number in range(ROUND_COUNT):
            sent_count, elapsed_s, peer_s = await _measure_once(
                Path(directory) / f"round-{number}", with_peer=number == 0
            )
            rates.append(sent_count / elapsed_s)
            if peer_s is not None:
                peer_rounds_s.append(peer_s)
            say(f"  round {number + 1} of {ROUND_COUNT}: {rates[-1]:,.0f} events/s")
    peer_round_s = peer_rounds_s[0]
    return {
        "rounds": ROUND_COUNT,
        "events": sent_count,
        "events_per_s": figure_of(rates).as_json(),
        "simulated_peer": {
            "round_s": round(peer_round_s, 3),
            "events_per_s": round(PEER_BATCH_SIZE / max(PEER_INTERVAL_S, peer_round_s), 1),
            "events_per_s_without_the_wait": round(PEER_BATCH_SIZE / peer_round_s, 1),
        },
    }


def show(results: dict[str, Any]) -> str:
    """Return the table."""
    peer = results["simulated_peer"]
    return table(
        f"Outbox events per second: median of {results['rounds']} rounds (lowest to highest),"
        f" {results['events']:,} events each",
        ["", "events/s"],
        [
            ["the dispatcher", str(Figure(**results["events_per_s"]))],
            [
                f"simulated peer: every {PEER_INTERVAL_S:g} s {PEER_BATCH_SIZE} rows, one by one",
                f"{peer['events_per_s']:,.0f}",
            ],
            [
                f"the same peer, if it never waited (one round: {peer['round_s']:.2f} s)",
                f"{peer['events_per_s_without_the_wait']:,.0f}",
            ],
        ],
    )


if __name__ == "__main__":
    _results = run()
    keep(NAME, _results)
    print(show(_results))
