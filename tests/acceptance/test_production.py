"""The rights that `deploy/` grants are enough for everything, and for nothing more."""

import asyncio
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import asyncpg
import pika
import pytest
from pika.exceptions import ChannelClosedByBroker

from orderkeep.contracts.topology import TOPOLOGY
from orderkeep.messaging.rabbitmq.options import RabbitOptions
from orderkeep.messaging.rabbitmq.topology import (
    BindingDeclaration,
    ExchangeDeclaration,
    QueueDeclaration,
    declarations_of,
)
from tests.acceptance.buyer import Buyer
from tests.acceptance.fleet import Fleet
from tests.acceptance.production import (
    DEPLOY,
    ProductionServers,
    names_for_scripts,
    production_name,
    production_servers,
    reach_of_psql,
    reach_of_rabbitmqctl,
)
from tests.acceptance.running import clean_environment, run_command
from tests.acceptance.walks import WALK_S_MAX, blocks_of, walk
from tests.servers.availability import postgresql_server, rabbitmq_server
from tests.servers.own_process import free_port

pytestmark = pytest.mark.slow

PAGE = DEPLOY.parent / "docs" / "how-to" / "run-in-production.md"

# What stands on the page above each block that is run here.
RUN_HERE = "tests/acceptance/test_production.py runs this page from top to bottom, on real servers"


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProductionServers]:
    """Servers with the schema of the owner, and nothing else yet."""
    with production_servers(tmp_path_factory.mktemp("production")) as servers:
        migrated = run_command("migrate", environment=servers.owner_settings)
        assert migrated.returncode == 0, migrated.stderr
        yield servers


def rights() -> dict[str, re.Pattern[str]]:
    """Return what permissions.sh grants, by the name of the right."""
    text = (DEPLOY / "rabbitmq" / "permissions.sh").read_text()
    parts = dict(re.findall(r"^([A-Z]+)=['\"](.*)['\"]$", text, re.MULTILINE))
    ours = parts["OURS"].replace("$QUEUES", parts["QUEUES"])
    return {
        right.lower(): re.compile(
            parts[right]
            .replace("$OURS", ours)
            .replace("$EXCHANGES", parts["EXCHANGES"])
            .replace("\\$", "$")
        )
        for right in ("CONFIGURE", "WRITE", "READ")
    }


def test_orders_are_paid_and_closed_with_these_rights(
    servers: ProductionServers, tmp_path: Path
) -> None:
    settings = {
        **servers.settings,
        "ORDERKEEP_SANDBOX": "on",
        "ORDERKEEP_ORDER_TIMEOUT_S": "8",
        "ORDERKEEP_SWEEP_GRACE_S": "4",
        "ORDERKEEP_SWEEP_INTERVAL_S": "4",
    }
    with Fleet(tmp_path, settings) as fleet:
        shop = fleet.start_serve()
        fleet.start_serve()
        fleet.start_work()
        fleet.start_work()
        shop.put_sku("tea", stock=10)
        with Buyer(shop, "ann") as ann:
            paid, unpaid = (ann.order({"tea": 1})["order_no"] for _ in range(2))
            ann.settle(ann.open_payment(paid)["payment_no"])
            ann.wait_for(paid, "paid")
            ann.wait_for(unpaid, "closed")
        # The sandbox is what the doctor would warn of.
        examined = shop.command("doctor", environment={"ORDERKEEP_SANDBOX": "off"})
        verified = shop.command("verify")
        refusals = [member.log_text().count("ACCESS_REFUSED") for member in fleet.members]

    assert examined.returncode == 0, examined.stdout
    warnings = [line for line in examined.stdout.splitlines() if line.startswith("warning")]
    # A machine for tests may have a server that never vacuums.
    assert [line for line in warnings if "autovacuum" not in line] == []
    assert verified.returncode == 0, verified.stdout
    assert refusals == [0, 0, 0, 0]


@pytest.mark.parametrize(
    "sql",
    [
        "DROP TABLE orders",
        "ALTER TABLE orders ADD COLUMN more text",
        "CREATE TABLE more (id int)",
        "CREATE TEMPORARY TABLE more (id int)",
        "CREATE INDEX ON orders (user_id)",
        "TRUNCATE cart_items",
        "SELECT setval('order_outbox_id_seq', 1)",
        "CREATE ROLE more",
    ],
)
def test_the_application_cannot_change_the_schema(servers: ProductionServers, sql: str) -> None:
    async def run() -> None:
        connection = await asyncpg.connect(servers.application_url)
        try:
            await connection.execute(sql)
        finally:
            await connection.close()

    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        asyncio.run(run())


def test_a_role_that_was_given_nothing_cannot_connect(servers: ProductionServers) -> None:
    rows = postgresql_server().query(
        f"SELECT has_database_privilege('pg_monitor', '{servers.vhost}', 'CONNECT') AS may_connect"
    )

    assert rows == [{"may_connect": False}]


def test_the_brokers_user_makes_nothing_of_its_own(servers: ProductionServers) -> None:
    with pika.BlockingConnection(pika.URLParameters(servers.broker_url)) as connection:
        channel = connection.channel()
        with pytest.raises(ChannelClosedByBroker, match="ACCESS_REFUSED"):
            channel.queue_declare("of.somebody.else", durable=True)


def test_rights_fit_the_topology_and_nothing_else() -> None:
    granted = rights()
    declarations = declarations_of(TOPOLOGY, RabbitOptions())
    names = {
        each.name
        for each in declarations
        if isinstance(each, QueueDeclaration | ExchangeDeclaration)
    }
    bound = {
        name
        for each in declarations
        if isinstance(each, BindingDeclaration)
        for name in (each.queue, each.exchange)
    }

    assert {name for name in names if not granted["configure"].search(name)} == set()
    assert {name for name in names | {"amq.default"} if not granted["write"].search(name)} == set()
    assert {name for name in names | bound if not granted["read"].search(name)} == set()
    for name in ("amq.default", "cart-sync-2", "order-outbox", "my.order.outbox", "cartXsync"):
        assert not granted["configure"].search(name)
        assert not granted["read"].search(name)


def test_secrets_are_drawn_once_and_fit_together(tmp_path: Path) -> None:
    command = ["sh", str(DEPLOY / "make-secrets.sh"), str(tmp_path / "secrets")]

    subprocess.run(command, check=True)
    first = {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}
    subprocess.run(command, check=True)
    second = {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}

    assert first == second
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700
    assert first["application_password"].strip() in first["database_url"]
    assert first["owner_password"].strip() in first["migration_database_url"]
    assert first["broker_url"].count(first["broker_password"].strip()) == 3
    assert len({*first.values()}) == 9


@pytest.mark.timeout(WALK_S_MAX + 60)
@pytest.mark.skipif(
    not (shutil.which("bash") and shutil.which("curl")), reason="bash or curl is missing"
)
def test_the_page_can_be_followed_as_printed(tmp_path: Path) -> None:
    server, broker = postgresql_server(), rabbitmq_server()
    blocks = [
        replace(block, reason=None)
        for block in blocks_of(PAGE.read_text())
        if block.reason == RUN_HERE
    ]
    (tmp_path / ".venv").symlink_to(Path(sys.executable).parents[1])
    for name in ("deploy", "examples"):
        (tmp_path / name).symlink_to(DEPLOY.parent / name)

    with production_name() as name:
        walked = walk(
            blocks,
            folder=tmp_path,
            environment={
                **clean_environment(),
                **reach_of_psql(server),
                **reach_of_rabbitmqctl(broker),
                **names_for_scripts(name),
                "DATABASE_HOST": f"{server.host}:{server.port}",
                "BROKER_HOSTS": f"{broker.host}:{broker.port}",
                "ORDERKEEP_HTTP_PORT": str(free_port()),
                "ORDERKEEP_WORK_HTTP_PORT": str(free_port()),
                "NO_PROXY": "127.0.0.1",
                "no_proxy": "127.0.0.1",
            },
        )

    assert walked.exit_code == 0, walked.last
    assert len(blocks) == len(walked.outputs) >= 6
    printed = "\n".join(walked.outputs.values())
    assert "The database has been brought to the current schema." in printed
    warnings = [line for line in printed.splitlines() if line.startswith("warning")]
    # A machine for tests may have a server that never vacuums.
    assert [line for line in warnings if "autovacuum" not in line] == []
    assert re.search(r"^\d+ ok(, 1 warning)?$", printed, re.MULTILINE), printed
    assert printed.count('{"status":"ok","checks":') == 2, printed
    assert '"items":[{"sku_id":' in printed
