"""Runs the worlds of many seeds, in this process or in several, within limits.

A world depends on nothing but its seed and its number of orders: it is the same in every process,
and so is what many of them add up to.
"""

import gc
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait

from tests.simulation.report import Totals
from tests.simulation.run import Outcome, run_seed

# A broken build breaks nearly every world: a few tell enough.
_BROKEN_SEEDS_MAX = 5

# So many worlds for each process are under way or wait for it, so that none is idle.
_WORLDS_AHEAD = 2

_PROGRESS_EVERY_S = 30.0

# A world, and how long it took a processor.
Lived = tuple[Outcome, float]


def run_range(
    seeds: range,
    *,
    totals: Totals,
    orders_count: int,
    processes_count: int = 1,
    orders_max: int | None = None,
    is_traced: bool = False,
    for_s_max: float = 600.0,
) -> None:
    """Run the seeds, and add them up; tell on stderr how far it is.

    Args:
        seeds: In which order they are begun.
        totals: Where they are added.
        orders_count: Of each world.
        processes_count: 1 is this one alone.
        orders_max: No world is begun where there are so many orders already.
        is_traced: Show all that happens; in this process alone.
        for_s_max: No world is begun after so long.
    """
    if orders_max is not None:
        seeds = seeds[: -(-orders_max // orders_count)]
    began_s = told_at_s = time.monotonic()

    def is_enough() -> bool:
        is_broken = totals.broken_seeds_count >= _BROKEN_SEEDS_MAX
        return is_broken or time.monotonic() - began_s >= for_s_max

    if processes_count == 1:
        worlds = _run_here(
            seeds, orders_count=orders_count, is_traced=is_traced, is_enough=is_enough
        )
    else:
        worlds = _run_in_processes(
            seeds,
            orders_count=orders_count,
            processes_count=processes_count,
            is_enough=is_enough,
        )
    for outcome, processor_s in worlds:
        totals.add(outcome, processor_s=processor_s)
        now_s = time.monotonic()
        totals.real_s = now_s - began_s
        if now_s - told_at_s >= _PROGRESS_EVERY_S:
            told_at_s = now_s
            print(totals.as_progress(), file=sys.stderr, flush=True)  # noqa: T201 (a command)


def _run_here(
    seeds: range, *, orders_count: int, is_traced: bool, is_enough: Callable[[], bool]
) -> Iterator[Lived]:
    for seed in seeds:
        if is_enough():
            return
        yield _run(seed, orders_count=orders_count, is_traced=is_traced)


def _run_in_processes(
    seeds: range, *, orders_count: int, processes_count: int, is_enough: Callable[[], bool]
) -> Iterator[Lived]:
    """Run the seeds in other processes; what was begun when it is enough is run to its end."""
    with ProcessPoolExecutor(
        processes_count, mp_context=multiprocessing.get_context("spawn")
    ) as processes:
        under_way: set[Future[Lived]] = set()
        for seed in seeds:
            if is_enough():
                break
            under_way.add(processes.submit(_run, seed, orders_count=orders_count))
            if len(under_way) >= _WORLDS_AHEAD * processes_count:
                done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        while under_way:
            done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)


def _run(seed: int, *, orders_count: int, is_traced: bool = False) -> Lived:
    began_s = time.process_time()
    outcome = run_seed(seed, orders_count=orders_count, is_traced=is_traced)
    # What a world leaves behind is one big cycle. What the first one leaves is the product's code
    # and its statements: those need not be looked at again.
    gc.collect()
    if not gc.get_freeze_count():
        gc.freeze()
    return outcome, time.process_time() - began_s
