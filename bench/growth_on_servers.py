"""How much slower place, close, dispatch and list are with ten million orders in the tables.

Two databases: a new one in each round, and one that holds ten million ended orders with all that
they leave, among it twenty million sent events, and keeps what the rounds add to it. In turns, on
each:

- place: orders through the order desk, 256 waiting;
- close: orders that are due, a hundred in a transaction, four at once;
- dispatch: all that the two have left in the outbox, to quorum queues;
- list: the newest orders of a buyer, and of a status, sixteen at once.

The large database takes about four kilobytes of disk for each order, and half an hour to fill.
"""

import asyncio
import itertools
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import asyncpg
import uvloop

from bench.figures import Figure, SkippedError, bar_line, figure_of, keep, say, table
from bench.outbox_dispatch import dispatch_all, dispatcher_of
from bench.placing_by_desk import place_by_desk
from bench.placing_due import place_due
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
from orderkeep.contracts.page import PAGE_LIMIT_DEFAULT
from orderkeep.contracts.topology import TOPOLOGY
from orderkeep.database.transaction import Database, ReadTransaction, Transaction
from orderkeep.instant import MICROSECONDS_PER_SECOND, after
from orderkeep.logs import configure_logging
from orderkeep.messaging.outbox import Outbox
from orderkeep.orders.close_orders import close_orders
from orderkeep.orders.order import Order, Status
from orderkeep.orders.store.reports import OrderFilter, list_orders
from orderkeep.settings import Settings
from orderkeep.wiring import chance
from orderkeep.wiring.storage import build_outboxes, open_brokers, open_database
from tests.servers.postgresql import PostgresServer

NAME = "growth_on_servers"

ORDER_COUNT = 10_000_000
ROUND_COUNT = 5
MEASURED_S = 5

# No ten minutes answer this.
NEEDS_FULL = True

EMPTY = "empty"
FULL = "full"

# What this is to reach: of the rate on empty tables.
RATIO_BAR = 0.8

_FILL = Path(__file__).with_name("growth_fill.sql").read_text(encoding="utf-8")
# What they sold was there before.
_SELL_FILLED = """
WITH filled AS (
    SELECT sku_id, count(*) AS sold FROM stock_movements WHERE kind = 'sell' GROUP BY sku_id
), added AS (
    INSERT INTO stock_movements (sku_id, kind, cause, quantity, moved_at)
    SELECT sku_id, 'adjust', 'filled', sold, 1 FROM filled
)
UPDATE stock SET sold = stock.sold + filled.sold FROM filled WHERE filled.sku_id = stock.sku_id
"""

_FILLED_TOGETHER = 100_000
_USER_COUNT = 1_000_000
_FILLED_AGE_MS = 3 * 86_400_000
_BYTES_PER_ORDER = 5_000

_WAITING_COUNT = 256
_WARM_UP_S = 1.0
_DUE_COUNT = 4_000
_DUE_S = 2.0
_PLACED_TOGETHER = 100
_CLOSED_TOGETHER = 100
_CLOSER_COUNT = 4
_LISTER_COUNT = 16


def fill(server: PostgresServer, name: str, *, order_count: int) -> None:
    """Fill the database, which has a catalogue, with ended orders.

    Raises:
        SkippedError: there is no room for them.
    """
    _require_room(server, order_count=order_count)
    begun_ms = chance.now() // 1000 - _FILLED_AGE_MS

    async def insert() -> None:
        connection = await asyncpg.connect(server.url(name))
        try:
            # For these rows alone: if the server dies now, the measurement dies with it.
            await connection.execute("SET synchronous_commit = off")
            for first in range(0, order_count, _FILLED_TOGETHER):
                count = min(_FILLED_TOGETHER, order_count - first)
                await connection.fetch(
                    _FILL.format(
                        first=first, order_count=count, begun_ms=begun_ms, user_count=_USER_COUNT
                    )
                )
                if first // _FILLED_TOGETHER % 10 == 0:
                    say(f"  {first + count:,} of {order_count:,} orders are filled in")
            await connection.execute(_SELL_FILLED)
            await connection.execute("VACUUM (ANALYZE)")
        finally:
            await connection.close()

    uvloop.run(insert())


def _require_room(server: PostgresServer, *, order_count: int) -> None:
    folder = Path(count_of(server, "postgres", "SHOW data_directory"))
    if not folder.exists():
        # Another machine's, or not ours to see.
        return
    wanted_bytes = order_count * _BYTES_PER_ORDER
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < wanted_bytes:
        message = f"{order_count:,} orders take {wanted_bytes:,} bytes, and {free_bytes:,} are free"
        raise SkippedError(message)


class Turn:
    """One turn on one database."""

    def __init__(self, settings: Settings, *, measured_s: float) -> None:
        """Work on what the settings name."""
        self._settings = settings
        self._measured_s = measured_s
        self._outbox: Outbox = build_outboxes(settings)["orders"]

    async def run(self) -> dict[str, float]:
        """Return the rates, by what was done."""
        placed = await place_by_desk(
            self._settings,
            is_hot=False,
            waiting_count=_WAITING_COUNT,
            warm_up_s=_WARM_UP_S,
            measured_s=self._measured_s,
            # Keys of the rounds before are taken.
            first_number=chance.now(),
        )
        database = open_database(self._settings)
        try:
            return {
                "place": placed.rate,
                "close": await self._close(database),
                "dispatch": await self._dispatch(database),
                "list": await self._list(database),
            }
        finally:
            await database.close()

    async def _close(self, database: Database) -> float:
        first_number = chance.now()
        due_at = first_number
        order_nos: list[str] = []
        for first in range(0, _DUE_COUNT, _PLACED_TOGETHER):
            due_at = after(chance.now(), seconds=_DUE_S)
            order_nos += await place_due(
                database,
                self._outbox,
                first_number=first_number + first,
                count=_PLACED_TOGETHER,
                due_at=due_at,
            )
        batches = iter(
            [
                order_nos[first : first + _CLOSED_TOGETHER]
                for first in range(0, _DUE_COUNT, _CLOSED_TOGETHER)
            ]
        )
        await asyncio.sleep(max(0.0, (due_at - chance.now()) / MICROSECONDS_PER_SECOND))
        closed_count = 0

        async def closer() -> None:
            nonlocal closed_count
            for batch in batches:

                async def close(transaction: Transaction, batch: list[str] = batch) -> int:
                    closings = await close_orders(
                        transaction, dict.fromkeys(batch, "sweep"), outbox=self._outbox
                    )
                    return len(closings.closed)

                # Not added in one step: what others add while it waits would be lost.
                count = await database.transact(close)
                closed_count += count

        started_at_s = time.perf_counter()
        await asyncio.gather(*(closer() for _ in range(_CLOSER_COUNT)))
        elapsed_s = time.perf_counter() - started_at_s
        if closed_count != _DUE_COUNT:
            message = f"{closed_count} of {_DUE_COUNT} orders that were due are closed"
            raise RuntimeError(message)
        return closed_count / elapsed_s

    async def _dispatch(self, database: Database) -> float:
        brokers = open_brokers(self._settings, database)
        broker = brokers.publishing[self._outbox.tables.service]
        dispatcher = dispatcher_of(
            self._settings, outbox=self._outbox, database=database, broker=broker
        )
        try:
            await broker.declare(TOPOLOGY)
            started_at_s = time.perf_counter()
            sent_count = await dispatch_all(dispatcher)
            return sent_count / (time.perf_counter() - started_at_s)
        finally:
            await dispatcher.close()
            await brokers.close()

    async def _list(self, database: Database) -> float:
        loop = asyncio.get_running_loop()
        ends_at_s = loop.time() + self._measured_s
        listed_count = 0
        filters = itertools.cycle(
            [
                *(OrderFilter(user_id=f"buyer-{number}") for number in range(64)),
                *(OrderFilter(status=status) for status in (Status.CLOSED, Status.PENDING_PAYMENT)),
            ]
        )

        async def lister() -> None:
            nonlocal listed_count
            while loop.time() < ends_at_s:
                wanted = next(filters)

                async def read(
                    transaction: ReadTransaction, wanted: OrderFilter = wanted
                ) -> list[Order]:
                    return list(
                        await list_orders(transaction, wanted, limit_count=PAGE_LIMIT_DEFAULT)
                    )

                listed = await database.read(read)
                assert listed, wanted
                listed_count += 1

        await asyncio.gather(*(lister() for _ in range(_LISTER_COUNT)))
        return listed_count / self._measured_s


def measure(
    server: PostgresServer, folder: Path, *, order_count: int, round_count: int, measured_s: float
) -> dict[str, dict[str, list[float]]]:
    """Return the rates on both databases, by what was done, measured in turns."""
    rates: dict[str, dict[str, list[float]]] = {EMPTY: {}, FULL: {}}
    with own_database(server) as template:
        uvloop.run(_stock(settings_for(folder, environment=_environment(server, template))))
        tidy_up(server, template)
        with own_database(server, template=template) as full_name:
            fill(server, full_name, order_count=order_count)
            for number in range(round_count):
                with own_database(server, template=template) as empty_name:
                    for size, name in ((EMPTY, empty_name), (FULL, full_name)):
                        found = _turn(server, name, folder=folder, measured_s=measured_s)
                        for what, rate in found.items():
                            rates[size].setdefault(what, []).append(rate)
                        shown = ", ".join(f"{what} {rate:,.0f}/s" for what, rate in found.items())
                        say(f"  round {number + 1} of {round_count}, {size}: {shown}")
    return rates


def _turn(
    server: PostgresServer, name: str, *, folder: Path, measured_s: float
) -> Mapping[str, float]:
    with own_vhost(rabbitmq_server()) as broker_url:
        environment = {**_environment(server, name), "ORDERKEEP_BROKER_URL": broker_url}
        settings = settings_for(folder, environment=environment)
        return uvloop.run(Turn(settings, measured_s=measured_s).run())


def _environment(server: PostgresServer, name: str) -> dict[str, str]:
    return {"ORDERKEEP_DATABASE_URL": server.url(name)}


async def _stock(settings: Settings) -> None:
    async with stocked_database(settings):
        pass


def run(
    *,
    order_count: int = ORDER_COUNT,
    round_count: int = ROUND_COUNT,
    measured_s: float = MEASURED_S,
) -> dict[str, Any]:
    """Measure and return the results as JSON."""
    configure_logging("warning", log_format="auto")
    measured_on = versions()
    with tempfile.TemporaryDirectory(prefix="orderkeep-bench-") as directory:
        rates = measure(
            postgresql_server(),
            Path(directory),
            order_count=order_count,
            round_count=round_count,
            measured_s=measured_s,
        )
    figures = {
        size: {what: figure_of(values) for what, values in found.items()}
        for size, found in rates.items()
    }
    return {
        "servers": measured_on,
        "orders": order_count,
        "rounds": round_count,
        "rates": {
            what: {
                **{size: figures[size][what].as_json() for size in figures},
                "of_the_empty": round(figures[FULL][what].median / empty.median, 2),
            }
            for what, empty in figures[EMPTY].items()
        },
    }


def show(results: dict[str, Any]) -> str:
    """Return the table."""
    rates = results["rates"]
    return "\n".join(
        [
            table(
                f"Per second with {results['orders']:,} orders in the tables and twice as many sent"
                f" events: median of {results['rounds']} rounds (lowest to highest), in turns",
                ["", "empty tables", "full tables", "full are"],
                [
                    [
                        what,
                        str(Figure(**one[EMPTY])),
                        str(Figure(**one[FULL])),
                        f"{one['of_the_empty']:.2f} times the empty",
                    ]
                    for what, one in rates.items()
                ],
            ),
            bar_line(
                f"all at least {RATIO_BAR:g} times the rate on empty tables",
                is_met=min(one["of_the_empty"] for one in rates.values()) >= RATIO_BAR,
            ),
        ]
    )


def plots(results: dict[str, Any]) -> list[Plot]:
    """Return one plot for each thing that is done."""
    return [
        Plot(
            name=f"growth-{what}",
            title=f"{what.capitalize()}, per second, with {results['orders']:,} orders or none",
            bars={size: Figure(**one[size]) for size in (EMPTY, FULL)},
            ours=[FULL],
        )
        for what, one in results["rates"].items()
    ]


if __name__ == "__main__":
    _results = run(
        **arguments_of(
            __doc__, order_count=ORDER_COUNT, round_count=ROUND_COUNT, measured_s=MEASURED_S
        )
    )
    keep(NAME, _results)
    print(show(_results))
