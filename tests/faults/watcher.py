"""Looks at the stock all the time, while everything else is broken.

Invariant that it watches, in every committed snapshot and for each SKU: what was put in stock is
what is available, reserved and sold together; none of the three is below zero; reserved is what
unpaid orders hold, and sold is what paid ones have. And no order is closed whose deadline is still
to come, by the clock of the database alone: what a process says when it was closed proves nothing
where its own clock is wrong.

It connects to the database itself, past the proxy, in a thread of its own. While the server is away
there is nothing to see, and no snapshot is counted.
"""

import asyncio
import threading
import time
from dataclasses import dataclass, field
from typing import Self

import asyncpg

from tests.acceptance.fleet_books import NO_ANSWER

# The last is what a connection says that was given up in the middle of something.
_NO_SNAPSHOT = (*NO_ANSWER, asyncpg.InternalClientError)

INTERVAL_S = 0.2

_CONNECT_S_MAX = 2.0
_READ_S_MAX = 10.0
_STOP_S_MAX = 30.0
_BREACHES_KEPT_MAX = 50

# Orders are many: how they add up is looked at in every so-manieth snapshot.
_ORDERS_EVERY = 5

_STOCK = """
    select stock.sku_id, stock.available, stock.reserved, stock.sold, coalesce(moved.quantity, 0)
    from stock left join (
        select sku_id, sum(quantity)::bigint as quantity from stock_movements
        where kind = 'adjust' group by sku_id) as moved on moved.sku_id = stock.sku_id
    where available < 0 or reserved < 0 or sold < 0
        or available + reserved + sold != coalesce(moved.quantity, 0)"""

_HELD = """
    select stock.sku_id, stock.reserved, stock.sold, coalesce(held.reserved, 0),
        coalesce(held.sold, 0)
    from stock left join (
        select line.sku_id,
            sum(line.quantity) filter (where orders.status = 'pending_payment') as reserved,
            sum(line.quantity) filter (where orders.status = 'paid') as sold
        from order_lines as line join orders on orders.order_no = line.order_no
        group by line.sku_id) as held on held.sku_id = stock.sku_id
    where stock.reserved != coalesce(held.reserved, 0) or stock.sold != coalesce(held.sold, 0)"""

# The clock is read after the snapshot was taken, so an order that was due in it is due here.
_CLOSED_EARLY = """
    select order_no, expires_at from orders where status = 'closed'
        and expires_at > (extract(epoch from clock_timestamp()) * 1000000)::bigint"""


@dataclass(slots=True)
class Seen:
    """What the watcher saw.

    Attributes:
        snapshots_count: How often the stock equation was looked at.
        orders_count: How often the orders as well, in the same snapshot.
        missed_count: How often there was nobody to ask.
        breaches: What did not add up; the first few of `breaches_count`.
        early_nos: Orders that were closed while their deadline was still to come.
    """

    snapshots_count: int = 0
    orders_count: int = 0
    missed_count: int = 0
    breaches_count: int = 0
    breaches: list[str] = field(default_factory=list)
    early_nos: set[str] = field(default_factory=set)

    @property
    def looks_count(self) -> int:
        """How often it looked, or tried to."""
        return self.snapshots_count + self.missed_count


class StockWatcher:
    """Takes a snapshot each 200 ms, from the start of its context to the end."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stock watcher")
        self.seen = Seen()
        self._error: Exception | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Look no more.

        Raises:
            Exception: what ended the looking before.
        """
        self._over.set()
        self._thread.join(_STOP_S_MAX)
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _run(self) -> None:
        try:
            asyncio.run(self._watch())
        except Exception as error:  # noqa: BLE001 (raised again by `stop`)
            self._error = error

    async def _watch(self) -> None:
        while not self._over.is_set():
            try:
                connection = await asyncpg.connect(
                    self._url, timeout=_CONNECT_S_MAX, command_timeout=_READ_S_MAX
                )
            except _NO_SNAPSHOT:
                self.seen.missed_count += 1
                self._over.wait(INTERVAL_S)
                continue
            try:
                await self._watch_over(connection)
            except _NO_SNAPSHOT:
                self.seen.missed_count += 1
            finally:
                connection.terminate()

    async def _watch_over(self, connection: asyncpg.Connection) -> None:
        next_s = time.monotonic()
        while not self._over.is_set():
            await self.look(connection)
            next_s = max(next_s + INTERVAL_S, time.monotonic())
            self._over.wait(next_s - time.monotonic())

    async def look(self, connection: asyncpg.Connection) -> None:
        """Take one snapshot and note what does not add up in it."""
        has_orders = self.seen.snapshots_count % _ORDERS_EVERY == 0
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            found = [("stock", row) for row in await connection.fetch(_STOCK)]
            if has_orders:
                found += [("orders", row) for row in await connection.fetch(_HELD)]
                self.seen.early_nos |= {row[0] for row in await connection.fetch(_CLOSED_EARLY)}
        self.seen.snapshots_count += 1
        self.seen.orders_count += has_orders
        self.seen.breaches_count += len(found)
        room = max(_BREACHES_KEPT_MAX - len(self.seen.breaches), 0)
        self.seen.breaches += [f"{kind} {tuple(row)}" for kind, row in found[:room]]
