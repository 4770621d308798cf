"""How many orders per second through HTTP: batched against one commit for each order.

Two real services run side by side, alike but for `ORDERKEEP_INTAKE_BATCH_SIZE`, each with its own
database. They are measured in turns (A, B, A, B ...), so that what else the machine does meets
both. Each turn places the same number of orders, with everything in the background at work, and
before the next one begins the background has finished: both sides do the same work for an order.
"""

import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.figures import Figure, bar_line, figure_of, keep, quantile, say, table
from bench.http_load import Outcome, run_load
from bench.plots import Plot
from bench.running_shop import RunningShop, running_shop
from bench.sizes import arguments_of
from bench.stage import order_bodies, settings_for, stocked_database, user_tokens

NAME = "orders_over_http"

ROUND_COUNT = 2

FULL_SIZES = {"round_count": 9}

WARM_UP_ORDER_COUNT = 300

# What this is to reach at 64 clients: so many orders a second, or so many times one by one.
ORDERS_PER_S_BAR = 2000.0
RATIO_BAR = 2.5
BAR_CLIENT_COUNT = 64

_IDLE_LIMIT_S = 60.0

# By the name of the column: what makes a side differ from the defaults.
SIDES: Mapping[str, Mapping[str, str]] = {
    "one commit per order": {"ORDERKEEP_INTAKE_BATCH_SIZE": "1"},
    "batched": {},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A way to order: how many clients at once, and what."""

    name: str
    client_count: int
    order_count: int
    is_hot: bool


VARIANTS = (
    Variant(name="1 client, many SKUs", client_count=1, order_count=400, is_hot=False),
    Variant(name="64 clients, many SKUs", client_count=64, order_count=2000, is_hot=False),
    Variant(name="1 client, one SKU", client_count=1, order_count=400, is_hot=True),
    Variant(name="64 clients, one SKU", client_count=64, order_count=2000, is_hot=True),
)


@dataclass(slots=True, kw_only=True)
class Measured:
    """What one side did in one variant, a value for each round."""

    rates: list[float] = field(default_factory=list)
    drained_rates: list[float] = field(default_factory=list)
    latency_ms: list[float] = field(default_factory=list)


class WrongCountError(Exception):
    """Answers and database disagree: whatever the rates say, they are worth nothing."""


class Side:
    """One of the two services, and how many orders it has said it made."""

    def __init__(self, name: str, shop: RunningShop) -> None:
        """Order from the given service."""
        self.name = name
        self._shop = shop
        self._created_count = 0
        self._job_count = 0

    def order(self, *, client_count: int, order_count: int, is_hot: bool) -> tuple[Outcome, float]:
        """Place the orders; return the outcome, and how long the background needed afterwards.

        Raises:
            WrongCountError: an order was refused, or answered and is not there, or is there twice.
        """
        self._job_count += 1
        outcome = run_load(
            {
                "host": "127.0.0.1",
                "port": self._shop.port,
                "client_count": client_count,
                "order_count": order_count,
                "key_prefix": f"bench-{self._job_count}",
                "tokens": user_tokens(),
                "bodies": order_bodies(is_hot=is_hot),
                "stop_after_s": None,
            }
        )
        self._created_count += outcome["created_count"]
        stored_count = self._shop.watch.count_orders()
        if outcome["refused"] or stored_count != self._created_count:
            message = (
                f"{self.name}: {self._created_count} answers 201, {stored_count} orders stored,"
                f" refused {outcome['refused']}"
            )
            raise WrongCountError(message)
        return outcome, self._shop.watch.await_idle(limit_s=_IDLE_LIMIT_S)


def measure(sides: Sequence[Side], variant: Variant, *, round_count: int) -> dict[str, Measured]:
    """Return what each side did, measured in turns."""
    measured = {side.name: Measured() for side in sides}
    for number in range(round_count):
        for side in sides:
            outcome, drain_s = side.order(
                client_count=variant.client_count,
                order_count=variant.order_count,
                is_hot=variant.is_hot,
            )
            rate = outcome["created_count"] / outcome["elapsed_s"]
            one = measured[side.name]
            one.rates.append(rate)
            one.drained_rates.append(outcome["created_count"] / (outcome["elapsed_s"] + drain_s))
            one.latency_ms.extend(outcome["latency_ms"])
            say(
                f"  {variant.name}, round {number + 1} of {round_count}, {side.name}:"
                f" {rate:,.0f} orders/s, background done {drain_s:.1f} s later"
            )
    return measured


async def _prepare(data_dir: Path) -> None:
    async with stocked_database(settings_for(data_dir)):
        pass


def run(*, round_count: int = ROUND_COUNT) -> dict[str, Any]:
    """Measure every variant and return the results as JSON."""
    variants: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="orderkeep-bench-") as directory, ExitStack() as stack:
        sides: list[Side] = []
        for number, (name, environment) in enumerate(SIDES.items()):
            data_dir = Path(directory) / f"side-{number}"
            asyncio.run(_prepare(data_dir))
            shop = stack.enter_context(running_shop(data_dir, environment=environment))
            sides.append(Side(name, shop))
        say("warming up")
        for side in sides:
            side.order(client_count=16, order_count=WARM_UP_ORDER_COUNT, is_hot=False)
        for variant in VARIANTS:
            measured = measure(sides, variant, round_count=round_count)
            rates = {name: figure_of(one.rates) for name, one in measured.items()}
            variants[variant.name] = {
                "ratio": round(_ratio(rates), 2),
                "sides": {
                    name: {
                        "orders_per_s": rates[name].as_json(),
                        "orders_per_s_with_background": figure_of(one.drained_rates).as_json(),
                        "latency_ms_p50": quantile(one.latency_ms, 0.50),
                        "latency_ms_p99": quantile(one.latency_ms, 0.99),
                    }
                    for name, one in measured.items()
                },
            }
    return {
        "rounds": round_count,
        "variants": variants,
        "bar": {
            "ratio_min": RATIO_BAR,
            "orders_per_s_min": ORDERS_PER_S_BAR,
            "is_met": all(
                variants[variant.name]["ratio"] >= RATIO_BAR
                or variants[variant.name]["sides"]["batched"]["orders_per_s"]["median"]
                >= ORDERS_PER_S_BAR
                for variant in VARIANTS
                if variant.client_count == BAR_CLIENT_COUNT
            ),
        },
    }


def _ratio(rates: Mapping[str, Figure]) -> float:
    one_by_one, batched = (rates[name].median for name in SIDES)
    return batched / one_by_one


def show(results: dict[str, Any]) -> str:
    """Return the tables."""
    rates: list[list[str]] = []
    rest: list[list[str]] = []
    for name, variant in results["variants"].items():
        sides = [variant["sides"][side] for side in SIDES]
        rates.append(
            [
                name,
                *(str(Figure(**side["orders_per_s"])) for side in sides),
                f"{variant['ratio']:.2f}",
            ]
        )
        rest.append(
            [
                name,
                *(f"{side['latency_ms_p50']:.1f} / {side['latency_ms_p99']:.1f}" for side in sides),
                *(f"{side['orders_per_s_with_background']['median']:,.0f}" for side in sides),
            ]
        )
    bar = results["bar"]
    return "\n".join(
        [
            table(
                f"Orders per second through HTTP: median of {results['rounds']} rounds"
                " (lowest to highest), in turns",
                ["", *SIDES, "ratio"],
                rates,
            ),
            bar_line(
                f"at {BAR_CLIENT_COUNT} clients, batched at least {bar['orders_per_s_min']:,.0f}"
                f" orders/s or {bar['ratio_min']} times one by one",
                is_met=bar["is_met"],
            ),
            table(
                "Of the same turns: latency p50 / p99 in ms; orders per second until the background"
                " has told everybody of them",
                ["", *(f"{side}: ms" for side in SIDES), *(f"{side}: all told" for side in SIDES)],
                rest,
            ),
        ]
    )


def plots(results: dict[str, Any]) -> list[Plot]:
    """Return the plot of all that was measured."""
    bars = {
        f"{variant}: {side}": Figure(**one["orders_per_s"])
        for variant, found in results["variants"].items()
        for side, one in found["sides"].items()
    }
    return [
        Plot(
            name="embedded",
            title="Orders per second over HTTP, on the embedded engine",
            bars=bars,
            ours=[label for label in bars if label.endswith(": batched")],
        )
    ]


if __name__ == "__main__":
    _results = run(**arguments_of(__doc__, round_count=ROUND_COUNT))
    keep(NAME, _results)
    print(show(_results))
