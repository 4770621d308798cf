"""A backup is restored, and the broker knows more than the database, or less."""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pika
import pytest

from tests.acceptance.buyer import Buyer
from tests.acceptance.fleet import Fleet, Member, fleet_settings
from tests.acceptance.running import clean_environment
from tests.acceptance.walks import Block, Walked, blocks_of, walk
from tests.servers.availability import (
    fresh_vhost,
    new_database,
    postgresql_server,
    rabbitmq_server,
)

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "backup.md"

# What stands on the page above each block that is run here.
RUN_HERE = "tests/acceptance/test_restore.py runs this block, on real servers"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not shutil.which("pg_dump"), reason="pg_dump is missing"),
    pytest.mark.skipif("RESTORE" not in os.environ, reason="`make restore` restores a backup"),
]

# Long enough for a backup and what comes after it, and short enough to wait for.
ORDER_TIMEOUT_S = 15


def block_with(words: str, *, heading: str) -> Block:
    """Return the block under a heading of the page that has the words, to be run."""
    part = PAGE.read_text().partition(f"\n### {heading}\n")[2].partition("\n### ")[0]
    # The second part of that name is PostgreSQL's: the first stands in the other half.
    if heading == "Restore":
        part = PAGE.read_text().rpartition("\n### Restore\n")[2].partition("\n### ")[0]
    [block] = [block for block in blocks_of(part) if words in block.text]
    assert block.reason == RUN_HERE, block
    return replace(block, reason=None)


def follow(block: Block, *, folder: Path, **environment: str) -> Walked:
    """Do what a block of the page says, with the given variables."""
    walked = walk(
        [block],
        folder=folder,
        environment={
            **clean_environment(),
            **environment,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        },
    )
    assert walked.exit_code == 0, walked.last
    return walked


@contextmanager
def restored_from(dump_folder: Path, database_url: str) -> Iterator[str]:
    """Restore the dump as the page says, into a database beside the other; give its URL."""
    name = f"{urlsplit(database_url).path[1:]}_restored"
    url = database_url.rpartition("/")[0] + f"/{name}"
    try:
        follow(
            block_with("pg_restore --no-owner", heading="Restore"),
            folder=dump_folder,
            DATABASE_URL=database_url,
            NEW_DATABASE=name,
            NEW_DATABASE_URL=url,
        )
        yield url
    finally:
        postgresql_server().drop_database(name)


def await_messages(member: Member, broker_url: str, queue: str, *, count: int) -> None:
    """Wait until so many messages are in a queue, none of them read."""
    with pika.BlockingConnection(pika.URLParameters(broker_url)) as connection:
        channel = connection.channel()

        def are_there() -> bool:
            return channel.queue_declare(queue, passive=True).method.message_count >= count

        member.wait_until(are_there, f"{count} messages are in {queue}")


def await_first_look(member: Member) -> None:
    """Wait until reconciliation has begun to look: it takes nothing for missing before that."""
    begun = "SELECT 1 FROM order_reconciled WHERE consumer = 'payment.order.events'"
    name = database_of(member)
    member.wait_until(lambda: postgresql_server().query(begun, database=name), "it has looked")


def await_all_sent(member: Member) -> None:
    """Wait until every event of an order has left, those that the broker is to hold as well."""

    def is_all_sent() -> bool:
        pending = "SELECT count(*) AS count FROM order_outbox WHERE state = 'pending'"
        return postgresql_server().query(pending, database=database_of(member)) == [{"count": 0}]

    member.wait_until(is_all_sent, "everything has left")


def test_after_a_restore_the_broker_may_be_ahead_or_behind(tmp_path: Path) -> None:
    with (
        new_database(postgresql_server()) as database_url,
        fresh_vhost(rabbitmq_server()) as broker_url,
    ):
        settings = fleet_settings(
            database_url=database_url,
            broker_urls=[broker_url],
            order_timeout_s=ORDER_TIMEOUT_S,
            sweep_grace_s=1,
            sweep_interval_s=1,
            unknown_order_retry_for_s=2,
            retry_max_s=1,
        )
        with Fleet(tmp_path, settings) as fleet:
            serve, work = fleet.start_serve(), fleet.start_work()
            serve.put_sku("tea", stock=100)
            with Buyer(serve, "ann") as ann:
                paid, kept = (ann.order({"tea": 1})["order_no"] for _ in range(2))
                ann.settle(ann.open_payment(paid)["payment_no"])
                ann.wait_for(paid, "paid")
                # However long all of this takes, this order is still to be paid afterwards.
                postgresql_server().query(
                    "UPDATE orders SET expires_at = expires_at + 3600000000",
                    database=database_of(serve),
                )
                follow(
                    block_with("pg_dump", heading="Back up"),
                    folder=tmp_path,
                    DATABASE_URL=database_url,
                )
                work.stop()
                lost = ann.order({"tea": 1})["order_no"]
            pay_from_outside(serve, kept, "T-kept")
            pay_from_outside(serve, lost, "T-lost")
            sender = fleet.start_work("--only", "dispatchers")
            await_messages(sender, broker_url, "payment.success.notify", count=2)
            await_messages(sender, broker_url, "payment.order.events", count=1)
            await_all_sent(sender)
            sender.kill()
            serve.kill()

        with restored_from(tmp_path, database_url) as url:
            after = {**settings, "ORDERKEEP_DATABASE_URL": url}
            checked = follow(
                block_with("orderkeep migrate", heading="Restore"), folder=tmp_path, **after
            )
            assert "Every guarantee holds." in checked.last
            with Fleet(tmp_path, after) as fleet:
                serve, work = fleet.start_serve(), fleet.start_work()
                look_at_what_is_ahead(serve, paid=paid, kept=kept, lost=lost)
                await_first_look(work)
                told = follow(
                    block_with("payment-cases list", heading="The broker is ahead"),
                    folder=tmp_path,
                    **after,
                ).last
                assert f"orders that payments know and that are not here: {lost}" in told
                assert told.count("unknown_order") == 2
                work.stop()
                lose_the_broker(fleet, serve, broker_url)
                assert fleet.error_counts() == {"message_set_aside": 1}
                told = follow(
                    block_with("orderkeep doctor", heading="The broker is behind"),
                    folder=tmp_path,
                    **after,
                ).last
                assert "Every guarantee holds." in told
                assert "WRONG" not in told


def pay_from_outside(serve: Member, order_no: str, trade_no: str) -> None:
    """Report a payment, as a channel of somebody else's does."""
    body = {"order_no": order_no, "trade_no": trade_no, "amount": 10, "currency": "CNY"}
    with serve.operator() as operator:
        answer = operator.post("/queues/payment.success.notify/messages", json=body)
    assert answer.status_code == 202, answer.text


def look_at_what_is_ahead(serve: Member, *, paid: str, kept: str, lost: str) -> None:
    """See that what the broker still tells of is taken as far as it can be, or set aside."""
    with Buyer(serve, "ann") as ann, serve.operator() as operator:
        ann.wait_for(kept, "paid")
        assert ann.see(paid)["status"] == "paid"
        assert ann.client.get(f"/orders/{lost}").status_code == 404

        def kinds() -> list[tuple[str, str]]:
            cases = operator.get("/admin/payment-cases").json()["items"]
            return [(case["kind"], case["trade_no"]) for case in cases]

        serve.wait_until(lambda: kinds() == [("unknown_order", "T-lost")], "the money is a case")

        def set_aside() -> list[tuple[str, str]]:
            letters = operator.get("/admin/dead-letters").json()["items"]
            return [(letter["queue"], letter["reason"]) for letter in letters]

        serve.wait_until(
            lambda: set_aside() == [("order.timeout.queue", "unknown_order")],
            "the timeout check of the order that is gone is set aside",
        )


def lose_the_broker(fleet: Fleet, serve: Member, broker_url: str) -> None:
    """Lose all that the broker has confirmed, and see that everything comes to rest again."""
    sender = fleet.start_work("--only", "dispatchers")
    with Buyer(serve, "ann") as ann:
        unpaid, wanted = (ann.order({"tea": 1})["order_no"] for _ in range(2))
        await_messages(sender, broker_url, "payment.order.events", count=2)
        sender.stop()
        postgresql_server().query(
            f"UPDATE orders SET expires_at = expires_at + 3600000000 WHERE order_no = '{wanted}'",  # noqa: S608 (a number of ours)
            database=database_of(serve),
        )
        vhost = urlsplit(broker_url).path[1:]
        rabbitmq_server().delete_vhost(vhost)
        rabbitmq_server().create_vhost(vhost)
        # As if a minute had gone by, for so long nobody looks for what was sent.
        postgresql_server().query(
            "UPDATE order_outbox SET sent_at = sent_at - 60000000 WHERE state = 'sent'",
            database=database_of(serve),
        )
        postgresql_server().query(
            "UPDATE order_reconciled SET sent_at = sent_at - 3600000000",
            database=database_of(serve),
        )
        fleet.start_work()
        ann.settle(ann.open_payment(wanted)["payment_no"])
        ann.wait_for(wanted, "paid")
        ann.wait_for(unpaid, "closed")

    def is_at_rest() -> bool:
        return serve.command("verify", "--quiesced").returncode == 0

    serve.wait_until(is_at_rest, "verify finds nothing late")


def database_of(serve: Member) -> str:
    """Return the name of the database that a process uses."""
    return urlsplit(serve.environment["ORDERKEEP_DATABASE_URL"]).path[1:]
