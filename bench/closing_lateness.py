"""How late are ten thousand closings that fall due within ten seconds.

The orders are placed through the use case itself, each few with a payment timeout of their own, so
that their deadlines lie evenly over ten seconds. Then a real service takes over the database: it
dispatches their timeout checks, tells carts and payments of each order, and closes each when it is
due. Lateness is `closed_at` minus `expires_at`, both as they stand in the database.
"""

import asyncio
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.figures import bar_line, keep, quantile, say, table
from bench.running_shop import running_shop
from bench.stage import SKU_COUNT, settings_for, stocked_database
from orderkeep.database.transaction import Database, Transaction
from orderkeep.instant import MICROSECONDS_PER_SECOND, Instant, after
from orderkeep.messaging.outbox import Outbox
from orderkeep.orders.idempotency_key import KeyKind
from orderkeep.orders.place_orders import place_orders
from orderkeep.orders.placing import PlacedOrder, PlaceOrder, PlacingRules
from orderkeep.orders.pricing import WantedLine
from orderkeep.orders.store.requests import RequestKey
from orderkeep.wiring import chance
from orderkeep.wiring.storage import build_outboxes

NAME = "closing_lateness"

# Of the embedded engine, and not among what ten minutes hold.
NEEDS_FULL = True

ORDER_COUNT = 10_000
SPREAD_S = 10.0

# So many orders share one deadline: one every ten milliseconds.
_BATCH_SIZE = 10
_BATCHES_PER_COMMIT = 20

# From the first order placed to the first deadline: the service shall have told everybody of all
# the orders by then, and be idle, as a shop is whose orders came in over half an hour.
LEAD_S = 60.0

# After the last deadline; the sweep would close what no message closed a minute later.
_CLOSE_LIMIT_S = 90.0

# What this is to reach.
P99_BAR_MS = 250.0

_MICROSECONDS_PER_MILLISECOND = 1000


async def place_all(database: Database, outbox: Outbox) -> Instant:
    """Place the orders; return the first deadline."""
    first_due_at = after(chance.now(), seconds=LEAD_S)
    step_s = SPREAD_S * _BATCH_SIZE / ORDER_COUNT
    due_ats = [
        after(first_due_at, seconds=number * step_s) for number in range(ORDER_COUNT // _BATCH_SIZE)
    ]
    for start in range(0, len(due_ats), _BATCHES_PER_COMMIT):
        await _place(
            database,
            outbox,
            dict(list(enumerate(due_ats))[start : start + _BATCHES_PER_COMMIT]),
        )
    return first_due_at


async def _place(database: Database, outbox: Outbox, due_ats: Mapping[int, Instant]) -> None:
    """Place the batches with the given numbers, each with its own deadline."""

    async def write(transaction: Transaction) -> None:
        now = await transaction.now()
        for number, due_at in due_ats.items():
            answers = await place_orders(
                transaction,
                [_request(number * _BATCH_SIZE + place) for place in range(_BATCH_SIZE)],
                outbox=outbox,
                rules=PlacingRules(
                    payment_timeout_s=(due_at - now) / MICROSECONDS_PER_SECOND, token_ttl_s=300
                ),
                draw_number=chance.draw_order_number,
            )
            assert all(isinstance(answer, PlacedOrder) for answer in answers)

    await database.transact(write)


def _request(number: int) -> PlaceOrder:
    return PlaceOrder(
        key=RequestKey(f"buyer-{number % 64}", KeyKind.HEADER, f"bench-{number}"),
        body_hash=f"{number}",
        token_issued_at=None,
        wanted=(
            WantedLine(sku_id=f"MUG-{number % SKU_COUNT:04d}", quantity=1),
            WantedLine(sku_id=f"MUG-{(7 * number + 3) % SKU_COUNT:04d}", quantity=2),
        ),
        receiver=None,
        buyer_remark=None,
        expected_pay_amount_minor=None,
    )


async def _stage(data_dir: Path) -> Instant:
    settings = settings_for(data_dir)
    async with stocked_database(settings) as database:
        return await place_all(database, build_outboxes(settings)["orders"])


def run() -> dict[str, Any]:
    """Measure and return the results as JSON."""
    with tempfile.TemporaryDirectory(prefix="orderkeep-bench-") as directory:
        data_dir = Path(directory) / "shop"
        say(f"  placing {ORDER_COUNT:,} orders")
        first_due_at = asyncio.run(_stage(data_dir))
        with running_shop(data_dir) as shop:
            started_at_s = time.monotonic()
            left_s = (first_due_at - chance.now()) / MICROSECONDS_PER_SECOND
            say(f"  the first is due in {left_s:.1f} s; until then the service tells of them all")
            try:
                shop.watch.await_idle(limit_s=max(left_s, 0.0))
                idle_s = left_s - (time.monotonic() - started_at_s)
                say(f"  all told, {idle_s:.1f} s before the first is due")
            except TimeoutError as error:
                idle_s = 0.0
                say(f"  the first is due now, and {error}")
            threading.Event().wait(max(0.0, idle_s))
            shop.watch.await_closings(ORDER_COUNT, limit_s=SPREAD_S + _CLOSE_LIMIT_S)
            lateness_us = shop.watch.read_lateness_us()
            swept_count = shop.watch.count_swept()
            drain_s = shop.watch.await_idle(limit_s=_CLOSE_LIMIT_S)
    lateness_ms = [late_us / _MICROSECONDS_PER_MILLISECOND for late_us in lateness_us]
    lost_count = ORDER_COUNT - len(lateness_ms)
    if not lateness_ms:
        message = "no order was closed"
        raise RuntimeError(message)
    early_count = sum(late_ms < 0 for late_ms in lateness_ms)
    p99_ms = quantile(lateness_ms, 0.99)
    return {
        "orders": ORDER_COUNT,
        "due_within_s": SPREAD_S,
        "was_idle_before_s": round(idle_s, 1),
        "lost": lost_count,
        "early": early_count,
        "is_wrong": bool(lost_count or early_count),
        "closed_by_sweep": swept_count,
        "lateness_ms": {
            "p50": quantile(lateness_ms, 0.50),
            "p99": p99_ms,
            "max": max(lateness_ms),
        },
        "events_told_after_last_s": round(drain_s, 1),
        "bar": {"p99_ms_max": P99_BAR_MS, "is_met": p99_ms < P99_BAR_MS},
    }


def show(results: dict[str, Any]) -> str:
    """Return the table."""
    lateness_ms = results["lateness_ms"]
    bar = results["bar"]
    return "\n".join(
        [
            table(
                f"Lateness of {results['orders']:,} closings due within"
                f" {results['due_within_s']:g} s",
                ["p50 ms", "p99 ms", "max ms", "early", "lost", "closed by the sweep"],
                [
                    [
                        *(f"{lateness_ms[name]:,.0f}" for name in ("p50", "p99", "max")),
                        *(str(results[name]) for name in ("early", "lost", "closed_by_sweep")),
                    ]
                ],
            ),
            bar_line(
                f"none early, none lost, p99 below {bar['p99_ms_max']:g} ms",
                is_met=bar["is_met"] and not results["is_wrong"],
            ),
        ]
    )


if __name__ == "__main__":
    _results = run()
    keep(NAME, _results)
    print(show(_results))
    sys.exit(_results["is_wrong"])
