"""A cluster of three RabbitMQ nodes under load, whose leaders are killed one after the other.

    python -m tests.acceptance.fleet_cluster --seed 7

Each time the node that leads `order.timeout.queue` is found, killed as a power cut would, missed
for a while under load, and started again. At the end nothing may be lost: every order has ended,
every event has arrived, and the books agree.
"""

import argparse
import json
import random  # noqa: TID251 (the seed is drawn, and printed)
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.acceptance.fleet_journal import Outcome
from tests.acceptance.fleet_load import RacingLoad
from tests.acceptance.fleet_runner import told
from tests.acceptance.fleet_stage import Report, Stage, say, show, stage_on, work_folder
from tests.acceptance.fleet_verdict import seconds_until
from tests.servers.own_process import wait_until
from tests.servers.postgresql import PrivatePostgresServer, start_private_postgresql
from tests.servers.rabbitmq import PrivateRabbitServer, running_node_names, start_cluster

QUEUE = "order.timeout.queue"

KILLS_COUNT = 3

_AROUND_S = 10.0
_MISSED_S = 15.0

# A cluster on a small machine takes its time to elect, and a node to come back to it.
_FLOW_S_MAX = 120.0
_COME_BACK_S_MAX = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What the programme stands on."""

    folder: Path
    postgresql: PrivatePostgresServer
    nodes: Sequence[PrivateRabbitServer]
    seed: int
    kills_count: int


def kill_leaders(ground: Ground, report: Report) -> None:
    """Kill the leader of the queue again and again."""
    with stage_on(
        ground.postgresql, ground.nodes, ground.folder / "cluster", name="cluster"
    ) as stage:
        report.add("nodes", f"{len(ground.nodes)} of RabbitMQ {ground.nodes[0].version}")
        with stage.racing_load(seed=ground.seed, shoppers_count=30) as load:
            stage.let_pass(_AROUND_S, tell=partial(told, load.journal))
            for number in range(1, ground.kills_count + 1):
                _kill_leader(ground, stage, load, report, number=number)
                stage.let_pass(_AROUND_S, tell=partial(told, load.journal))
        refused = [it.code for it in load.journal.orders if it.outcome is not Outcome.ACCEPTED]
        report.wrong += [f"an order was answered {code}" for code in refused]
        stage.finish(report, load.journal)
        led = Counter(leaders_by_queue(ground.nodes[0], stage.name).values())
        report.add("queues that each node leads at the end", sorted(led.values()))


def _kill_leader(
    ground: Ground, stage: Stage, load: RacingLoad, report: Report, *, number: int
) -> None:
    name = leaders_by_queue(ground.nodes[0], stage.name)[QUEUE]
    leader = next(node for node in ground.nodes if node.node_name == name)
    others = [node for node in ground.nodes if node is not leader]
    killed_s = time.monotonic()
    leader.kill()
    say(f"cluster: {name}, the leader of {QUEUE}, is killed")
    wait_until(
        lambda: len(load.journal.accepted_nos(since_s=killed_s)) >= 30,
        "orders are accepted without it",
        within_s=_FLOW_S_MAX,
    )
    order_nos = set(load.journal.accepted_nos(since_s=killed_s)[:30])
    seconds_until(
        lambda: order_nos <= stage.observer.order_nos(event_type="order.created"),
        "their events arrive without it",
        within_s=_FLOW_S_MAX,
    )
    report.add(
        f"kill {number}: until the events of 30 new orders arrived",
        f"{time.monotonic() - killed_s:.2f} s",
    )
    stage.let_pass(_MISSED_S, tell=partial(told, load.journal))
    new_name = leaders_by_queue(others[0], stage.name)[QUEUE]
    report.add(f"kill {number}: led by, before and after", f"{name}, {new_name}")
    leader.start()
    wait_until(
        lambda: running_node_names(others[0]) == {node.node_name for node in ground.nodes},
        f"{name} is back in the cluster",
        within_s=_COME_BACK_S_MAX,
    )
    say(f"cluster: {name} is back")


def leaders_by_queue(node: PrivateRabbitServer, vhost: str) -> dict[str, str]:
    """Return the name of the node that leads each queue, as a node sees it."""
    listed = node.ctl("list_queues", "--vhost", vhost, "--formatter", "json", "name", "leader")
    return {queue["name"]: queue["leader"] for queue in json.loads(listed)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it from the command line; return 0 when nothing was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.acceptance.fleet_cluster")
    parser.add_argument("--seed", type=int, default=None, help="drawn and printed by default")
    parser.add_argument("--kills", type=int, default=KILLS_COUNT)
    chosen = parser.parse_args(arguments)
    seed = random.randrange(2**32) if chosen.seed is None else chosen.seed  # noqa: S311
    sys.stdout.write(f"seed {seed}\n")
    sys.stdout.flush()
    with work_folder("orderkeep-cluster-") as folder:
        ground = Ground(
            folder=folder,
            postgresql=start_private_postgresql(folder / "postgresql"),
            nodes=start_cluster(folder / "rabbitmq"),
            seed=seed,
            kills_count=chosen.kills,
        )
        if show(kill_leaders, ground, name="cluster").wrong:
            raise SystemExit(1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
