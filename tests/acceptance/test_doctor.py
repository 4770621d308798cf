"""`orderkeep doctor` on real servers: what it says, and that it leaves everything as it was."""

import json
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pika
import pytest

from tests.acceptance.production import ProductionServers, production_servers
from tests.acceptance.running import run_command, start_shop
from tests.integration.database.pooler import running_pooler
from tests.servers.availability import postgresql_server, rabbitmq_server
from tests.servers.installation import ServerMissingError
from tests.servers.own_process import free_port
from tests.servers.postgresql import PrivatePostgresServer, start_private_postgresql

pytestmark = pytest.mark.slow

Json = dict[str, Any]

# A machine for tests may have a server that never vacuums.
UPKEEP = "database.autovacuum"

# What a command could leave behind at a broker.
MADE = (("list_queues", "name"), ("list_exchanges",), ("list_bindings",), ("list_consumers",))


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProductionServers]:
    """A production set-up that is sound, and in which nothing runs."""
    with production_servers(tmp_path_factory.mktemp("production")) as servers:
        migrated = run_command("migrate", environment=servers.owner_settings)
        assert migrated.returncode == 0, migrated.stderr
        yield servers


def examined(environment: Mapping[str, str]) -> tuple[int, list[Json]]:
    """Return the exit code, and every examination."""
    done = run_command("doctor", "--json", environment=environment)
    assert done.stdout, done.stderr
    document = json.loads(done.stdout)
    assert document["is_well"] is (done.returncode == 0)
    return done.returncode, document["examinations"]


def verdicts(examinations: list[Json]) -> set[tuple[str, str]]:
    """Return the names and verdicts of what is not all right, of ours and not of the machine's."""
    return {
        (each["name"], each["verdict"])
        for each in examinations
        if each["verdict"] != "ok" and each["name"] != UPKEEP
    }


def one(examinations: list[Json], name: str) -> Json:
    """Return the one examination of the name that is not all right."""
    (found,) = (each for each in examinations if each["name"] == name and each["verdict"] != "ok")
    return found


def test_a_machine_on_which_nothing_has_run_is_well_and_stays_empty(tmp_path: Path) -> None:
    done = run_command("doctor", environment={}, cwd=tmp_path)

    assert done.returncode == 0, done.stdout
    assert "there is no database at orderkeep-data/orderkeep.db yet" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_running_shop_is_well(tmp_path: Path) -> None:
    with start_shop(tmp_path) as shop:
        exit_code, examinations = examined(shop.environment)

    assert exit_code == 0
    assert verdicts(examinations) == set()
    assert {
        "database.journal_mode",
        "database.reachable",
        "database.schema",
        "database.synchronous",
        "database.version",
        "messages.dead_letters",
        "messages.outbox",
    } <= {each["name"] for each in examinations}


def test_a_file_that_is_no_database_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "orderkeep.db").write_text("not a database, but a text of some length" * 100)

    exit_code, examinations = examined({"ORDERKEEP_DATA_DIR": str(tmp_path)})

    assert exit_code == 1
    assert verdicts(examinations) == {("database.reachable", "wrong")}


def test_a_file_that_nobody_has_run_on_is_left_as_it_is(tmp_path: Path) -> None:
    environment = {"ORDERKEEP_DATA_DIR": str(tmp_path)}
    assert run_command("migrate", environment=environment).returncode == 0

    exit_code, examinations = examined(environment)

    connection = sqlite3.connect(tmp_path / "orderkeep.db")
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    connection.close()
    assert exit_code == 0
    assert verdicts(examinations) == {("database.journal_mode", "skipped")}


def test_wrong_settings_are_told_as_everywhere() -> None:
    done = run_command("doctor", environment={"ORDERKEEP_HTTP_PORT": "many"})

    assert done.returncode == 2
    assert "ORDERKEEP_HTTP_PORT" in done.stderr


def test_a_sound_set_up_is_well(servers: ProductionServers) -> None:
    exit_code, examinations = examined(servers.settings)

    assert exit_code == 0
    assert verdicts(examinations) == set()
    assert {
        "broker.delay",
        "broker.exchanges",
        "broker.queues",
        "broker.reachable",
        "broker.rights",
        "broker.version",
        "database.clock",
        "database.connections",
        "database.direct",
        UPKEEP,
        "database.fsync",
        "database.full_page_writes",
        "database.reachable",
        "database.rights",
        "database.schema",
        "database.synchronous_commit",
        "database.version",
        "messages.dead_letters",
        "messages.outbox",
        "settings",
    } == {each["name"] for each in examinations}


def test_the_doctor_makes_nothing_at_the_broker(servers: ProductionServers) -> None:
    broker = rabbitmq_server()
    before = [broker.ctl(*command, "--vhost", servers.vhost) for command in MADE]

    examined(servers.settings)

    assert [broker.ctl(*command, "--vhost", servers.vhost) for command in MADE] == before


def test_a_person_is_told_what_to_do(servers: ProductionServers) -> None:
    done = run_command("doctor", environment={**servers.settings, "ORDERKEEP_SANDBOX": "on"})

    assert done.returncode == 0
    lines = done.stdout.splitlines()
    warnings = [at for at, line in enumerate(lines) if line.startswith("warning")]
    (index,) = (at for at in warnings if UPKEEP not in lines[at])
    assert lines[index].startswith("warning  settings.sandbox: the sandbox payment channel is on")
    assert lines[index + 1].startswith("         to do: unset ORDERKEEP_SANDBOX")
    assert lines[-1].endswith(f" ok, {len(warnings)} warning")


def test_a_database_without_a_schema_is_wrong(servers: ProductionServers) -> None:
    server = postgresql_server()
    name = f"{servers.vhost}_empty"
    server.create_database(name)
    try:
        exit_code, examinations = examined(
            {**servers.settings, "ORDERKEEP_DATABASE_URL": server.url(name)}
        )
    finally:
        server.drop_database(name)

    assert exit_code == 1
    assert ("database.schema", "wrong") in verdicts(examinations)
    assert "orderkeep migrate" in one(examinations, "database.schema")["remedy"]


def test_a_role_without_rights_is_wrong(servers: ProductionServers) -> None:
    server = postgresql_server()
    role = f'"{servers.vhost}_application"'
    server.query(f"REVOKE INSERT ON orders FROM {role}", database=servers.vhost)
    try:
        exit_code, examinations = examined(servers.settings)
    finally:
        server.query(f"GRANT INSERT ON orders TO {role}", database=servers.vhost)

    assert exit_code == 1
    assert verdicts(examinations) == {("database.rights", "wrong")}
    assert "INSERT on orders" in one(examinations, "database.rights")["found"]


def test_a_role_that_owns_the_tables_is_a_warning(servers: ProductionServers) -> None:
    exit_code, examinations = examined({**servers.settings, **servers.owner_settings})

    assert exit_code == 0
    assert verdicts(examinations) == {("database.role", "warning")}


def test_servers_that_are_away_are_wrong_and_no_password_is_told(tmp_path: Path) -> None:
    password = "correct-horse-battery"
    done = run_command(
        "doctor",
        environment={
            "ORDERKEEP_DATABASE_URL": f"postgresql://shop:{password}@127.0.0.1:{free_port()}/shop",
            "ORDERKEEP_BROKER_URL": f"amqp://shop:{password}@127.0.0.1:{free_port()}/shop",
        },
        cwd=tmp_path,
    )

    assert done.returncode == 1
    assert "WRONG    database.reachable: postgresql://shop:***@127.0.0.1:" in done.stdout
    assert "WRONG    broker.reachable amqp://127.0.0.1:" in done.stdout
    assert password not in done.stdout + done.stderr


def test_a_wrong_password_is_not_told_either(servers: ProductionServers) -> None:
    parts = urlsplit(servers.broker_url)
    url = f"amqp://{parts.username}:correct-horse-battery@{parts.hostname}:{parts.port}{parts.path}"

    done = run_command("doctor", environment={**servers.settings, "ORDERKEEP_BROKER_URL": url})

    assert done.returncode == 1
    assert "WRONG    broker.reachable" in done.stdout
    assert "correct-horse-battery" not in done.stdout + done.stderr


def test_one_address_of_the_broker_may_be_away(servers: ProductionServers) -> None:
    away = f"amqp://shop:pw@127.0.0.1:{free_port()}/shop"

    exit_code, examinations = examined(
        {**servers.settings, "ORDERKEEP_BROKER_URL": f"{away},{servers.broker_url}"}
    )

    assert exit_code == 0
    assert verdicts(examinations) == {("broker.reachable", "warning")}


def test_a_pooler_that_shares_connections_out_is_wrong(
    servers: ProductionServers, tmp_path: Path
) -> None:
    direct_url = servers.application_url
    with running_pooler(tmp_path, direct_url, mode="transaction", pool_size=3) as url:
        settings = {**servers.settings, "ORDERKEEP_DATABASE_URL": url}
        exit_code, examinations = examined(settings)
        past_it = {**settings, "ORDERKEEP_DATABASE_DIRECT_URL": direct_url}
        exit_code_past_it, examinations_past_it = examined(past_it)

    assert exit_code == 1
    assert verdicts(examinations) == {("database.direct", "wrong"), ("database", "skipped")}
    assert "ORDERKEEP_DATABASE_DIRECT_URL" in one(examinations, "database.direct")["remedy"]
    assert exit_code_past_it == 0
    assert verdicts(examinations_past_it) == set()


def test_an_event_that_waits_too_long_is_a_warning(servers: ProductionServers) -> None:
    server = postgresql_server()
    server.query(
        "INSERT INTO cart_outbox (message_id, partition, aggregate_id, sequence, type, route, body,"
        " headers, state, ordered, not_before, attempts, created_at) VALUES"
        " ('m', 0, 'a', 1, 't', 'cart-sync', '{}', '{}', 'pending', true, 1, 0, 1)",
        database=servers.vhost,
    )
    try:
        exit_code, examinations = examined(servers.settings)
    finally:
        server.query("DELETE FROM cart_outbox", database=servers.vhost)

    assert exit_code == 0
    assert verdicts(examinations) == {("messages.outbox", "warning")}
    assert one(examinations, "messages.outbox")["subject"] == "cart"


@pytest.fixture(scope="module")
def careless_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivatePostgresServer]:
    """A server that does not wait for its disk, and has few connections."""
    try:
        server = start_private_postgresql(
            tmp_path_factory.mktemp("postgresql"),
            settings={
                "fsync": "off",
                "full_page_writes": "off",
                "synchronous_commit": "off",
                "autovacuum": "off",
                "max_connections": "20",
            },
        )
    except ServerMissingError as error:
        pytest.skip(f"none can be started: {error}")
    yield server
    server.kill()


def test_a_server_that_does_not_wait_for_its_disk_is_wrong(
    careless_server: PrivatePostgresServer,
) -> None:
    exit_code, examinations = examined(
        {"ORDERKEEP_DATABASE_URL": careless_server.url("postgres"), "ORDERKEEP_SANDBOX": "off"}
    )

    assert exit_code == 1
    assert {
        ("database.fsync", "wrong"),
        ("database.full_page_writes", "wrong"),
        ("database.synchronous_commit", "wrong"),
        ("database.connections", "warning"),
        ("database.schema", "wrong"),
    } <= verdicts(examinations)
    assert one(examinations, UPKEEP)["verdict"] == "warning"


def test_drift_at_the_broker_is_told(servers: ProductionServers) -> None:
    broker = rabbitmq_server()
    vhost = f"{servers.vhost}_drift"
    broker.create_vhost(vhost)
    try:
        with pika.BlockingConnection(pika.URLParameters(broker.url(vhost))) as connection:
            channel = connection.channel()
            channel.queue_declare("cart-sync", durable=True)
            channel.exchange_declare("order.events", "fanout", durable=True)
            channel.basic_publish("", "cart-sync", b"{}")
        exit_code, examinations = examined(
            {**servers.settings, "ORDERKEEP_BROKER_URL": broker.url(vhost)}
        )
        made = broker.ctl("list_queues", "--vhost", vhost, "name")
    finally:
        broker.delete_vhost(vhost)

    assert exit_code == 1
    assert verdicts(examinations) == {
        ("broker.queue", "warning"),
        ("broker.unread_queue", "warning"),
        ("broker.exchange", "wrong"),
    }
    assert one(examinations, "broker.queue")["subject"] == "cart-sync"
    assert made.split() == ["name", "cart-sync"]
