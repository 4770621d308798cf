"""What five times too many orders do to a service, and how soon it is well again.

    python -m bench.overload_on_servers --seconds 120

One `orderkeep serve` and one `orderkeep work`, on PostgreSQL and RabbitMQ, in one run:

1. normal load: half of what can be done, at moments set beforehand;
2. in turns, so that what else the machine does meets both: the peak, which is what 128 clients get
   who order as fast as they are answered, for four seconds; and the flood, five times that peak for
   fifteen seconds, at moments set beforehand and from a process of its own. A late answer slows no
   arrival down. Nobody heeds `Retry-After`: whoever is refused is followed by others all the same.
   Meanwhile orders that were made before are cancelled and paid;
3. normal load again, for thirty seconds.

A turn's goodput is that of its flood beside the mean of the peaks before and behind it.
All of it shares one machine, also the generator: what it takes of the processors to send and to
read five times as much is taken from the service. In the end the books must be right.
"""

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import psutil  # type: ignore[import-untyped]  # it brings no types
import uvloop

from bench.figures import bar_line, figure_of, keep, load, machine, quantile, say, table
from bench.flood_bystanders import Bystanders
from bench.http_load import run_load
from bench.memory_watch import MemoryWatch
from bench.open_load import OpenJob, Second, can_be_compiled, run_open_load
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
from bench.stage import order_bodies, settings_for, stocked_database, user_tokens
from orderkeep.instant import rfc3339
from orderkeep.wiring import chance
from tests.servers.postgresql import PostgresServer

NAME = "overload_on_servers"

# No ten minutes have room for it beside the others.
NEEDS_FULL = True

FLOOD_S = 120
FLOOD_FACTOR = 5

WARM_UP_S = 2
PEAK_S = 4
TURN_S = 15
NORMAL_S = 10
AFTER_S = 30
CLIENT_COUNT = 128

# Three times what the service works on at once: clients who are refused are there as well.
CONNECTION_COUNT_MAX = 1500

# The first seconds of each turn fill what may wait, which flatters; they are not counted.
FILLING_S = 5

# Normal again: five seconds on end whose p99 is at most so many times that of before.
NORMAL_FACTOR = 2.0
NORMAL_FOR_S = 5

# What this is to reach; missed is said, and no failure.
GOODPUT_BAR = 0.80
MEMORY_GROWTH_BAR = 0.20
RECOVERY_S_BAR = 30

_DRAIN_S_MAX = 60.0
_LOOK_AGAIN_S = 0.25
_ORDERS_PER_S_MAX = 8000

_READY_EVENTS = (
    "SELECT count(*) FROM order_outbox WHERE state = 'pending'"
    " AND not_before <= (extract(epoch FROM now()) * 1e6)::bigint"
)


class LoadedShop:
    """A running service, and the load that is sent to it."""

    def __init__(self, server: PostgresServer, name: str, *, port: int) -> None:
        """Load the service that answers at the port and keeps its data in the named database."""
        self._server = server
        self._name = name
        self.port = port
        self._tokens = user_tokens()
        self._bodies = order_bodies(is_hot=False)

    def order_as_fast_as_answered(self, key_prefix: str, *, duration_s: int) -> float:
        """Return how many orders per second clients got who wait for their answers."""
        outcome = run_load(
            {
                "host": "127.0.0.1",
                "port": self.port,
                "client_count": CLIENT_COUNT,
                "order_count": duration_s * _ORDERS_PER_S_MAX,
                "key_prefix": key_prefix,
                "tokens": self._tokens,
                "bodies": self._bodies,
                "stop_after_s": duration_s,
            }
        )
        if outcome["refused"]:
            message = f"orders were refused: {outcome['refused']}"
            raise RuntimeError(message)
        return outcome["created_count"] / outcome["elapsed_s"]

    def order_regardless(
        self, key_prefix: str, *, requests_per_s: float, duration_s: int
    ) -> list[Second]:
        """Return what became of arrivals at a fixed rate, second by second."""
        job: OpenJob = {
            "host": "127.0.0.1",
            "port": self.port,
            "requests_per_s": requests_per_s,
            "duration_s": duration_s,
            "connection_count_max": CONNECTION_COUNT_MAX,
            "key_prefix": key_prefix,
            "tokens": self._tokens,
            "bodies": self._bodies,
        }
        return run_open_load(job)

    def await_drained(self) -> None:
        """Wait until every event that may go has gone."""
        give_up_at_s = time.monotonic() + _DRAIN_S_MAX
        while count_of(self._server, self._name, _READY_EVENTS):
            if time.monotonic() > give_up_at_s:
                message = f"events are still to be sent after {_DRAIN_S_MAX:g} s"
                raise TimeoutError(message)
            threading.Event().wait(_LOOK_AGAIN_S)


def run(flood_s: int = FLOOD_S) -> dict[str, Any]:
    """Measure and return the results as JSON."""
    if not can_be_compiled():
        message = "the flood takes a C compiler, on Linux"
        raise RuntimeError(message)
    server = postgresql_server()
    measured_on = versions()
    load_before = load()
    with (
        tempfile.TemporaryDirectory(prefix="orderkeep-bench-") as directory,
        own_database(server) as name,
        own_vhost(rabbitmq_server()) as broker_url,
    ):
        environment = {
            "ORDERKEEP_DATABASE_URL": server.url(name),
            "ORDERKEEP_BROKER_URL": broker_url,
            "ORDERKEEP_LOG_LEVEL": "warning",
            "ORDERKEEP_SANDBOX": "on",
        }
        folder = Path(directory)
        uvloop.run(_prepare(folder, environment))
        tidy_up(server, name)
        with running_processes(folder, environment=environment) as processes:
            stage = LoadedShop(server, name, port=processes.port)
            results = _measure(stage, server, name, flood_s=flood_s)
            processes.check()
        _verify(environment)
    return {
        "servers": measured_on,
        "load": f"{load_before} before the run, {load()} at its end",
        **results,
    }


async def _prepare(folder: Path, environment: dict[str, str]) -> None:
    async with stocked_database(settings_for(folder, environment=environment)):
        pass


def _measure(
    stage: LoadedShop, server: PostgresServer, name: str, *, flood_s: int
) -> dict[str, Any]:
    serve = next(child for child in psutil.Process().children() if child.cmdline()[-1] == "serve")
    stage.order_as_fast_as_answered("warm-up", duration_s=WARM_UP_S)
    stage.await_drained()
    with MemoryWatch(serve) as at_peak:
        peaks = [stage.order_as_fast_as_answered("peak-0", duration_s=PEAK_S)]
    stage.await_drained()
    normal_rate = peaks[0] / 2
    before = stage.order_regardless("before", requests_per_s=normal_rate, duration_s=NORMAL_S)
    say(f"  normal load: {_rate(before):,.0f} orders/s")
    flood: list[Second] = []
    with MemoryWatch(serve) as in_flood, Bystanders(server, name, port=stage.port) as bystanders:
        for number in range(1, max(1, flood_s // TURN_S) + 1):
            rate = FLOOD_FACTOR * peaks[-1]
            seconds = stage.order_regardless(
                f"flood-{number}", requests_per_s=rate, duration_s=TURN_S
            )
            flood += seconds[FILLING_S:]
            peaks.append(stage.order_as_fast_as_answered(f"peak-{number}", duration_s=PEAK_S))
            say(f"  flood: {_rate(seconds[FILLING_S:]):,.0f}, peak: {peaks[-1]:,.0f} orders/s")
    after = stage.order_regardless("after", requests_per_s=normal_rate, duration_s=AFTER_S)
    normal_ms = max(quantile(second["created_ms"], 0.99) for second in before)
    recovery_s = _recovery_s(after, bar_ms=NORMAL_FACTOR * normal_ms)
    bystanders.check()
    ratios = _goodput_by_turn(flood, peaks)
    goodput = median(ratios)
    growth = in_flood.bytes_max / at_peak.bytes_max - 1
    return {
        "peaks_orders_per_s": [round(peak, 1) for peak in peaks],
        "flood_s": TURN_S * len(ratios),
        "phases": {
            "normal load before": _phase(before),
            "flood": _phase(flood),
            "normal load after": _phase(after),
        },
        "goodput_of_peak": figure_of(ratios).as_json(),
        "memory_growth": round(growth, 3),
        "memory_mb_at_peak": round(at_peak.bytes_max / 1e6, 1),
        "recovery_s": recovery_s,
        "bystanders": bystanders.results(),
        "bars": {
            "goodput": goodput >= GOODPUT_BAR,
            "memory": growth < MEMORY_GROWTH_BAR,
            "recovery": recovery_s is not None and recovery_s <= RECOVERY_S_BAR,
            "bystanders": bystanders.are_all_served,
            "retry_after": not any(second["without_retry_after"] for second in flood),
        },
    }


def _goodput_by_turn(flood: Sequence[Second], peaks: Sequence[float]) -> list[float]:
    counted_s = TURN_S - FILLING_S
    return [
        _rate(flood[number * counted_s : (number + 1) * counted_s]) / ((before + behind) / 2)
        for number, (before, behind) in enumerate(pairwise(peaks))
    ]


def _phase(seconds: Sequence[Second]) -> dict[str, Any]:
    answers: Counter[str] = Counter()
    for second in seconds:
        answers.update(second["answers"])
    created = [ms for second in seconds for ms in second["created_ms"]]
    refused = [ms for second in seconds for ms in second["refused_ms"]]
    return {
        "arrivals_per_s": round((answers.total() + _sum(seconds, "given_up")) / len(seconds)),
        "orders_per_s": round(len(created) / len(seconds)),
        "answers": dict(answers),
        "given_up": _sum(seconds, "given_up"),
        "sent_late": _sum(seconds, "sent_late"),
        "created_ms": _spread(created),
        "refused_ms": _spread(refused),
    }


def _sum(seconds: Sequence[Second], what: str) -> int:
    return sum(second[what] for second in seconds)  # type: ignore[literal-required]  # names of counts


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"p50": quantile(values, 0.5), "p99": quantile(values, 0.99)} if values else {}


def _rate(seconds: Sequence[Second]) -> float:
    return sum(len(second["created_ms"]) for second in seconds) / len(seconds)


def _recovery_s(after: Sequence[Second], *, bar_ms: float) -> int | None:
    """Return after how many seconds all is as before and stays so for a while; None if never."""
    is_normal = [
        bool(second["created_ms"])
        and quantile(second["created_ms"], 0.99) <= bar_ms
        and second["answers"].keys() == {"201"}
        for second in after
    ]
    return next(
        (
            number
            for number in range(len(after) - NORMAL_FOR_S + 1)
            if all(is_normal[number : number + NORMAL_FOR_S])
        ),
        None,
    )


def _verify(environment: Mapping[str, str]) -> None:
    """Check the guarantees of what is left.

    Raises:
        RuntimeError: one is broken.
    """
    done = subprocess.run(  # noqa: S603 (our own command)
        [str(Path(sys.executable).with_name("orderkeep")), "verify"],
        env={"PATH": "", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        message = f"`orderkeep verify` found breaches:\n{done.stdout}{done.stderr}"
        raise RuntimeError(message)


def show(results: dict[str, Any]) -> str:
    """Return the table."""
    rows = [
        [
            name,
            f"{phase['arrivals_per_s']:,}",
            f"{phase['orders_per_s']:,}",
            ", ".join(f"{count:,} x {status}" for status, count in phase["answers"].items()),
            _shown(phase["created_ms"]),
            _shown(phase["refused_ms"]),
        ]
        for name, phase in results["phases"].items()
    ]
    columns = ["", "arrivals/s", "orders/s", "answers", "order p50/p99 ms", "503 p50/p99 ms"]
    flood, served, bars = results["phases"]["flood"], results["bystanders"], results["bars"]
    recovery, goodput = results["recovery_s"], results["goodput_of_peak"]
    return "\n".join(
        [
            table(
                f"Five times too many orders for {results['flood_s']} s, in turns with peaks of"
                f" {', '.join(f'{one:,.0f}' for one in results['peaks_orders_per_s'])} orders/s",
                columns,
                rows,
            ),
            (
                f"In the flood {flood['given_up']:,} arrivals found none of"
                f" {CONNECTION_COUNT_MAX:,} connections free,"
                f" {flood['sent_late']:,} were sent late."
            ),
            *(
                f"{what} in the flood: {one['done']:,} of {one['tried']:,},"
                f" p50/p99 {_shown(one['ms'])} ms"
                for what, one in served.items()
            ),
            bar_line(
                f"goodput at least {GOODPUT_BAR:.0%} of the peak; it was {goodput['median']:.0%}"
                f" ({goodput['lowest']:.0%} to {goodput['highest']:.0%})",
                is_met=bars["goodput"],
            ),
            bar_line(
                f"memory grows by less than {MEMORY_GROWTH_BAR:.0%}; it grew by"
                f" {results['memory_growth']:.0%} of {results['memory_mb_at_peak']:,.0f} MB",
                is_met=bars["memory"],
            ),
            bar_line(
                f"normal latency within {RECOVERY_S_BAR} s; it was so after"
                f" {'more' if recovery is None else f'{recovery} s'}",
                is_met=bars["recovery"],
            ),
            bar_line("all cancels and payments in the flood are served", is_met=bars["bystanders"]),
            bar_line("every 503 says when to come again", is_met=bars["retry_after"]),
        ]
    )


def _shown(spread: Mapping[str, float]) -> str:
    return f"{spread['p50']:,.0f} / {spread['p99']:,.0f}" if spread else ""


if __name__ == "__main__":
    _parser = argparse.ArgumentParser()
    _parser.add_argument("--seconds", type=int, default=FLOOD_S, help="how long the flood lasts")
    _results = run(_parser.parse_args().seconds)
    keep(NAME, _results)
    print(f"{rfc3339(chance.now())}")
    for _name, _text in {**machine(), "load": _results["load"], **_results["servers"]}.items():
        print(f"{_name} {_text}")
    print(show(_results))
