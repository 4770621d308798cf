"""Places orders through the order desk itself, as `serve` does behind its routes: no HTTP."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from bench.stage import HOT_SKU, JWT_SECRET, RECEIVER, USER_COUNT, cold_lines
from orderkeep.orders.desk import OrderDesk, OrderRequest
from orderkeep.orders.idempotency_key import KeyKind
from orderkeep.orders.order import Receiver
from orderkeep.orders.pricing import WantedLine
from orderkeep.settings import Settings
from orderkeep.wiring.collector import spare_what_stays
from orderkeep.wiring.order_desks import build_order_desk
from orderkeep.wiring.storage import build_outboxes, open_database


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """What one run placed.

    Attributes:
        order_count: All of them, those of the warm-up too.
        rate: Orders per second after the warm-up.
        latency_ms: Of the orders after the warm-up, where it is known.
    """

    order_count: int
    rate: float
    latency_ms: list[float]


def order_requests(*, is_hot: bool, first_number: int = 0) -> Iterator[OrderRequest]:
    """Yield requests without end, each with a key of its own: what `order_bodies` has as JSON.

    Args:
        is_hot: All want one SKU.
        first_number: Of the first key.
    """
    if is_hot:
        all_wanted = [(WantedLine(sku_id=HOT_SKU, quantity=1),)]
    else:
        all_wanted = [
            tuple(WantedLine(sku_id=sku_id, quantity=quantity) for sku_id, quantity in lines)
            for lines in cold_lines()
        ]
    receiver = Receiver(**RECEIVER)
    for number, wanted in enumerate(itertools.cycle(all_wanted), start=first_number):
        yield OrderRequest(
            user_id=f"buyer-{number % USER_COUNT}",
            key_kind=KeyKind.HEADER,
            key=f"bench-{number}",
            # As long as the hash of a body is.
            body_hash=f"{number:064x}",
            wanted=wanted,
            receiver=receiver,
            buyer_remark=None,
            expected_pay_amount_minor=None,
        )


@asynccontextmanager
async def open_desk(settings: Settings) -> AsyncIterator[OrderDesk]:
    """Give a desk at which orders are taken until the context ends."""
    database = open_database(settings)
    try:
        desk = build_order_desk(
            settings,
            database=database,
            outbox=build_outboxes(settings)["orders"],
            token_secret=JWT_SECRET,
        )
        stop = asyncio.Event()
        intake = asyncio.create_task(desk.intake.run(stop))
        try:
            yield desk
        finally:
            stop.set()
            await intake
    finally:
        await database.close()


async def place_by_desk(
    settings: Settings,
    *,
    is_hot: bool,
    waiting_count: int,
    warm_up_s: float,
    measured_s: float,
    first_number: int = 0,
) -> Placed:
    """Keep so many requests waiting until the time is up; each is answered after its commit.

    Args:
        settings: Name the database.
        is_hot: All want one SKU.
        waiting_count: Requests under way at once.
        warm_up_s: Not counted.
        measured_s: Counted.
        first_number: Of the first key.
    """
    loop = asyncio.get_running_loop()
    requests = order_requests(is_hot=is_hot, first_number=first_number)
    answered: list[tuple[float, float]] = []
    async with open_desk(settings) as desk:
        # As in the service.
        spare_what_stays()
        counted_from_s = loop.time() + warm_up_s
        ends_at_s = counted_from_s + measured_s

        async def buyer() -> None:
            while (sent_at_s := loop.time()) < ends_at_s:
                await desk.place(next(requests))
                answered.append((sent_at_s, loop.time()))

        await asyncio.gather(*(buyer() for _ in range(waiting_count)))
    counted = [
        (sent_at_s, at_s) for sent_at_s, at_s in answered if counted_from_s <= at_s < ends_at_s
    ]
    return Placed(
        order_count=len(answered),
        rate=len(counted) / measured_s,
        latency_ms=[1000 * (at_s - sent_at_s) for sent_at_s, at_s in counted],
    )
