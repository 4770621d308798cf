"""Which servers the tests of this process may use, decided once.

    server = postgresql_server()
    with fresh_database(server, create_tables) as url:
        connect(url)

A server that is missing skips the test that asks for it, and is told at the end of the run. Where
`CI=true`, it fails the test: there, a suite that is silently not run is worth nothing.
"""

import atexit
import itertools
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import NoReturn

import asyncpg
import psutil  # type: ignore[import-untyped]  # it brings no types
import pytest

from tests.servers.installation import ServerMissingError
from tests.servers.postgresql import PostgresServer, ensure_postgresql
from tests.servers.rabbitmq import RabbitServer, ensure_rabbitmq

# Makes what a database is to hold, given its URL, and leaves no connection open.
Fill = Callable[[str], None]

# The process id tells later runs whether somebody still needs it.
_OUR_NAME = re.compile(r"orderkeep_(?:test|template)_(\d+)_\d+")

_numbers = itertools.count(1)

# Why each server is missing, and the suites that asked for it.
_reasons: dict[str, str] = {}
_skipped_suites: defaultdict[str, set[str]] = defaultdict(set)


def postgresql_server() -> PostgresServer:
    """Return the PostgreSQL of this test run, or skip the test."""
    server = _postgresql()
    return _skip("PostgreSQL", because=server) if isinstance(server, str) else server


def rabbitmq_server() -> RabbitServer:
    """Return the RabbitMQ of this test run, or skip the test."""
    server = _rabbitmq()
    return _skip("RabbitMQ", because=server) if isinstance(server, str) else server


def missing_servers() -> list[str]:
    """Return one line for each server that was asked for and missing: why, and what was skipped."""
    return [
        f"{server} is missing ({reason}); skipped for it: "
        + ", ".join(sorted(_skipped_suites[server]))
        for server, reason in _reasons.items()
    ]


@contextmanager
def new_database(server: PostgresServer) -> Iterator[str]:
    """Give an empty database of its own, by URL, and drop it afterwards."""
    name = _new_name("test")
    server.create_database(name)
    try:
        yield server.url(name)
    finally:
        server.drop_database(name)


@contextmanager
def fresh_database(server: PostgresServer, fill: Fill) -> Iterator[str]:
    """Give a filled database of its own, by URL, and drop it afterwards.

    Args:
        server: Where it is made.
        fill: Called once in this process; the databases are copies of what it made. Give the same
            function each time.
    """
    template = _template(server, fill)
    name = _new_name("test")
    server.create_database(name, template)
    try:
        yield server.url(name)
    finally:
        server.drop_database(name)


@contextmanager
def fresh_vhost(server: RabbitServer) -> Iterator[str]:
    """Give a virtual host of its own, by URL, and delete it afterwards with all that it holds."""
    name = _new_name("test")
    server.create_vhost(name)
    try:
        yield server.url(name)
    finally:
        server.delete_vhost(name)


@cache
def _postgresql() -> PostgresServer | str:
    try:
        server = ensure_postgresql()
    except ServerMissingError as error:
        return str(error)
    for name in _abandoned(server.database_names()):
        try:
            server.query(f'DROP DATABASE IF EXISTS "{name}"')
        except asyncpg.PostgresError:
            continue  # somebody is connected to it, so it is not abandoned
    return server


@cache
def _rabbitmq() -> RabbitServer | str:
    try:
        server = ensure_rabbitmq()
    except ServerMissingError as error:
        return str(error)
    for name in _abandoned(server.vhost_names()):
        server.delete_vhost(name)
    return server


@cache
def _template(server: PostgresServer, fill: Fill) -> str:
    name = _new_name("template")
    server.create_database(name)
    # A server of our own may be gone by then, and the database with it.
    atexit.register(_drop_template, server, name, owner_pid=os.getpid())
    fill(server.url(name))
    return name


def _drop_template(server: PostgresServer, name: str, *, owner_pid: int) -> None:
    if os.getpid() == owner_pid and server.is_ready():
        server.drop_database(name)


def _skip(server: str, *, because: str) -> NoReturn:
    _reasons[server] = because
    suite = os.environ.get("PYTEST_CURRENT_TEST", "").partition("::")[0]
    _skipped_suites[server].add(suite or "what is no test")
    message = f"{server} is missing: {because}"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


def _new_name(kind: str) -> str:
    return f"orderkeep_{kind}_{os.getpid()}_{next(_numbers)}"


def _abandoned(names: Iterable[str]) -> list[str]:
    """Return the names that a process gave which ended without tidying up."""
    return [
        name
        for name in names
        if (match := _OUR_NAME.fullmatch(name)) and not psutil.pid_exists(int(match.group(1)))
    ]
