"""`orderkeep work` may be started before its database: it waits for it, says so, and then works."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.buyer import Buyer
from tests.acceptance.fleet import JWT_SECRET, Fleet, Member
from tests.acceptance.running import STOP_S_MAX, run_command, variables
from tests.servers.availability import fresh_vhost, rabbitmq_server
from tests.servers.postgresql import PrivatePostgresServer, start_private_postgresql

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@contextmanager
def stopped_server(
    folder: Path, *, is_migrated: bool
) -> Iterator[tuple[PrivatePostgresServer, str]]:
    """Give a server of this test's own that is stopped, and where the service's database is."""
    server = start_private_postgresql(folder)
    try:
        server.create_database("shop")
        url = server.url("shop")
        if is_migrated:
            migrated = run_command("migrate", environment=variables(database_url=url))
            assert migrated.returncode == 0, migrated.stderr
        server.stop()
        yield server, url
    finally:
        server.kill()


def started(fleet: Fleet, *command: str) -> Member:
    """Start a process of the fleet, and do not wait for it to be ready."""
    member = fleet._add(*command)
    member.start()
    return member


def health_of(member: Member) -> tuple[int, dict[str, Any]] | None:
    connection = HTTPConnection("127.0.0.1", member.port, timeout=5)
    try:
        connection.request("GET", "/health/ready")
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    except OSError:
        return None
    finally:
        connection.close()


def test_it_answers_that_it_is_not_ready_and_works_once_the_database_is_there(
    tmp_path: Path,
) -> None:
    with (
        stopped_server(tmp_path, is_migrated=True) as (server, database_url),
        fresh_vhost(rabbitmq_server()) as broker_url,
    ):
        settings = variables(
            database_url=database_url, broker_url=broker_url, jwt_secret=JWT_SECRET, sandbox="on"
        )
        with Fleet(tmp_path, settings) as fleet:
            worker = started(fleet, "work")
            status, health = worker.wait_until(lambda: health_of(worker), "it answers")
            worker.wait_until(lambda: worker.log_events("database_awaited"), "it says so")
            assert status == 503
            assert health["checks"]["database"]["status"] == "failed"

            server.start()
            worker.wait_until(worker.is_ready, "it is ready")
            shop = fleet.start_serve()
            shop.put_sku("tea", stock=10)
            with Buyer(shop, "ann") as ann:
                order_no = ann.order({"tea": 1})["order_no"]
                ann.settle(ann.open_payment(order_no)["payment_no"])
                ann.wait_for(order_no, "paid")
            assert fleet.error_counts() == {}
            assert worker.stop() == 0


def test_it_can_be_stopped_while_it_waits(tmp_path: Path) -> None:
    with (
        stopped_server(tmp_path, is_migrated=True) as (_, database_url),
        Fleet(tmp_path, variables(database_url=database_url)) as fleet,
    ):
        worker = started(fleet, "work")
        worker.wait_until(lambda: worker.log_events("database_awaited"), "it waits")

        assert worker.stop() == 0


def test_it_ends_as_ever_if_the_database_turns_out_to_have_no_schema(tmp_path: Path) -> None:
    with (
        stopped_server(tmp_path, is_migrated=False) as (server, database_url),
        Fleet(tmp_path, variables(database_url=database_url)) as fleet,
    ):
        worker = started(fleet, "work")
        worker.wait_until(lambda: worker.log_events("database_awaited"), "it waits")

        server.start()

        assert worker.process is not None
        assert worker.process.wait(STOP_S_MAX) == 2
        assert "orderkeep migrate" in worker.log_text()
