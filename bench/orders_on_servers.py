"""How many orders per second on PostgreSQL and RabbitMQ, beside what the database alone can do.

Three ways to place the same orders, in turns, so that what else the machine does meets all of them:

- by the order desk, in this process: gathered requests, batches, statements, and no HTTP;
- over HTTP: one `orderkeep serve`, with one `orderkeep work` that dispatches and consumes, and once
  more without, as where that runs on another machine;
- by pgbench: one function in the database that writes the same rows in one round trip, the best of
  a few numbers of clients. This is the limit of one order per transaction.

Each turn has a database of its own, a copy of the same one: a stocked catalogue and no order.
Orders are of two lines out of a thousand SKUs, or of one line of the one SKU that all want. After
each turn the books are checked: an order for each answer, and the stock.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import uvloop

from bench.books import check_orders
from bench.figures import Figure, bar_line, figure_of, keep, quantile, say, table
from bench.http_load import run_load
from bench.placing_by_desk import Placed, place_by_desk
from bench.placing_limit import CLIENT_COUNTS, install_limit, place_by_pgbench, place_samples
from bench.plots import Plot
from bench.running_shop import running_processes
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
from bench.stage import order_bodies, settings_for, stocked_database, user_tokens
from tests.servers.postgresql import PostgresServer

NAME = "orders_on_servers"

ROUND_COUNT = 2

FULL_SIZES = {"round_count": 9, "measured_s": 5}

# Plans and caches are made in the first second.
WARM_UP_S = 1
MEASURED_S = 2

# Two full batches: as many as are under way at once.
WAITING_COUNT = 256

CONNECTION_COUNT = 128

# Requests are made before the first is sent: more than any machine answers with one process.
HTTP_ORDERS_PER_S_MAX = 8000

DESK = "order desk"
HTTP = "over HTTP"
HTTP_ALONE = "over HTTP, no `work`"

# What this is to reach, of the limit: on many SKUs, on one. The limit sends nothing to anybody, so
# it is `serve` alone that stands beside it like for like; what `work` takes of it is said as well.
RATIO_BARS: Mapping[str, tuple[float, float]] = {
    DESK: (1.2, 3.0),
    HTTP_ALONE: (0.7, 1.5),
    HTTP: (0.7, 1.5),
}

# And how fast one SKU is to be, beside many.
HOT_TO_COLD_BAR = 0.9

# By the name of the row: whether all want one SKU, and the lines of an order.
HEATS: Mapping[str, tuple[bool, int]] = {"many SKUs": (False, 2), "one SKU": (True, 1)}


@dataclass(slots=True, kw_only=True)
class Measured:
    """What one way did of one heat, a value for each round."""

    rates: list[float] = field(default_factory=list)
    latency_ms: list[float] = field(default_factory=list)


# Places orders in the named database: all of one SKU, or not.
Place = Callable[[str, bool], Placed]


class Placing:
    """The ways to place orders on the same servers."""

    def __init__(self, server: PostgresServer, *, folder: Path, measured_s: int) -> None:
        """Place orders in databases of the server, for so long after the warm-up."""
        self._server = server
        self._measured_s = measured_s
        self._folder = folder
        self._turn_count = 0

    def ways(self) -> dict[str, Place]:
        """Return the ways by name, in the order of their turns."""
        few, many = (partial(self._by_pgbench, count) for count in CLIENT_COUNTS)
        return {
            pgbench_name(CLIENT_COUNTS[0]): few,
            DESK: self._by_desk,
            pgbench_name(CLIENT_COUNTS[1]): many,
            HTTP: partial(self._over_http, ("work", "serve")),
            HTTP_ALONE: partial(self._over_http, ("serve",)),
        }

    def _by_pgbench(self, client_count: int, name: str, is_hot: bool) -> Placed:  # noqa: FBT001 (see Place)
        return place_by_pgbench(
            self._server.url(name),
            is_hot=is_hot,
            client_count=client_count,
            warm_up_s=WARM_UP_S,
            measured_s=self._measured_s,
        )

    def _by_desk(self, name: str, is_hot: bool) -> Placed:  # noqa: FBT001 (see Place)
        # On the loop that the service runs on.
        return uvloop.run(
            place_by_desk(
                settings_for(self._folder, environment=self.environment(name)),
                is_hot=is_hot,
                waiting_count=WAITING_COUNT,
                warm_up_s=WARM_UP_S,
                measured_s=self._measured_s,
            )
        )

    def _over_http(self, names: Sequence[str], name: str, is_hot: bool) -> Placed:  # noqa: FBT001 (see Place)
        self._turn_count += 1
        folder = self._folder / f"turn-{self._turn_count}"
        folder.mkdir()
        with own_vhost(rabbitmq_server()) as broker_url:
            environment = {**self.environment(name), "ORDERKEEP_BROKER_URL": broker_url}
            with running_processes(folder, environment=environment, names=names) as running:
                outcomes = [
                    run_load(
                        {
                            "host": "127.0.0.1",
                            "port": running.port,
                            "client_count": CONNECTION_COUNT,
                            "order_count": duration_s * HTTP_ORDERS_PER_S_MAX,
                            "key_prefix": f"bench-{number}",
                            "tokens": user_tokens(),
                            "bodies": order_bodies(is_hot=is_hot),
                            "stop_after_s": duration_s,
                        }
                    )
                    for number, duration_s in enumerate((WARM_UP_S, self._measured_s))
                ]
                running.check()
                pending_count = count_of(
                    self._server,
                    name,
                    "SELECT count(*) FROM order_outbox WHERE state = 'pending'",
                )
                say(f"    {pending_count:,} events left to send")
        if refused := {**outcomes[0]["refused"], **outcomes[1]["refused"]}:
            message = f"orders were refused: {refused}"
            raise RuntimeError(message)
        counted = outcomes[1]
        return Placed(
            order_count=sum(outcome["created_count"] for outcome in outcomes),
            rate=counted["created_count"] / counted["elapsed_s"],
            latency_ms=counted["latency_ms"],
        )

    def environment(self, name: str) -> dict[str, str]:
        """Return the settings that name the database."""
        return {
            "ORDERKEEP_DATABASE_URL": self._server.url(name),
            "ORDERKEEP_LOG_LEVEL": "warning",
        }


def pgbench_name(client_count: int) -> str:
    """Return what the limit with so many clients is called."""
    return f"pgbench, {client_count} clients"


@contextmanager
def prepared(server: PostgresServer, placing: Placing, *, folder: Path) -> Iterator[str]:
    """Give a database by name, to be copied: a stocked catalogue, and the limit's function."""

    async def fill() -> None:
        async with stocked_database(
            settings_for(folder, environment=placing.environment(template))
        ):
            pass

    with own_database(server) as template:
        uvloop.run(fill())
        with own_database(server, template=template) as samples_name:
            uvloop.run(
                place_samples(settings_for(folder, environment=placing.environment(samples_name)))
            )
            install_limit(server, template, samples_name=samples_name)
        tidy_up(server, template)
        yield template


def measure(
    server: PostgresServer, template: str, ways: Mapping[str, Place], *, round_count: int
) -> dict[str, dict[str, Measured]]:
    """Return what each way did of each heat, measured in turns."""
    measured = {heat: {way: Measured() for way in ways} for heat in HEATS}
    for number in range(round_count):
        for heat, (is_hot, line_count) in HEATS.items():
            for way, place in ways.items():
                with own_database(server, template=template) as name:
                    placed = place(name, is_hot)
                    check_orders(
                        server, name, order_count=placed.order_count, line_count=line_count
                    )
                one = measured[heat][way]
                one.rates.append(placed.rate)
                one.latency_ms.extend(placed.latency_ms)
                say(
                    f"  {heat}, round {number + 1} of {round_count}, {way}:"
                    f" {placed.rate:,.0f} orders/s"
                )
    return measured


def run(*, round_count: int = ROUND_COUNT, measured_s: int = MEASURED_S) -> dict[str, Any]:
    """Measure and return the results as JSON."""
    server = postgresql_server()
    measured_on = versions()
    with tempfile.TemporaryDirectory(prefix="orderkeep-bench-") as directory:
        folder = Path(directory)
        placing = Placing(server, folder=folder, measured_s=measured_s)
        with prepared(server, placing, folder=folder) as template:
            measured = measure(server, template, placing.ways(), round_count=round_count)
    return {
        "servers": measured_on,
        "rounds": round_count,
        "heats": {heat: _heat_results(ways) for heat, ways in measured.items()},
        "hot_to_cold": {
            way: round(
                figure_of(measured["one SKU"][way].rates).median
                / figure_of(measured["many SKUs"][way].rates).median,
                2,
            )
            for way in (DESK, HTTP, HTTP_ALONE)
        },
    }


def _heat_results(ways: Mapping[str, Measured]) -> dict[str, Any]:
    figures = {way: figure_of(one.rates) for way, one in ways.items()}
    limit = max(
        (pgbench_name(count) for count in CLIENT_COUNTS), key=lambda way: figures[way].median
    )
    return {
        "limit": limit,
        "ways": {
            way: {
                "orders_per_s": figures[way].as_json(),
                "of_the_limit": round(figures[way].median / figures[limit].median, 2),
                **(
                    {
                        "latency_ms_p50": quantile(one.latency_ms, 0.50),
                        "latency_ms_p99": quantile(one.latency_ms, 0.99),
                    }
                    if one.latency_ms
                    else {}
                ),
            }
            for way, one in ways.items()
        },
    }


def show(results: dict[str, Any]) -> str:
    """Return the table."""
    rows: list[list[str]] = []
    for heat, found in results["heats"].items():
        for way, one in found["ways"].items():
            has_latency = "latency_ms_p50" in one
            rows.append(
                [
                    heat,
                    f"{way} (the limit)" if way == found["limit"] else way,
                    str(Figure(**one["orders_per_s"])),
                    f"{one['of_the_limit']:.2f}",
                    f"{one['latency_ms_p50']:.1f} / {one['latency_ms_p99']:.1f}"
                    if has_latency
                    else "",
                ]
            )
    bars = [
        bar_line(
            f"{way} at least {bar:g} times the limit, {heat}",
            is_met=results["heats"][heat]["ways"][way]["of_the_limit"] >= bar,
        )
        for way, bars in RATIO_BARS.items()
        for heat, bar in zip(HEATS, bars, strict=True)
    ]
    bars.append(
        bar_line(
            f"{HTTP} one SKU at least {HOT_TO_COLD_BAR:g} times the rate of many",
            is_met=results["hot_to_cold"][HTTP] >= HOT_TO_COLD_BAR,
        )
    )
    return "\n".join(
        [
            table(
                "Orders per second on PostgreSQL and RabbitMQ: median of"
                f" {results['rounds']} rounds (lowest to highest), in turns",
                ["", "", "orders/s", "of the limit", "p50 / p99 ms"],
                rows,
            ),
            *(
                f"{way}: one SKU at {hot:.2f} times the rate of many"
                for way, hot in results["hot_to_cold"].items()
            ),
            *bars,
        ]
    )


def plots(results: dict[str, Any]) -> list[Plot]:
    """Return one plot for many SKUs and one for one."""
    return [
        Plot(
            name=f"orders-{heat.replace(' ', '-').lower()}",
            title=f"Orders per second, {heat}",
            bars={way: Figure(**one["orders_per_s"]) for way, one in found["ways"].items()},
            ours=(DESK, HTTP, HTTP_ALONE),
        )
        for heat, found in results["heats"].items()
    ]


if __name__ == "__main__":
    _results = run(**arguments_of(__doc__, round_count=ROUND_COUNT, measured_s=MEASURED_S))
    keep(NAME, _results)
    print(show(_results))
