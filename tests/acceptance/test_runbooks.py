"""The runbooks, followed as printed, on a shop that has the trouble that they are about."""

import asyncio
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import asyncpg
import pika
import pytest

from tests.acceptance.buyer import Buyer
from tests.acceptance.fleet import Fleet, Member, fleet_settings
from tests.acceptance.walks import Block, blocks_of, find_missing, walk
from tests.servers.availability import (
    fresh_vhost,
    new_database,
    postgresql_server,
    rabbitmq_server,
)

ROOT = Path(__file__).parents[2]

RUNBOOKS = ROOT / "docs" / "runbooks"

# What stands on a page above each block that is run here.
RUN_HERE = "tests/acceptance/test_runbooks.py runs this page from top to bottom, on real servers"

# Each command starts Python: all pages take minutes, and four of them are followed at every change.
every_page = pytest.mark.skipif(
    "RUNBOOKS" not in os.environ, reason="`make runbooks` follows every page"
)

# These have their trouble made, look at it, mend it, and see that it is gone.
TROUBLES = (
    "dead-letters",
    "events-missing",
    "events-parked",
    "orders-overdue",
    "outbox-not-sent",
    "payment-cases-open",
    "refunds-failed",
)

# These are looked at on a shop that is well: their trouble is made by tests of its own, or belongs
# to a machine.
HEALTHY = (
    "answers-errors",
    "broker-down",
    "checks-stale",
    "closes-late",
    "confirms-slow",
    "database-down",
    "disk-fills-up",
    "doctor-finds-wrong",
    "events-resent",
    "guarantee-broken",
    "outbox-grows",
    "process-down",
    "process-restarts",
    "refunds-open",
    "refuses-requests",
    "schema-behind",
    "sweep-closes",
)

WALKED = (*TROUBLES, *HEALTHY)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        not (shutil.which("bash") and shutil.which("curl")), reason="bash or curl is missing"
    ),
]

PROGRAMS = Path(sys.executable).parent

# Looking twice at a shop that is well shows the same twice, and takes a second each.
LOOK_ONCE = """#!/bin/sh
case "$1" in migrate) exec {orderkeep} "$@";; esac
seen={folder}/$(printf '%s ' "$@" | tr -c 'a-z\\n' _)
if [ ! -e "$seen.code" ]; then
  code=0
  {orderkeep} "$@" > "$seen.$$" 2>&1 || code=$?
  mv "$seen.$$" "$seen"
  echo "$code" > "$seen.code.$$"
  mv "$seen.code.$$" "$seen.code"
fi
cat "$seen"
exit "$(cat "$seen.code")"
"""


@dataclass
class Shop:
    """A `serve`, and a `work` that comes and goes."""

    fleet: Fleet
    serve: Member
    work: Member
    database_url: str
    broker_url: str

    def execute(self, sql: str) -> None:
        """Change the database behind the service's back."""

        async def run() -> None:
            connection = await asyncpg.connect(self.database_url)
            try:
                await connection.execute(sql)
            finally:
                await connection.close()

        asyncio.run(run())

    def await_first_look(self) -> None:
        """Wait until reconciliation has begun to look: it takes nothing for missing before that."""
        server = postgresql_server()
        begun = "SELECT 1 FROM order_reconciled WHERE consumer = 'payment.order.events'"
        name = self.database_url.rpartition("/")[2]
        self.work.wait_until(lambda: server.query(begun, database=name), "it has looked")

    def hand_in(self, queue: str, body: dict[str, object]) -> None:
        """Hand in a message, as a program outside does."""
        with self.serve.operator() as operator:
            answer = operator.post(f"/queues/{queue}/messages", json=body)
        assert answer.status_code == 202, answer.text

    def await_status(self, what: str, *, count: int = 1) -> None:
        """Wait until a number of `orderkeep status` has risen."""
        with self.serve.operator() as operator:

            def has_risen() -> bool:
                found = operator.get("/admin/status").json()[what]
                return (len(found) if isinstance(found, dict) else found) >= count

            self.serve.wait_until(has_risen, f"{what} is {count}")

    def walk(
        self,
        page: str,
        *,
        folder: Path,
        parts: tuple[str, ...] | None = None,
        programs: Path = PROGRAMS,
    ) -> None:
        """Follow a page, or some of its parts, and compare what it prints with what it shows.

        What it shows is a text behind a block that is run here, in the form of an output.

        Args:
            page: Its name.
            folder: Where its reader is.
            parts: The headings of its parts; None is all of them.
            programs: Where its reader finds `orderkeep`.
        """
        blocks = run_here(blocks_of(text_of(page, parts=parts)))
        environment = {
            **self.serve.environment,
            "PATH": f"{programs}:{PROGRAMS}:{self.serve.environment['PATH']}",
            "SERVE": self.serve.url,
            "WORK": self.work.url,
            "NO_PROXY": "127.0.0.1",
        }
        if not folder.exists():
            folder.mkdir()
            (folder / "deploy").symlink_to(ROOT / "deploy")
        walked = walk(blocks, folder=folder, environment=environment)
        assert walked.exit_code == 0, f"{page}: {walked.last}"
        for shown, block in zip(blocks[1:], blocks[:-1], strict=True):
            if shown.language == "text" and block.is_run:
                printed = walked.outputs[block.line]
                missing = find_missing(shown.text, actual=printed)
                assert missing is None, f"{page}: {missing!r} is not in:\n{printed}"

    def walk_all(
        self,
        pages: Iterable[str],
        *,
        folder: Path,
        parts: tuple[str, ...] | None = None,
        programs: Path = PROGRAMS,
    ) -> None:
        """Follow pages by as many readers as the machine has hands for."""
        with ThreadPoolExecutor(3) as readers:
            walks = [
                readers.submit(
                    self.walk, page, folder=folder / page, parts=parts, programs=programs
                )
                for page in pages
            ]
        for walked in walks:
            walked.result()


def text_of(page: str, *, parts: tuple[str, ...] | None) -> str:
    """Return a page, or those of its parts whose headings are given."""
    text = (RUNBOOKS / f"{page}.md").read_text()
    if parts is None:
        return text
    return "\n".join(text.partition(f"\n## {part}\n")[2].partition("\n## ")[0] for part in parts)


def run_here(blocks: list[Block]) -> list[Block]:
    """Return the blocks such that those are run that say so."""
    return [replace(block, reason=None) if block.reason == RUN_HERE else block for block in blocks]


@contextmanager
def running_shop(folder: Path) -> Iterator[Shop]:
    """Run a shop that sweeps often, on servers of its own."""
    with (
        new_database(postgresql_server()) as database_url,
        fresh_vhost(rabbitmq_server()) as broker_url,
    ):
        settings = fleet_settings(
            database_url=database_url, broker_urls=[broker_url], sweep_grace_s=1, sweep_interval_s=1
        )
        with Fleet(folder, settings) as fleet:
            serve = fleet.start_serve()
            work = fleet.start_work()
            serve.put_sku("tea", stock=100)
            yield Shop(fleet, serve, work, database_url, broker_url)


LOOK, WELL = ("How to look",), ("How to know that it is well again",)


def make_dead_letter(shop: Shop) -> None:
    shop.hand_in("cart-sync", {"event_type": "cart.item.removed", "user_id": "ann"})
    shop.await_status("dead_letters")


def make_failed_refund(shop: Shop) -> None:
    """Pay an order twice from outside: the bundled payment service cannot give the second back."""
    with Buyer(shop.serve, "ann") as ann:
        order_no = ann.order({"tea": 1})["order_no"]
        for trade_no in ("R-1", "R-2"):
            payment = {"order_no": order_no, "trade_no": trade_no, "amount": 10, "currency": "CNY"}
            shop.hand_in("payment.success.notify", {**payment, "pay_channel": "bank"})
            ann.wait_for(order_no, "paid")
    shop.await_status("refunds_failed")


def make_payment_case(shop: Shop) -> None:
    with Buyer(shop.serve, "bob") as bob:
        order_no = bob.order({"tea": 1})["order_no"]
    payment = {"order_no": order_no, "trade_no": "C-1", "amount": 1, "currency": "CNY"}
    shop.hand_in("payment.success.notify", {**payment, "pay_channel": "bank"})
    shop.await_status("payment_cases_open")


def make_parked_event(shop: Shop) -> None:
    """Let an order's events be as the dispatcher leaves them after its last try."""
    shop.work.pause()
    with Buyer(shop.serve, "ann") as ann:
        ann.order({"tea": 1})
    shop.execute(
        "UPDATE order_outbox SET state = 'failed', attempts = 16, last_error = 'NOT_FOUND - no"
        " exchange' WHERE state = 'pending' AND type = 'order.created'"
    )
    shop.work.go_on()


MADE_AND_MENDED: dict[str, Callable[[Shop], None]] = {
    "dead-letters": make_dead_letter,
    "refunds-failed": make_failed_refund,
    "payment-cases-open": make_payment_case,
    "events-parked": make_parked_event,
}


def test_the_pages_mend_what_they_are_about(tmp_path: Path) -> None:
    with running_shop(tmp_path) as shop:
        for make in MADE_AND_MENDED.values():
            make(shop)
        shop.walk_all(MADE_AND_MENDED, folder=tmp_path)

        assert shop.serve.command("verify").returncode == 0


def lose_events(shop: Shop) -> None:
    """Let the broker confirm an order's events and lose those of one queue, which nobody reads."""
    sender = shop.fleet.start_work("--only", "dispatchers")
    with Buyer(shop.serve, "ann") as ann:
        ann.order({"tea": 1})
    with pika.BlockingConnection(pika.URLParameters(shop.broker_url)) as connection:
        channel = connection.channel()

        def is_there() -> bool:
            declared = channel.queue_declare("payment.order.events", passive=True)
            return bool(declared.method.message_count)

        shop.serve.wait_until(is_there, "the event is in its queue")
        channel.queue_purge("payment.order.events")
    sender.stop()
    # As if a minute had gone by, for so long nobody looks for what was sent.
    shop.execute("UPDATE order_outbox SET sent_at = sent_at - 60000000 WHERE state = 'sent'")
    shop.execute("UPDATE order_reconciled SET sent_at = sent_at - 3600000000")


def programs_that_look_once(folder: Path) -> Path:
    """Make a folder with an `orderkeep` that looks at each thing once, and remembers."""
    folder.mkdir()
    program = folder / "orderkeep"
    program.write_text(LOOK_ONCE.format(orderkeep=PROGRAMS / "orderkeep", folder=folder))
    program.chmod(0o755)
    return folder


@every_page
def test_what_waits_for_a_worker_goes_on_when_there_is_one(tmp_path: Path) -> None:
    with running_shop(tmp_path) as shop:
        shop.await_first_look()
        shop.work.stop()
        lose_events(shop)
        with Buyer(shop.serve, "ann") as ann:
            orders = [ann.order({"tea": 1})["order_no"] for _ in range(3)]
        shop.execute("UPDATE orders SET expires_at = expires_at - 3600000000")
        shop.await_status("overdue_orders", count=3)
        waiting = ("outbox-not-sent", "orders-overdue", "events-missing")
        shop.walk_all(waiting, folder=tmp_path, parts=LOOK)

        shop.work = shop.fleet.start_work()
        shop.walk_all(waiting, folder=tmp_path, parts=WELL)
        with Buyer(shop.serve, "ann") as ann:
            assert {ann.see(order_no)["status"] for order_no in orders} == {"closed"}
        resent = 'orderkeep_events_resent_total{queue="payment.order.events"} '
        assert resent in shop.work.metrics()


@every_page
def test_the_other_pages_can_be_followed_on_a_shop_that_is_well(tmp_path: Path) -> None:
    with running_shop(tmp_path) as shop:
        with Buyer(shop.serve, "ann") as ann:
            ann.order({"tea": 1})
        once = programs_that_look_once(tmp_path / "once")
        shop.walk_all(HEALTHY, folder=tmp_path, programs=once)
