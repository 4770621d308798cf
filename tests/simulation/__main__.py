"""`python -m tests.simulation`: runs worlds and says what broke.

Exits with 1 if an invariant did not hold in any of them.
"""

import argparse
import os
import sys

from tests.simulation.report import Totals
from tests.simulation.seed_range import run_range

# Starting a process takes as long as a few small worlds.
_SEEDS_FOR_PROCESSES_MIN = 10


def main() -> int:
    """Run what the command line says."""
    arguments = _arguments()
    first, last = arguments.seeds
    if arguments.seed is not None:
        first = last = arguments.seed
    seeds = range(first, last + 1)
    processes_count = arguments.processes or _processes_count(len(seeds))
    totals = Totals()
    run_range(
        seeds,
        totals=totals,
        orders_count=arguments.orders_per_seed,
        processes_count=1 if arguments.trace else processes_count,
        orders_max=arguments.orders,
        is_traced=arguments.trace,
        for_s_max=arguments.minutes * 60,
    )
    print(totals.as_json() if arguments.json else totals.as_text())  # noqa: T201 (a command)
    return 1 if totals.breaches else 0


def _processes_count(seeds_count: int) -> int:
    """Return as many as there are processors to use; a few seeds are run before they start."""
    if seeds_count < _SEEDS_FOR_PROCESSES_MIN:
        return 1
    return len(os.sched_getaffinity(0))


def _range(text: str) -> tuple[int, int]:
    first, _, last = text.partition("..")
    return int(first), int(last or first)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=_range, default=(1, 1_000), metavar="A..B")
    parser.add_argument("--seed", type=int, help="one world only")
    parser.add_argument("--orders", type=int, help="stop after so many orders")
    parser.add_argument("--orders-per-seed", type=int, default=60)
    parser.add_argument("--minutes", type=float, default=10.0, help="stop after so long")
    parser.add_argument("--processes", type=int, help="run worlds in so many; one for each core")
    parser.add_argument("--trace", action="store_true", help="show all that happens")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
