"""The servers of a production set-up, made by what `deploy/` ships: roles, rights, names.

    with production_servers(tmp_path) as servers:
        run_command("migrate", environment=servers.owner_settings)
        fleet = Fleet(tmp_path, servers.settings)

Databases, roles, virtual hosts and users have names of their own and are gone afterwards.
"""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.servers.availability import postgresql_server, rabbitmq_server
from tests.servers.erlang_shell import ErlangError
from tests.servers.own_process import run_to_end
from tests.servers.postgresql import PostgresServer
from tests.servers.rabbitmq import RabbitServer
from tests.servers.rabbitmq_node import find_program

DEPLOY = Path(__file__).parents[2] / "deploy"

JWT_SECRET = "Zq3vT8kLm2Xw9RbN5yHc7PdFsJ4gUe6A"

# What a shell, SQL and a URL each read in their own way.
_PASSWORD = "it's a $pass/word"
_QUOTED_PASSWORD = quote(_PASSWORD, safe="")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductionServers:
    """Where the servers are, for each of those who use them.

    Attributes:
        owner_url: For the role that owns the tables.
        application_url: For the role that reads and writes them.
        broker_url: For the service's own user.
        vhost: Of the broker.
        broker_user: Its name.
    """

    owner_url: str
    application_url: str
    broker_url: str
    vhost: str
    broker_user: str

    @property
    def owner_settings(self) -> dict[str, str]:
        """What `orderkeep migrate` is given."""
        return {"ORDERKEEP_DATABASE_URL": self.owner_url}

    @property
    def settings(self) -> dict[str, str]:
        """What `serve`, `work` and every other command are given."""
        return {
            "ORDERKEEP_DATABASE_URL": self.application_url,
            "ORDERKEEP_BROKER_URL": self.broker_url,
            "ORDERKEEP_JWT_SECRET": JWT_SECRET,
        }


@contextmanager
def production_servers(folder: Path) -> Iterator[ProductionServers]:
    """Make a database with its roles, and a virtual host with its user, as `deploy/` does.

    Args:
        folder: For the password of the broker's user.
    """
    server, broker = postgresql_server(), rabbitmq_server()
    with production_name() as name:
        make_roles(server, name)
        make_broker_user(broker, name, folder=folder)
        yield ProductionServers(
            owner_url=_database_url(server, f"{name}_owner", database=name),
            application_url=_database_url(server, f"{name}_application", database=name),
            broker_url=f"amqp://{name}:{_QUOTED_PASSWORD}@{broker.host}:{broker.port}/{name}",
            vhost=name,
            broker_user=name,
        )


@contextmanager
def production_name() -> Iterator[str]:
    """Give a name for a set-up; what was made under it is removed afterwards.

    A database, a virtual host and a broker's user have the name itself; two roles have `_owner` and
    `_application` behind it.
    """
    server, broker = postgresql_server(), rabbitmq_server()
    name = f"orderkeep_test_{os.getpid()}_{uuid.uuid4().hex[:8]}"
    try:
        yield name
    finally:
        server.drop_database(name)
        for role in ("owner", "application"):
            server.query(f'DROP ROLE IF EXISTS "{name}_{role}"')
        broker.delete_vhost(name)
        if name in broker.ctl("list_users"):
            broker.ctl("delete_user", name)


def names_for_scripts(name: str) -> dict[str, str]:
    """Return what tells the scripts of `deploy/` other names than their own."""
    return {
        "DATABASE": name,
        "OWNER": f"{name}_owner",
        "APPLICATION": f"{name}_application",
        "VHOST": name,
        "BROKER_USER": name,
    }


def reach_of_psql(server: PostgresServer) -> dict[str, str]:
    """Return what lets `psql` in as a superuser; skip the test where there is no `psql`."""
    if shutil.which("psql") is None:
        pytest.skip("psql is missing")
    return {
        "PGHOST": server.host,
        "PGPORT": str(server.port),
        "PGUSER": server.user,
        **({"PGPASSWORD": server._password} if server._password else {}),
    }


def reach_of_rabbitmqctl(broker: RabbitServer) -> dict[str, str]:
    """Return what lets `rabbitmqctl` reach the node; skip the test where nothing does."""
    program = find_program("rabbitmqctl")
    try:
        shell = broker._shell
    except ErlangError as error:
        pytest.skip(f"rabbitmqctl cannot reach the broker: {error}")
    assert program is not None, "there is a node of this machine"
    return {
        **shell.environment,
        "PATH": f"{Path(program).parent}:{os.environ['PATH']}",
        "RABBITMQ_NODENAME": shell.node_name,
    }


def make_roles(server: PostgresServer, name: str) -> None:
    """Run deploy/postgresql/roles.sql."""
    run_to_end(
        [
            "psql",
            "--no-psqlrc",
            "--quiet",
            *("--set", "ON_ERROR_STOP=1"),
            *("--dbname", "postgres"),
            *("--file", str(DEPLOY / "postgresql" / "roles.sql")),
        ],
        environment={
            "PATH": os.environ["PATH"],
            **reach_of_psql(server),
            **names_for_scripts(name),
            "OWNER_PASSWORD": _PASSWORD,
            "APPLICATION_PASSWORD": _PASSWORD,
        },
    )


def make_broker_user(broker: RabbitServer, name: str, *, folder: Path) -> None:
    """Run deploy/rabbitmq/permissions.sh."""
    password_file = folder / "broker_password"
    password_file.write_text(f"{_PASSWORD}\n")
    run_to_end(
        ["sh", str(DEPLOY / "rabbitmq" / "permissions.sh")],
        environment={
            **reach_of_rabbitmqctl(broker),
            **names_for_scripts(name),
            "PASSWORD_FILE": str(password_file),
        },
    )


def _database_url(server: PostgresServer, role: str, *, database: str) -> str:
    return f"postgresql://{role}:{_QUOTED_PASSWORD}@{server.host}:{server.port}/{database}"
