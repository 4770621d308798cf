"""The PostgreSQL that tests use: a private one survives a power cut, and databases are copies."""

import time
from pathlib import Path

import asyncpg
import pytest

from tests.servers.availability import fresh_database, new_database, postgresql_server
from tests.servers.own_process import free_port
from tests.servers.postgresql import (
    PostgresServer,
    PrivatePostgresServer,
    find_postgresql,
    start_private_postgresql,
)

pytestmark = pytest.mark.slow


@pytest.fixture
def private(tmp_path: Path):
    server = start_private_postgresql(tmp_path)
    yield server
    server.kill()


def test_what_was_committed_survives_a_power_cut(private: PrivatePostgresServer):
    private.query("CREATE TABLE kept (number int)")
    private.query("INSERT INTO kept VALUES (7)")

    private.kill()
    was_ready = private.is_ready()
    private.start()

    assert not was_ready
    assert private.query("SELECT number FROM kept") == [{"number": 7}]
    assert "database system was not properly shut down" in private.log_text()


def test_a_private_server_writes_through_to_the_disk_and_takes_many_clients(
    private: PrivatePostgresServer,
):
    rows = private.query("SELECT name, setting FROM pg_settings WHERE name ~ '^(fsync|max_conn)'")

    assert {row["name"]: row["setting"] for row in rows} == {
        "fsync": "on",
        "max_connections": "200",
    }


def test_a_stopped_server_starts_again_where_it_was(private: PrivatePostgresServer):
    url = private.url("postgres")

    private.restart()

    assert private.url("postgres") == url
    assert private.is_ready()


def test_settings_may_be_given(tmp_path: Path):
    port = free_port()

    server = start_private_postgresql(tmp_path, port=port, settings={"fsync": "off"})

    assert server.port == port
    assert server.query("SHOW fsync") == [{"fsync": "off"}]
    server.stop()


def test_a_fresh_database_is_a_copy_of_the_template_and_gone_afterwards():
    server = postgresql_server()
    filled: list[str] = []

    def fill(url: str) -> None:
        filled.append(url)
        server.query("CREATE TABLE tea (number int)", database=_name_in(url))

    with fresh_database(server, fill) as first, fresh_database(server, fill) as second:
        server.query("INSERT INTO tea VALUES (1)", database=_name_in(first))
        in_first = server.query("SELECT count(*) FROM tea", database=_name_in(first))
        in_second = server.query("SELECT count(*) FROM tea", database=_name_in(second))

    assert (in_first, in_second) == ([{"count": 1}], [{"count": 0}])
    assert len(filled) == 1
    assert not {_name_in(first), _name_in(second)} & set(server.database_names())


async def test_a_new_database_goes_although_somebody_is_connected():
    server = postgresql_server()

    with new_database(server) as url:
        connection = await asyncpg.connect(url)

    assert _name_in(url) not in server.database_names()
    connection.terminate()


def test_a_server_that_is_not_there_is_not_found(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ORDERKEEP_TEST_POSTGRESQL_URL", f"postgresql://ann@127.0.0.1:{free_port()}")
    started_s = time.monotonic()

    found = find_postgresql()

    assert found is None
    assert time.monotonic() - started_s < 10


def test_an_url_names_user_password_and_database():
    server = PostgresServer(host="db", port=5433, user="ann", password="p@ss/word")

    assert server.url("shop") == "postgresql://ann:p%40ss%2Fword@db:5433/shop"


def _name_in(url: str) -> str:
    return url.rpartition("/")[2]
