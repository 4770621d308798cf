"""Killed at any named step of the whole shop, nothing is lost and nothing happens twice."""

import re
import signal
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest

from tests.acceptance.books import rows
from tests.acceptance.every_path import EveryPath, settings_for
from tests.acceptance.forked_run import ForkedShop, origin_of_runs
from tests.acceptance.webhook_receiver import WebhookReceiver, listening
from tests.integration.test_replay_kills import POINTS as REPLAY_POINTS

pytestmark = pytest.mark.slow

SOURCES = Path(__file__).parents[2] / "src" / "orderkeep"

# Where, and for the how-manieth time there: a step that every start passes is let through until
# the round is under way.
POINTS = [
    "database.before_commit:1",
    "database.before_commit:45",
    "database.after_commit:2",
    "database.after_commit:60",
    "intake.before_batch:1",
    "intake.after_batch:2",
    "place_orders.after_claim:1",
    "place_orders.after_orders:2",
    "place_orders.after_stock:3",
    "place_orders.after_outbox:1",
    "record_payments.after_payments:1",
    "record_payments.after_changes:2",
    "resolve_cases.after_resolutions:1",
    "write_changes.after_orders:1",
    "write_changes.after_stock:3",
    "webhooks.after_send:2",
    "dispatcher.after_read:12",
    "dispatcher.after_publish:3",
    "dispatcher.before_settle:2",
    "dispatcher.after_settle:1",
    "delivery.after_take:5",
    "delivery.before_handle:2",
    "delivery.after_handle:3",
    "delivery.before_commit:1",
    "delivery.before_commit:8",
    "delivery.after_commit:2",
    "delivery.after_acknowledge:4",
    "refund.claimed:1",
    "refund.answered:1",
]

# Closes something only where a message was lost; see the test of its own.
SWEEP_POINT = "sweep.after_batch:1"


@dataclass(frozen=True, slots=True)
class Stage:
    """Where shops come from, and who hears of their orders."""

    origin: ForkServerContext
    receiver: WebhookReceiver

    def path_through(self, folder: Path, **settings: object) -> EveryPath:
        environment = settings_for(self.receiver, test_mode=1, **settings)
        return EveryPath(ForkedShop(folder, environment, origin=self.origin), self.receiver)


@pytest.fixture(scope="module")
def origin() -> Iterator[ForkServerContext]:
    with origin_of_runs() as origin:
        yield origin


@pytest.fixture
def stage(origin: ForkServerContext) -> Iterator[Stage]:
    with listening() as receiver:
        yield Stage(origin, receiver)


def lose_timeout_check(path: Path, order_no: str) -> None:
    """Take an order's timeout check out of its queue, as a broker may lose it."""
    with closing(sqlite3.connect(path)) as connection, connection:
        lost = connection.execute(
            "delete from queue_messages where queue = 'order.timeout.queue' and message_id in"
            " (select message_id from order_outbox where aggregate_id = ?)",
            [order_no],
        )
        assert lost.rowcount == 1


def is_check_queued(path: Path) -> bool:
    """Return whether the check is in its queue and nobody will send it once more."""
    statement = (
        "select 1 from queue_messages where queue = 'order.timeout.queue' and not exists"
        " (select 1 from order_outbox where route = 'order.timeout.queue' and state = 'pending')"
    )
    return bool(rows(path, statement))


def wait_until_due(path: Path, order_no: str) -> None:
    """Wait for an order's deadline while nobody serves."""
    ((expires_at,),) = rows(path, "select expires_at from orders where order_no = ?", order_no)
    give_up_at = time.monotonic() + 60
    while time.time_ns() // 1000 <= expires_at:  # noqa: TID251 (the clock that SQLite reads, too)
        assert time.monotonic() < give_up_at
        threading.Event().wait(0.02)


def test_every_failure_point_of_the_source_has_its_kill() -> None:
    # The docstring that explains them has an example.
    texts = [
        source.read_text() for source in SOURCES.rglob("*.py") if source.name != "failure_points.py"
    ]
    named = Counter(
        name for text in texts for name in re.findall(r'\breach\(\s*"([^"]*)"\s*\)', text)
    )
    calls_count = sum(len(re.findall(r"(?<!def )\breach\(", text)) for text in texts)

    # Those of replays have kills of their own.
    points = [*POINTS, SWEEP_POINT, *(point for _, point in REPLAY_POINTS)]
    killed_at = {point.partition(":")[0] for point in points}

    assert killed_at == named.keys()
    # The name is written out where the step is reached: nothing escapes the list above.
    assert calls_count == named.total()
    # One name for each step; the commit is a step of each engine.
    assert {name for name, count in named.items() if count > 1} == {
        "database.before_commit",
        "database.after_commit",
    }


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_there_loses_and_doubles_nothing(tmp_path: Path, stage: Stage, point: str) -> None:
    with stage.path_through(tmp_path, failure_point=point) as path, path.shop:
        path.start()

        path.go()

        assert path.deaths == [-signal.SIGKILL], f"{point} is not reached"
        path.check()


def test_a_kill_of_the_sweep_that_closed_an_order_loses_and_doubles_nothing(
    tmp_path: Path, stage: Stage
) -> None:
    with stage.path_through(tmp_path, sweep_grace_s=0) as path, path.shop as shop:
        path.start()
        path.stock_shelves()
        order_no = path.order("overdue", {"tea": 2})
        path.until(lambda: is_check_queued(shop.database_path), "its timeout check is queued")
        shop.kill()
        lose_timeout_check(shop.database_path, order_no)
        wait_until_due(shop.database_path, order_no)
        shop.environment["ORDERKEEP_FAILURE_POINT"] = SWEEP_POINT
        shop.start()

        path.go()

        assert path.deaths == [-signal.SIGKILL]
        (actor,) = rows(
            shop.database_path,
            "select actor from order_history where order_no = ? and to_status = 'closed'",
            order_no,
        )
        assert actor[0] == "sweep"
        path.check(message_was_lost=True)


def test_the_whole_round_without_a_kill_ends_as_it_must(tmp_path: Path, stage: Stage) -> None:
    with stage.path_through(tmp_path) as path, path.shop:
        path.start()

        path.go()

        assert path.deaths == []
        path.check()
