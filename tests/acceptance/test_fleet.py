"""Two processes that serve and three that work: order, takeover, and what is deleted under them.

The short form of what `make fleet` and `make cluster` do for minutes.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from tests.acceptance.buyer import Buyer
from tests.acceptance.fleet import Fleet, Member, fleet_settings
from tests.acceptance.fleet_books import FleetBooks
from tests.acceptance.fleet_load import DemoLoad
from tests.acceptance.fleet_observer import Observer, sequences_by_route, traced
from tests.acceptance.fleet_takeover import (
    TAKEOVER_S_MAX,
    find_hold,
    measure_takeover,
    wait_for_end,
)
from tests.acceptance.fleet_verdict import find_wrong, rest
from tests.servers.availability import (
    fresh_vhost,
    new_database,
    postgresql_server,
    rabbitmq_server,
)
from tests.servers.own_process import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

# Short enough that the rest comes soon after the load.
ORDER_TIMEOUT_S = 3.0

REST_S_MAX = 60.0
LOAD_S_MAX = 60.0

# What a shopper of the demo causes to be told, and on which ways.
ROUTES = {
    "cart-sync",
    "order.events",
    "order.timeout.dlq",
    "order.timeout.queue",
    "payment.opened.notify",
    "payment.success.notify",
}


@contextmanager
def settings_on_real_servers(**more: object) -> Iterator[Mapping[str, str]]:
    """Give a database and a virtual host of this test's own, as settings."""
    with (
        new_database(postgresql_server()) as database_url,
        fresh_vhost(rabbitmq_server()) as broker_url,
    ):
        yield fleet_settings(
            database_url=database_url,
            broker_urls=[broker_url],
            order_timeout_s=ORDER_TIMEOUT_S,
            sweep_interval_s=1,
            sweep_grace_s=1,
            **more,
        )


def batches_sent_count(worker: Member) -> float:
    """Return how many batches the worker's dispatchers have sent."""
    found = re.search(
        r"^orderkeep_dispatch_confirm_seconds_count ([0-9.e+]+)$", worker.metrics(), re.MULTILINE
    )
    assert found is not None
    return float(found.group(1))


def wait_for_orders(load: DemoLoad, *, count: int) -> None:
    wait_until(lambda: len(load.acknowledged) >= count, f"{count} orders", within_s=LOAD_S_MAX)


def test_every_event_is_told_once_and_in_order_and_the_dead_are_taken_over(
    tmp_path: Path,
) -> None:
    with settings_on_real_servers() as settings, Fleet(tmp_path, settings) as fleet:
        broker_url = settings["ORDERKEEP_BROKER_URL"]
        books = FleetBooks(settings["ORDERKEEP_DATABASE_URL"])
        with Observer.of_order_events([broker_url]) as observer:
            fleet.start_together(serve_count=2, work_count=3)
            while_nothing_fails(fleet, books, observer)
            assert observer.doubles() == []

            with DemoLoad(fleet.fronts, seed=20, shoppers_count=3) as load:
                wait_for_orders(load, count=20)
                one_is_killed(fleet, observer)
                one_is_stopped_and_continued(fleet, books, observer)
            rest(books, observer, within_s=REST_S_MAX)

            assert load.surprises == []
            assert set(load.order_nos()) <= books.statuses().keys()
            assert observer.out_of_order() == []
            assert find_wrong(fleet, books, observer) == []


def while_nothing_fails(fleet: Fleet, books: FleetBooks, observer: Observer) -> None:
    """See that nothing is published twice, and that each way has each order's events in order."""
    broker_url = fleet.settings["ORDERKEEP_BROKER_URL"]
    with traced(rabbitmq_server(), broker_url), Observer.of_trace([broker_url]) as trace:
        with DemoLoad(fleet.fronts, seed=1, shoppers_count=6) as load:
            wait_for_orders(load, count=100)
        rest(books, observer, within_s=REST_S_MAX)
        assert load.surprises == []
        assert trace.out_of_order() == []
        assert trace.doubles() == []
        assert observer.message_ids() <= trace.message_ids()
        assert sequences_by_route(trace.arrivals).keys() >= ROUTES
    assert fleet.error_counts() == {}
    assert all(batches_sent_count(worker) > 0 for worker in fleet.workers)


def one_is_killed(fleet: Fleet, observer: Observer) -> None:
    killed = fleet.workers[0]
    killed.kill()
    fleet.members.remove(killed)
    measure_takeover(fleet, observer, "demo-tea", within_s=TAKEOVER_S_MAX)


def one_is_stopped_and_continued(fleet: Fleet, books: FleetBooks, observer: Observer) -> None:
    stopped = fleet.workers[0]
    port = urlsplit(fleet.settings["ORDERKEEP_DATABASE_URL"]).port
    assert port is not None
    hold = find_hold(stopped, books, postgresql_port=port)
    assert hold.pids
    stopped.pause()
    wait_for_end(hold, books)
    measure_takeover(fleet, observer, "demo-tea", within_s=TAKEOVER_S_MAX)
    stopped.go_on()


def test_what_is_deleted_under_a_dispatcher_is_made_anew_and_nothing_goes_nowhere(
    tmp_path: Path,
) -> None:
    with settings_on_real_servers() as settings, Fleet(tmp_path, settings) as fleet:
        books = FleetBooks(settings["ORDERKEEP_DATABASE_URL"])
        parameters = pika.URLParameters(settings["ORDERKEEP_BROKER_URL"])
        with pika.BlockingConnection(parameters) as connection:
            channel = connection.channel()
            fleet.start_together(serve_count=1, work_count=0)
            # Nobody reads the queues, so what is in them can be counted.
            fleet.start_work("--only", "dispatchers")
            fleet.front.put_sku("tea", stock=100)
            with Buyer(fleet.front, "ann") as ann:
                ann.order({"tea": 1})
                wait_until_sent(books, "order.events", count=1)

                channel.queue_delete("cart-sync")
                for queue in ("order.outbox", "payment.order.events"):
                    channel.queue_unbind(queue, "order.events", "order.#")
                ann.order({"tea": 1}, cart_item_ids=ann.fill_cart({"tea": 1}))
                wait_until_sent(books, "cart-sync", count=1)
                wait_until_sent(books, "order.events", count=2)

                wait_until_held(channel, "cart-sync", count=1)
                wait_until_held(channel, "order.outbox", count=2)
                wait_until_held(channel, "payment.order.events", count=2)
                fleet.start_work()
                wait_until(lambda: not books.under_way(), "the fleet rests", within_s=REST_S_MAX)
                assert books.contradictions() == {}
                assert ann.cart_item_ids() == []


def test_what_a_broker_confirmed_and_lost_is_sent_again(tmp_path: Path) -> None:
    with settings_on_real_servers() as settings, Fleet(tmp_path, settings) as fleet:
        books = FleetBooks(settings["ORDERKEEP_DATABASE_URL"])
        parameters = pika.URLParameters(settings["ORDERKEEP_BROKER_URL"])
        with pika.BlockingConnection(parameters) as connection:
            channel = connection.channel()
            fleet.start_together(serve_count=1, work_count=0)
            # The reconciliation begins with what is sent from now on, and nobody reads yet.
            fleet.start_work("--only", "dispatchers,reconciliation")
            wait_until(
                lambda: books.rows("select count(*) from order_reconciled") == [(9,)],
                "the reconciliation has begun",
                within_s=30.0,
            )
            fleet.front.put_sku("tea", stock=100)
            with Buyer(fleet.front, "ann") as ann:
                for _ in range(5):
                    ann.order({"tea": 1})
                wait_until_sent(books, "order.events", count=5)
                # One of two queues loses everything; the other has it all.
                channel.queue_unbind("order.outbox", "order.events", "order.#")
                wait_until_held(channel, "order.outbox", count=5)
                channel.queue_purge("order.outbox")
                fleet.start_work()

                wait_until(
                    lambda: (
                        books.rows(
                            "select count(*) from order_inbox where consumer = 'order.outbox'"
                            " and message_id in (select message_id from order_outbox"
                            " where type = 'order.created')"
                        )
                        == [(5,)]
                    ),
                    "every event has been received",
                    within_s=90.0,
                )
            wait_until(lambda: not books.under_way(), "the fleet rests", within_s=REST_S_MAX)
            assert books.contradictions() == {}


def wait_until_sent(books: FleetBooks, route: str, *, count: int) -> None:
    statement = "select count(*) from order_outbox where route = $1 and state = 'sent'"
    wait_until(
        lambda: books.rows(statement, route) == [(count,)],
        f"{count} events are sent to {route}",
        within_s=30.0,
    )


def wait_until_held(channel: BlockingChannel, queue: str, *, count: int) -> None:
    # A quorum queue tells of a message a moment after it has confirmed it.
    wait_until(
        lambda: channel.queue_declare(queue, passive=True).method.message_count == count,
        f"{queue} holds {count} messages",
        within_s=10.0,
    )
