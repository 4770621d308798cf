"""The set-ups that one acceptance flow must pass on: engines, brokers, and ways to hold a delay.

    with opened("postgresql, rabbitmq, hold queue", tmp_path, order_timeout_s=2) as shop: ...

Each gets a database and a virtual host of its own on a real server, and leaves nothing behind.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.acceptance.fleet import Fleet
from tests.acceptance.running import RunningShop, run_command, start_shop, variables
from tests.servers.availability import (
    fresh_database,
    fresh_vhost,
    postgresql_server,
    rabbitmq_server,
)

JWT_SECRET = "a-secret-that-guards-nothing-but-a-test"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What a shop runs on.

    Attributes:
        delay_backend: Of RabbitMQ; None has the queues in the database.
        is_fleet: One `serve` and one `work`, instead of one `run`.
    """

    is_postgresql: bool = False
    delay_backend: str | None = None
    is_fleet: bool = False


SETUPS: Mapping[str, Setup] = {
    "sqlite, database queues": Setup(),
    "sqlite, rabbitmq": Setup(delay_backend="hold-queue"),
    "postgresql, database queues": Setup(is_postgresql=True, is_fleet=True),
    "postgresql, rabbitmq, hold queue": Setup(
        is_postgresql=True, delay_backend="hold-queue", is_fleet=True
    ),
    "postgresql, rabbitmq, outbox delay": Setup(is_postgresql=True, delay_backend="outbox"),
    "postgresql, rabbitmq, plugin": Setup(is_postgresql=True, delay_backend="plugin"),
}


@contextmanager
def servers_of(setup: Setup) -> Iterator[dict[str, str]]:
    """Make a database and a virtual host where the set-up needs them; yield the settings."""
    settings: dict[str, str] = {}
    with ExitStack() as stack:
        if setup.is_postgresql:
            url = stack.enter_context(fresh_database(postgresql_server(), migrate))
            settings["ORDERKEEP_DATABASE_URL"] = url
            settings["ORDERKEEP_JWT_SECRET"] = JWT_SECRET
            settings["ORDERKEEP_SANDBOX"] = "on"
        if setup.delay_backend is not None:
            broker = rabbitmq_server()
            if setup.delay_backend == "plugin" and not broker.has_delayed_message_plugin:
                pytest.skip("this RabbitMQ has no rabbitmq_delayed_message_exchange plugin")
            settings["ORDERKEEP_BROKER_URL"] = stack.enter_context(fresh_vhost(broker))
            settings["ORDERKEEP_DELAY_BACKEND"] = setup.delay_backend
        yield settings


@contextmanager
def running_on(setup: Setup, folder: Path, settings: Mapping[str, str]) -> Iterator[RunningShop]:
    """Run a shop on servers that are there, until the context ends.

    Args:
        setup: Says whether it is one process or two.
        folder: Of this test alone.
        settings: All of them, by the names of their variables.
    """
    if setup.is_fleet:
        with Fleet(folder, settings) as fleet:
            fleet.start_serve()
            fleet.start_work()
            yield fleet.front
    else:
        with start_shop(folder, **settings) as shop:
            yield shop


@contextmanager
def opened(name: str, folder: Path, **environment: object) -> Iterator[RunningShop]:
    """Run a shop on the named set-up until the context ends.

    Args:
        name: One of `SETUPS`.
        folder: Of this test alone.
        environment: Settings besides those of the set-up.
    """
    setup = SETUPS[name]
    with (
        servers_of(setup) as servers,
        running_on(setup, folder, {**servers, **variables(**environment)}) as shop,
    ):
        yield shop


def migrate(url: str) -> None:
    """Bring the database at the URL to the newest schema, as an operator does."""
    migrated = run_command("migrate", environment={"ORDERKEEP_DATABASE_URL": url})
    assert migrated.returncode == 0, migrated.stderr
