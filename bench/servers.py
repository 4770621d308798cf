"""The real servers that benchmarks use: found or started once, with databases of one's own.

A server that answers on its usual port is used as it is; else a private one is started from the
installed programs, and ends with this process. Nothing is installed: where a server is missing, the
programs that need it are skipped. Databases and virtual hosts have names of their own, and go when
they are no longer used; what a killed run left behind goes at the beginning of the next.

A number that was measured without `fsync` says nothing: such a server is refused. One that never
vacuums is no server that anybody sells on: a private one takes its place.
"""

import atexit
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import psutil

from bench.figures import SkippedError, say
from tests.servers.installation import ServerMissingError
from tests.servers.postgresql import PostgresServer, find_postgresql, start_private_postgresql
from tests.servers.rabbitmq import RabbitServer, find_rabbitmq, start_private_rabbitmq

# The process id tells later runs whether somebody still needs it.
_OUR_NAME = re.compile(r"orderkeep_bench_(\d+)_\d+")

_numbers = count(1)

# A commit that these do not cover is lost at a power cut; what it costs is part of the answer.
_DURABLE = ("fsync", "synchronous_commit", "full_page_writes")


@cache
def postgresql_server() -> PostgresServer:
    """Return the PostgreSQL to measure on.

    Raises:
        SkippedError: there is none.
    """
    try:
        server = _find_postgresql_in_use() or start_private_postgresql(_folder())
    except ServerMissingError as error:
        message = f"PostgreSQL is missing: {error}"
        raise SkippedError(message) from error
    for name in _abandoned(server.database_names()):
        server.drop_database(name)
    return server


@cache
def rabbitmq_server() -> RabbitServer:
    """Return the RabbitMQ to measure on.

    Raises:
        SkippedError: there is none.
    """
    try:
        server = find_rabbitmq() or start_private_rabbitmq(_folder())
    except ServerMissingError as error:
        message = f"RabbitMQ is missing: {error}"
        raise SkippedError(message) from error
    for name in _abandoned(server.vhost_names()):
        server.delete_vhost(name)
    return server


@contextmanager
def own_database(server: PostgresServer, *, template: str | None = None) -> Iterator[str]:
    """Give a database by name, empty or as a copy of another, and drop it afterwards.

    Raises:
        SkippedError: it would lose commits at a power cut.
    """
    name = _new_name()
    server.create_database(name, template)
    try:
        _refuse_not_durable(server, name)
        yield name
    finally:
        server.drop_database(name)


@contextmanager
def own_vhost(server: RabbitServer) -> Iterator[str]:
    """Give a virtual host by URL, and delete it afterwards with all that it holds."""
    name = _new_name()
    server.create_vhost(name)
    try:
        yield server.url(name)
    finally:
        server.delete_vhost(name)


def count_of(server: PostgresServer, name: str, sql: str) -> Any:  # noqa: ANN401 (as SQL has it)
    """Return the one value that the statement yields in the database."""
    (row,) = server.query(sql, database=name)
    (value,) = row.values()
    return value


def tidy_up(server: PostgresServer, name: str) -> None:
    """Let the planner know the tables that hold rows, as it does some minutes after they came.

    Not those that are empty: a table that is known to be empty is read as a whole, by plans that
    live on when it has grown. Nobody's table is new and vacuumed.
    """
    filled = server.query(
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND pg_relation_size(oid) > 0"
        " AND relnamespace = 'public'::regnamespace",
        database=name,
    )
    names = ", ".join(row["relname"] for row in filled)
    server.query(f"VACUUM (ANALYZE) {names}", database=name)


def versions() -> dict[str, str]:
    """Return what the servers are, and that they keep what they have confirmed."""
    version = count_of(postgresql_server(), "postgres", "SHOW server_version")
    return {
        "postgresql": f"{version.split()[0]},"
        f" {', '.join(f'{name}=on' for name in (*_DURABLE, 'autovacuum'))}",
        "rabbitmq": f"{rabbitmq_server().version}, quorum queues, confirms",
    }


def _find_postgresql_in_use() -> PostgresServer | None:
    """Return the server that answers, if it is kept as one is kept for a shop."""
    server = find_postgresql()
    if server is None or count_of(server, "postgres", "SHOW autovacuum") == "on":
        return server
    # Its tables would never be counted or cleaned: each plan stays that of an empty table.
    say("  the PostgreSQL that answers has autovacuum=off: one of our own is started")
    return None


def _refuse_not_durable(server: PostgresServer, name: str) -> None:
    for setting in _DURABLE:
        value = count_of(server, name, f"SHOW {setting}")
        if value != "on":
            message = f"PostgreSQL has {setting}={value}: it may lose what it has confirmed"
            raise SkippedError(message)


def _new_name() -> str:
    return f"orderkeep_bench_{os.getpid()}_{next(_numbers)}"


def _abandoned(names: Iterable[str]) -> list[str]:
    return [
        name
        for name in names
        if (match := _OUR_NAME.fullmatch(name)) and not psutil.pid_exists(int(match.group(1)))
    ]


def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="orderkeep-bench-server-"))
    # Servers that are made later are ended earlier.
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
