"""A fleet under load for many minutes, and what is done to its servers meanwhile.

    python -m tests.acceptance.fleet_runner --minutes 10 --seed 7

Four parts, each on a new database and a new virtual host of private servers:

- `races`: orders, payments, cancellations and closings over the same few SKUs, on four processes;
  PostgreSQL's log must tell of no deadlock.
- `broker`: RabbitMQ is stopped for a minute.
- `database`: PostgreSQL is ended in three ways and started again.
- `workers`: one worker is killed, another is stopped for a minute and goes on.
"""

import argparse
import random  # noqa: TID251 (the seed is drawn, and printed)
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.acceptance.fleet import Member
from tests.acceptance.fleet_journal import FleetJournal, Outcome
from tests.acceptance.fleet_load import DemoLoad
from tests.acceptance.fleet_stage import Report, Stage, say, show, stage_on, work_folder
from tests.acceptance.fleet_takeover import (
    TAKEOVER_S_MAX,
    find_hold,
    measure_takeover,
    wait_for_end,
)
from tests.acceptance.fleet_verdict import seconds_until
from tests.servers.own_process import wait_until
from tests.servers.postgresql import PrivatePostgresServer, start_private_postgresql
from tests.servers.rabbitmq import PrivateRabbitServer, start_private_rabbitmq

MINUTES = 10.0
OUTAGE_S = 60.0
STOPPED_S = 60.0

# What is asked for.
ARRIVAL_S_MAX = 30.0
SERVICE_S_MAX = 5.0

# What is measured may take longer than it should, so that one learns how long it took.
_MEASURED_S_MAX = 120.0

# The load runs so long before something is done to it, and afterwards.
_AROUND_S = 10.0

# How long the database is away before it is started again.
_DATABASE_AWAY_S = 3.0

_OUTBOXES = ("order_outbox", "cart_outbox", "payment_outbox")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What every part stands on."""

    folder: Path
    postgresql: PrivatePostgresServer
    rabbitmq: PrivateRabbitServer
    seed: int

    def stage(self, name: str, *, work_count: int = 2) -> AbstractContextManager[Stage]:
        """Return a fleet of its own for a part."""
        return stage_on(
            self.postgresql,
            [self.rabbitmq],
            self.folder / name,
            name=name,
            work_count=work_count,
        )


def race(ground: Ground, report: Report, *, minutes: float) -> None:
    """Let everybody want the same at once, and look for deadlocks."""
    with ground.stage("races") as stage:
        with stage.racing_load(seed=ground.seed, shoppers_count=60) as load:
            stage.let_pass(minutes * 60.0, tell=partial(told, load.journal))
        stage.finish(report, load.journal)
        report.add("deadlocks, as the server counts them", stage.books.deadlocks_count())
    log_text = ground.postgresql.log_text()
    deadlocks = [line for line in log_text.splitlines() if "deadlock detected" in line]
    report.add("... as its log tells of them", len(deadlocks))
    report.add("waits for a lock of over a second", log_text.count("still waiting for"))
    if deadlocks:
        report.wrong.append(f"{len(deadlocks)} deadlocks, such as {deadlocks[0]}")


def stop_broker(ground: Ground, report: Report) -> None:
    """Stop RabbitMQ for a minute under load."""
    with ground.stage("broker") as stage:
        with stage.racing_load(seed=ground.seed + 1) as load:
            stage.let_pass(_AROUND_S, tell=partial(told, load.journal))
            stopped_s = time.monotonic()
            ground.rabbitmq.stop()
            say("broker: RabbitMQ has ended")
            stage.let_pass(OUTAGE_S, tell=partial(told, load.journal))
            failed_count = stage.books.rows_failed_count()
            ground.rabbitmq.start()
            back_s = time.monotonic()
            say("broker: RabbitMQ answers again")
            _measure_arrival(stage, report)
            stage.let_pass(_AROUND_S, tell=partial(told, load.journal))
        meanwhile = [it for it in load.journal.orders if stopped_s <= it.sent_at_s <= back_s]
        refused = [it.code for it in meanwhile if it.outcome is not Outcome.ACCEPTED]
        report.add("orders asked for while it was away", len(meanwhile))
        report.add("... of these not accepted", len(refused))
        report.add("rows `failed` at the end of the outage", failed_count)
        report.wrong += [f"an order was answered {code} meanwhile" for code in refused]
        report.wrong += [f"{failed_count} rows failed"] * bool(failed_count)
        stage.finish(report, load.journal)


def _measure_arrival(stage: Stage, report: Report) -> None:
    """Measure how long what was written so far takes to arrive."""
    started_s = time.monotonic()
    events = stage.books.order_event_ids()
    pending = {name: stage.books.ids_that_may_go(name) for name in _OUTBOXES}
    report.add("rows that waited for it", sum(len(ids) for ids in pending.values()))
    missing_count = len(events - stage.observer.message_ids())
    report.add("... of these events of `order.events`", missing_count)
    seconds_until(
        lambda: events <= stage.observer.message_ids(),
        "the events arrive",
        within_s=_MEASURED_S_MAX,
    )
    arrived_s = time.monotonic() - started_s
    seconds_until(
        lambda: (
            not any(stage.books.pending_count_among(name, ids) for name, ids in pending.items())
        ),
        "every row is sent",
        within_s=_MEASURED_S_MAX,
    )
    sent_s = time.monotonic() - started_s
    report.measure("until the last of these had arrived", arrived_s, at_most_s=ARRIVAL_S_MAX)
    report.measure("until the last row of any route was sent", sent_s, at_most_s=ARRIVAL_S_MAX)


def restart_database(ground: Ground, report: Report) -> None:
    """End PostgreSQL in three ways, and start it again each time."""
    endings = {
        "stopped at once": lambda: ground.postgresql.stop("immediate"),
        "stopped the fast way": lambda: ground.postgresql.stop("fast"),
        "killed": ground.postgresql.kill,
    }
    with ground.stage("database") as stage:
        with stage.racing_load(seed=ground.seed + 2) as load:
            stage.let_pass(_AROUND_S, tell=partial(told, load.journal))
            for ending, end in endings.items():
                end()
                say(f"database: PostgreSQL was {ending}")
                stage.let_pass(_DATABASE_AWAY_S, tell=partial(told, load.journal))
                ground.postgresql.start()
                _measure_return(stage, load.journal, report, ending=ending)
                stage.let_pass(_AROUND_S, tell=partial(told, load.journal))
        refused_count = len(load.journal.refused_at_s)
        report.add("requests answered 503 with Retry-After", refused_count)
        report.add("... anything else from 500, or nothing at all", load.journal.wrong_count)
        stage.finish(report, load.journal)


def _measure_return(stage: Stage, journal: FleetJournal, report: Report, *, ending: str) -> None:
    """Measure how long each front takes to accept an order again, and its event to arrive."""
    back_s = time.monotonic()
    fronts_count = len(stage.fleet.fronts)

    def accepted() -> dict[int, str]:
        # From the end: what was answered long ago is of no interest.
        return {
            note.front_no: note.order_no
            for note in journal.orders[-500:]
            if note.order_no is not None and (note.answered_at_s or 0.0) >= back_s
        }

    accepted_s = seconds_until(
        lambda: len(accepted()) == fronts_count,
        "every front accepts orders again",
        within_s=_MEASURED_S_MAX,
    )
    order_nos = set(accepted().values())
    seconds_until(
        lambda: order_nos <= stage.observer.order_nos(event_type="order.created"),
        "their events arrive",
        within_s=_MEASURED_S_MAX,
    )
    told_s = time.monotonic() - back_s
    report.measure(f"{ending}: until every front accepted", accepted_s, at_most_s=SERVICE_S_MAX)
    report.add(f"{ending}: until the events of these orders arrived", f"{told_s:.2f} s")


def lose_workers(ground: Ground, report: Report) -> None:
    """Kill a worker, and stop another one for a minute, under the load of the demo."""
    with ground.stage("workers", work_count=3) as stage:
        fleet = stage.fleet
        with DemoLoad(fleet.fronts, seed=ground.seed + 3) as load:
            wait_until(lambda: len(load.acknowledged) >= 100, "orders", within_s=_MEASURED_S_MAX)
            killed = fleet.workers[0]
            killed.kill()
            fleet.members.remove(killed)
            killed_s = measure_takeover(fleet, stage.observer, "demo-tea", within_s=_MEASURED_S_MAX)
            fleet.start_work()
            stopped = fleet.workers[0]
            _stop_and_continue(stage, report, stopped, load)
            stage.let_pass(_AROUND_S, tell=partial(_told_of_demo, load))
        report.measure("killed: until new events arrived", killed_s, at_most_s=TAKEOVER_S_MAX)
        lost = set(load.order_nos()) - stage.books.statuses().keys()
        report.add("orders that shoppers were told of", len(load.acknowledged))
        report.add("... of these lost", len(lost))
        report.wrong += [f"lost: {order_no}" for order_no in sorted(lost)]
        report.wrong += load.surprises
        stage.finish(report)


def _stop_and_continue(stage: Stage, report: Report, stopped: Member, load: DemoLoad) -> None:
    hold = find_hold(stopped, stage.books, postgresql_port=stage.postgresql_port)
    over_at_s = time.monotonic() + STOPPED_S
    stopped.pause()
    ended_s = wait_for_end(hold, stage.books)
    taken_s = measure_takeover(stage.fleet, stage.observer, "demo-tea", within_s=_MEASURED_S_MAX)
    stage.let_pass(over_at_s - time.monotonic(), tell=partial(_told_of_demo, load))
    stopped.go_on()
    report.add("sessions that held its partitions", len(hold.pids))
    report.add("stopped: until the server ended its sessions", f"{ended_s:.1f} s")
    report.measure("... from then until new events arrived", taken_s, at_most_s=TAKEOVER_S_MAX)


def told(journal: FleetJournal) -> str:
    """Return in a few words how far a load is."""
    return (
        f"{len(journal.orders)} orders, {journal.total()} requests,"
        f" {len(journal.refused_at_s)} times 'not now', {journal.wrong_count} wrong"
    )


def _told_of_demo(load: DemoLoad) -> str:
    return f"{len(load.acknowledged)} orders"


PARTS: Mapping[str, Callable[[Ground, Report], None]] = {
    "races": partial(race, minutes=MINUTES),
    "broker": stop_broker,
    "database": restart_database,
    "workers": lose_workers,
}


def run_parts(
    names: Sequence[str], folder: Path, *, minutes: float, seed: int
) -> Mapping[str, Report]:
    """Run the parts on servers of their own, each whatever came of the one before."""
    ground = Ground(
        folder=folder,
        postgresql=start_private_postgresql(folder / "postgresql"),
        rabbitmq=start_private_rabbitmq(folder / "rabbitmq"),
        seed=seed,
    )
    parts: dict[str, Callable[[Ground, Report], None]] = {
        **PARTS,
        "races": partial(race, minutes=minutes),
    }
    return {name: show(parts[name], ground, name=name) for name in names}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it from the command line; return 0 when nothing was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.acceptance.fleet_runner")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="of the races")
    parser.add_argument("--seed", type=int, default=None, help="drawn and printed by default")
    parser.add_argument("--only", choices=PARTS, action="append", help="one part, or several")
    chosen = parser.parse_args(arguments)
    seed = random.randrange(2**32) if chosen.seed is None else chosen.seed  # noqa: S311
    sys.stdout.write(f"seed {seed}\n")
    sys.stdout.flush()
    with work_folder("orderkeep-fleet-") as folder:
        reports = run_parts(chosen.only or list(PARTS), folder, minutes=chosen.minutes, seed=seed)
        if any(report.wrong for report in reports.values()):
            raise SystemExit(1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
