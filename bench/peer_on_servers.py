"""How many orders per second over HTTP, beside what most teams would write for the same job.

In turns, over the same HTTP load at 128 connections, each with one process that answers and what it
needs to dispatch and consume:

- `orderkeep serve` with `orderkeep work`;
- FastAPI with one worker of uvicorn, SQLAlchemy's ORM, and a worker of Celery on RabbitMQ: the
  closing of each order is a task with a countdown of thirty minutes, published after the commit;
- the same with an outbox: tasks are rows of the order's transaction, which one more process polls.

All have the same PostgreSQL and RabbitMQ with quorum queues and confirms; `bench/peers/celery_shop`
says how the peer is set up. Each turn has a database and a virtual host of its own; after each the
books are checked.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import uvloop

from bench.books import check_orders
from bench.figures import Figure, bar_line, figure_of, keep, quantile, say, table
from bench.http_load import run_load
from bench.orders_on_servers import HEATS, HTTP_ORDERS_PER_S_MAX, Measured
from bench.placing_by_desk import Placed
from bench.plots import Plot
from bench.running_peer import (
    check_peer,
    make_tables,
    peer_versions,
    require_peer,
    running_peer,
)
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

NAME = "peer_on_servers"

ROUND_COUNT = 2
CONNECTION_COUNT = 128
WARM_UP_S = 1
MEASURED_S = 2

FULL_SIZES = {"round_count": 5, "measured_s": 10}

ORDERKEEP = "orderkeep"
PEER = "FastAPI, ORM, Celery"
PEER_WITH_OUTBOX = "the same, with an outbox"

# What this is to reach, of the better peer; missed is said, and no failure.
RATIO_BAR = 10.0

# Places orders in a new database: all of one SKU, or not, for so many seconds after the warm-up.
Place = Callable[[bool, int], Placed]


class Placing:
    """The ways to place orders over HTTP."""

    def __init__(self, server: PostgresServer, *, folder: Path) -> None:
        """Place orders in databases of the server."""
        self._server = server
        self._folder = folder
        self._turn_count = 0

    def ways(self, template: str, *, peer_template: str) -> Mapping[str, Place]:
        """Return the ways by name, in the order of their turns."""
        return {
            ORDERKEEP: partial(self._by_orderkeep, template),
            PEER: partial(self._by_peer, peer_template, False),  # noqa: FBT003 (see the name)
            PEER_WITH_OUTBOX: partial(self._by_peer, peer_template, True),  # noqa: FBT003
        }

    def _by_orderkeep(self, template: str, is_hot: bool, measured_s: int) -> Placed:  # noqa: FBT001 (see Place)
        with (
            own_database(self._server, template=template) as name,
            own_vhost(rabbitmq_server()) as broker_url,
        ):
            environment = {
                "ORDERKEEP_DATABASE_URL": self._server.url(name),
                "ORDERKEEP_BROKER_URL": broker_url,
                "ORDERKEEP_LOG_LEVEL": "warning",
            }
            with running_processes(self._turn_folder(), environment=environment) as running:
                placed = _place(running.port, is_hot=is_hot, measured_s=measured_s)
                running.check()
            check_orders(
                self._server,
                name,
                order_count=placed.order_count,
                line_count=_line_count(is_hot=is_hot),
            )
        return placed

    def _by_peer(
        self,
        template: str,
        has_outbox: bool,  # noqa: FBT001 (see `ways`)
        is_hot: bool,  # noqa: FBT001 (see Place)
        measured_s: int,
    ) -> Placed:
        with (
            own_database(self._server, template=template) as name,
            own_vhost(rabbitmq_server()) as broker_url,
        ):
            with running_peer(
                self._turn_folder(),
                database_url=self._server.url(name),
                broker_url=broker_url,
                has_outbox=has_outbox,
            ) as running:
                placed = _place(running.port, is_hot=is_hot, measured_s=measured_s)
                running.check()
                if has_outbox:
                    left_count = count_of(
                        self._server, name, "SELECT count(*) FROM outbox WHERE sent_at IS NULL"
                    )
                    say(f"    {left_count:,} tasks left to publish")
            check_peer(
                self._server,
                name,
                broker_url=broker_url,
                order_count=placed.order_count,
                line_count=_line_count(is_hot=is_hot),
                has_outbox=has_outbox,
            )
        return placed

    def _turn_folder(self) -> Path:
        self._turn_count += 1
        folder = self._folder / f"turn-{self._turn_count}"
        folder.mkdir()
        return folder


def _line_count(*, is_hot: bool) -> int:
    return next(line_count for heat, line_count in HEATS.values() if heat == is_hot)


def _place(port: int, *, is_hot: bool, measured_s: int) -> Placed:
    outcomes = [
        run_load(
            {
                "host": "127.0.0.1",
                "port": port,
                "client_count": CONNECTION_COUNT,
                "order_count": duration_s * HTTP_ORDERS_PER_S_MAX,
                "key_prefix": f"bench-{number}",
                "tokens": user_tokens(),
                "bodies": order_bodies(is_hot=is_hot),
                "stop_after_s": duration_s,
            }
        )
        for number, duration_s in enumerate((WARM_UP_S, measured_s))
    ]
    if refused := {**outcomes[0]["refused"], **outcomes[1]["refused"]}:
        message = f"orders were refused: {refused}"
        raise RuntimeError(message)
    counted = outcomes[1]
    return Placed(
        order_count=sum(outcome["created_count"] for outcome in outcomes),
        rate=counted["created_count"] / counted["elapsed_s"],
        latency_ms=counted["latency_ms"],
    )


@contextmanager
def prepared(server: PostgresServer, folder: Path) -> Iterator[tuple[str, str]]:
    """Give two databases by name, to be copied: ours and the peer's, with the same on sale."""

    async def fill() -> None:
        environment = {"ORDERKEEP_DATABASE_URL": server.url(template)}
        async with stocked_database(settings_for(folder, environment=environment)):
            pass

    with own_database(server) as template, own_database(server) as peer_template:
        uvloop.run(fill())
        make_tables(server.url(peer_template))
        tidy_up(server, template)
        tidy_up(server, peer_template)
        yield template, peer_template


def measure(
    ways: Mapping[str, Place], *, round_count: int, measured_s: int
) -> dict[str, dict[str, Measured]]:
    """Return what each way did of each heat, measured in turns."""
    measured = {heat: {way: Measured() for way in ways} for heat in HEATS}
    for number in range(round_count):
        for heat, (is_hot, _) in HEATS.items():
            for way, place in ways.items():
                placed = place(is_hot, measured_s)
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
    require_peer()
    server = postgresql_server()
    measured_on = versions()
    with (
        tempfile.TemporaryDirectory(prefix="orderkeep-bench-") as directory,
        prepared(server, Path(directory)) as (template, peer_template),
    ):
        placing = Placing(server, folder=Path(directory))
        measured = measure(
            placing.ways(template, peer_template=peer_template),
            round_count=round_count,
            measured_s=measured_s,
        )
    return {
        "servers": measured_on,
        "peer": peer_versions(),
        "rounds": round_count,
        "heats": {heat: _heat_results(ways) for heat, ways in measured.items()},
    }


def _heat_results(ways: Mapping[str, Measured]) -> dict[str, Any]:
    figures = {way: figure_of(one.rates) for way, one in ways.items()}
    ours = figures[ORDERKEEP].median
    return {
        way: {
            "orders_per_s": figures[way].as_json(),
            "orderkeep_is_times": round(ours / figures[way].median, 1),
            "latency_ms_p50": quantile(one.latency_ms, 0.50),
            "latency_ms_p99": quantile(one.latency_ms, 0.99),
        }
        for way, one in ways.items()
    }


def show(results: dict[str, Any]) -> str:
    """Return the table."""
    heats = results["heats"]
    return "\n".join(
        [
            table(
                "Orders per second over HTTP, beside what most teams would write: median of"
                f" {results['rounds']} rounds (lowest to highest), in turns",
                ["", "", "orders/s", "Orderkeep is", "p50 / p99 ms"],
                [
                    [
                        heat,
                        way,
                        str(Figure(**one["orders_per_s"])),
                        "" if way == ORDERKEEP else f"{one['orderkeep_is_times']:.1f} times that",
                        f"{one['latency_ms_p50']:.1f} / {one['latency_ms_p99']:.1f}",
                    ]
                    for heat, ways in heats.items()
                    for way, one in ways.items()
                ],
            ),
            f"The peer: {results['peer']}",
            *(
                bar_line(
                    f"at least {RATIO_BAR:g} times the faster of the two, {heat}",
                    is_met=min(
                        one["orderkeep_is_times"] for way, one in ways.items() if way != ORDERKEEP
                    )
                    >= RATIO_BAR,
                )
                for heat, ways in heats.items()
            ),
        ]
    )


def plots(results: dict[str, Any]) -> list[Plot]:
    """Return the plot of all that was measured."""
    bars = {
        f"{way}, {heat}": Figure(**one["orders_per_s"])
        for heat, ways in results["heats"].items()
        for way, one in ways.items()
    }
    return [
        Plot(
            name="peer",
            title="Orders per second over HTTP",
            bars=bars,
            ours=[label for label in bars if label.startswith(ORDERKEEP)],
        )
    ]


if __name__ == "__main__":
    _results = run(**arguments_of(__doc__, round_count=ROUND_COUNT, measured_s=MEASURED_S))
    keep(NAME, _results)
    print(show(_results))
