"""How much memory `serve` and `work` take over a long load, and whether it grows.

The load of `flow_on_servers`, at a rate that is kept up. Memory is what a process has for itself
(its unique set), looked at once a second. Its first fifth is a warm-up: caches and pools fill. It
is flat if its median over the last fifth is within a tenth of that over the second.
"""

from collections.abc import Sequence
from statistics import median
from typing import Any

import psutil

from bench.figures import bar_line, keep, say, table
from bench.servers import versions
from bench.shop_load import running_whole_shop
from bench.sizes import arguments_of

NAME = "soak_on_servers"

ORDERS_PER_S = 300.0
DURATION_S = 1200.0

# No ten minutes answer this.
NEEDS_FULL = True

# What this is to reach.
GROWTH_BAR = 0.10
MEMORY_MB_BAR = 200.0

_BYTES_PER_MB = 1_000_000
_PART_COUNT = 5


def memory_mb(process_id: int) -> float:
    """Return what a process and its children have of memory for themselves."""
    process = psutil.Process(process_id)
    processes = [process, *process.children(recursive=True)]
    memory_bytes = sum(one.memory_full_info().uss for one in processes)
    return float(memory_bytes / _BYTES_PER_MB)


def _memory_results(values: Sequence[float]) -> dict[str, float]:
    part_length = max(1, len(values) // _PART_COUNT)
    early = median(values[part_length : 2 * part_length] or values)
    late = median(values[-part_length:])
    return {
        "early_mb": round(early, 1),
        "late_mb": round(late, 1),
        "highest_mb": round(max(values), 1),
        "growth": round(late / early - 1, 3),
    }


def run(*, orders_per_s: float = ORDERS_PER_S, duration_s: float = DURATION_S) -> dict[str, Any]:
    """Measure and return the results as JSON."""
    measured_on = versions()
    memory: dict[str, list[float]] = {}
    with running_whole_shop(order_count_max=int(orders_per_s * duration_s)) as shop:
        say(f"  {orders_per_s:,.0f} orders/s for {duration_s:g} s")

        def look(at_s: float) -> None:
            for name, process_id in shop.running.process_ids.items():
                memory.setdefault(name, []).append(memory_mb(process_id))
            if int(at_s) % 60 == 0:
                shown = ", ".join(f"{name} {values[-1]:,.0f} MB" for name, values in memory.items())
                say(f"  after {at_s:,.0f} s: {shown}")

        outcome, looks = shop.load(orders_per_s=orders_per_s, duration_s=duration_s, look=look)
        shop.await_rest()
        shop.check(outcome)
    return {
        "servers": measured_on,
        "orders_per_s": orders_per_s,
        "answered_per_s": round(outcome["created_count"] / outcome["elapsed_s"], 1),
        "duration_s": duration_s,
        "left_most": max(one.left_count for one in looks),
        "memory": {name: _memory_results(values) for name, values in memory.items()},
    }


def show(results: dict[str, Any]) -> str:
    """Return the table."""
    memory = results["memory"]
    return "\n".join(
        [
            table(
                f"Memory over {results['duration_s'] / 60:,.0f} minutes at"
                f" {results['answered_per_s']:,.0f} orders/s",
                ["", "second fifth MB", "last fifth MB", "highest MB", "growth"],
                [
                    [
                        name,
                        *(f"{one[part]:,.0f}" for part in ("early_mb", "late_mb", "highest_mb")),
                        f"{100 * one['growth']:+.1f} %",
                    ]
                    for name, one in memory.items()
                ],
            ),
            bar_line(
                f"flat within {100 * GROWTH_BAR:g} %, at most {MEMORY_MB_BAR:g} MB each",
                is_met=all(
                    abs(one["growth"]) <= GROWTH_BAR and one["highest_mb"] <= MEMORY_MB_BAR
                    for one in memory.values()
                ),
            ),
        ]
    )


if __name__ == "__main__":
    _results = run(**arguments_of(__doc__, orders_per_s=ORDERS_PER_S, duration_s=DURATION_S))
    keep(NAME, _results)
    print(show(_results))
