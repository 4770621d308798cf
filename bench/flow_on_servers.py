"""At how many orders per second the whole flow keeps up: HTTP, dispatch, cart, payment, closing.

One `orderkeep serve` and one `orderkeep work`. Buyers order two lines of their carts over HTTP at
an even rate; every second order is paid through `payment.success.notify`, the others close ten
seconds later. A rate is kept up if all of it is answered, and what is left to do does not grow:
its mean over the last third of the run is no more than over the middle third, give or take what
half a second brings. If a rate is not kept up, a lower one is tried.

After each try the books are checked: every order has ended, and its lines have left the cart.
"""

import sys
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from bench.figures import bar_line, keep, quantile, say, table
from bench.servers import versions
from bench.shop_load import Look, running_whole_shop
from bench.sizes import arguments_of

NAME = "flow_on_servers"

ORDERS_PER_S = 1000.0
DURATION_S = 20.0
TRY_COUNT = 1

FULL_SIZES = {"duration_s": 300.0, "try_count": 5}

# What this is to reach.
ORDERS_PER_S_BAR = 1000.0

# The next rate, after one that was not kept up.
_LOWER = 0.75

# A rate of which less was answered in time is not kept up.
_ANSWERED_PART_MIN = 0.98


def _is_kept_up(
    looks: Sequence[Look], *, orders_per_s: float, duration_s: float, answered_per_s: float
) -> bool:
    middle, last = _thirds(looks, duration_s=duration_s)
    return (
        answered_per_s >= _ANSWERED_PART_MIN * orders_per_s
        and fmean(last) <= fmean(middle) + orders_per_s / 2
    )


def _thirds(looks: Sequence[Look], *, duration_s: float) -> tuple[list[int], list[int]]:
    """Return what was left to do in the middle third of the run, and in the last."""
    middle = [look.left_count for look in looks if duration_s / 3 <= look.at_s < 2 * duration_s / 3]
    last = [look.left_count for look in looks if look.at_s >= 2 * duration_s / 3]
    return middle or [0], last or [0]


def _try(*, orders_per_s: float, duration_s: float) -> dict[str, Any]:
    with running_whole_shop(order_count_max=int(orders_per_s * duration_s)) as shop:
        say(f"  {orders_per_s:,.0f} orders/s for {duration_s:g} s")
        outcome, looks = shop.load(
            orders_per_s=orders_per_s, duration_s=duration_s, look=lambda _at_s: None
        )
        drain_s = shop.await_rest()
        shop.check(outcome)
    if outcome["refused"]:
        say(f"    refused: {outcome['refused']}")
    answered_per_s = outcome["created_count"] / outcome["elapsed_s"]
    middle, last = _thirds(looks, duration_s=duration_s)
    return {
        "orders_per_s": orders_per_s,
        "answered_per_s": round(answered_per_s, 1),
        "refused": outcome["refused"],
        "sent_late": outcome["late_count"],
        "latency_ms_p50": quantile(outcome["latency_ms"], 0.50),
        "latency_ms_p99": quantile(outcome["latency_ms"], 0.99),
        "left_in_middle": round(fmean(middle)),
        "left_at_end": round(fmean(last)),
        "rest_after_s": round(drain_s, 1),
        "is_kept_up": _is_kept_up(
            looks,
            orders_per_s=orders_per_s,
            duration_s=duration_s,
            answered_per_s=answered_per_s,
        ),
    }


def run(
    *,
    orders_per_s: float = ORDERS_PER_S,
    duration_s: float = DURATION_S,
    try_count: int = TRY_COUNT,
) -> dict[str, Any]:
    """Measure and return the results as JSON."""
    measured_on = versions()
    tries: list[dict[str, Any]] = []
    for number in range(try_count):
        tries.append(_try(orders_per_s=orders_per_s * _LOWER**number, duration_s=duration_s))
        if tries[-1]["is_kept_up"]:
            break
    return {"servers": measured_on, "duration_s": duration_s, "tries": tries}


def show(results: dict[str, Any]) -> str:
    """Return the table."""
    tries = results["tries"]
    return "\n".join(
        [
            table(
                f"The whole flow for {results['duration_s']:g} s: orders over HTTP, half of them"
                " paid, the others closed",
                ["orders/s", "answered/s", "p50 / p99 ms", "left to do, middle and last third", ""],
                [
                    [
                        f"{one['orders_per_s']:,.0f}",
                        f"{one['answered_per_s']:,.0f}",
                        f"{one['latency_ms_p50']:,.0f} / {one['latency_ms_p99']:,.0f}",
                        f"{one['left_in_middle']:,}, {one['left_at_end']:,}",
                        "kept up" if one["is_kept_up"] else "not kept up",
                    ]
                    for one in tries
                ],
            ),
            bar_line(
                f"at least {ORDERS_PER_S_BAR:,.0f} orders/s kept up",
                is_met=any(
                    one["is_kept_up"] and one["orders_per_s"] >= ORDERS_PER_S_BAR for one in tries
                ),
            ),
        ]
    )


if __name__ == "__main__":
    _results = run(
        **arguments_of(
            __doc__, orders_per_s=ORDERS_PER_S, duration_s=DURATION_S, try_count=TRY_COUNT
        )
    )
    keep(NAME, _results)
    print(show(_results))
    sys.exit(0)
