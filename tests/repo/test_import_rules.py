"""Each import contract of `pyproject.toml` is kept, and catches a planted violation.

Every violation is planted in a copy of the whole package, so a contract that names a module which
was moved away, or lets everything through, is found out here.
"""

import re
import tomllib
from pathlib import Path

import pytest

from tests.repo.checkout import ROOT, Checkout, copy_of_sources

# The contract, the file that gets the import, the import, and what the linter must point at.
PLANTED = [
    ("layers", "contracts/amount.py", "orderkeep.orders.tables", "contracts"),
    ("layers", "database/schema.py", "orderkeep.messaging.tables", "database"),
    ("layers", "messaging/message.py", "orderkeep.contracts.amount", "messaging"),
    ("layers", "instant.py", "orderkeep.database.schema", "instant"),
    ("layers", "orders/tables.py", "orderkeep.web", "orders"),
    ("layers", "orders/tables.py", "orderkeep.demo.tally", "orders"),
    ("services", "orders/tables.py", "orderkeep.payments.tables", "orders"),
    ("services", "carts/tables.py", "orderkeep.orders.order", "carts"),
    ("services", "payments/tables.py", "orderkeep.carts.tables", "payments"),
    ("pure", "orders/order.py", "sqlalchemy", "orders.order"),
    ("pure", "orders/stock.py", "orderkeep.database.schema", "orders.stock"),
    ("pure", "orders/payment.py", "time", "orders.payment"),
    ("pure", "orders/order_number.py", "random", "orders.order_number"),
    ("pure", "orders/order_number.py", "orderkeep.orders.tables", "orders.order_number"),
    ("pure", "payments/payment.py", "asyncio", "payments.payment"),
    ("pure", "messaging/retry_schedule.py", "secrets", "messaging.retry_schedule"),
    ("pure", "demo/shopper.py", "httpx", "demo.shopper"),
    ("implementations", "orders/desk.py", "orderkeep.database.sqlite", "orders.desk"),
    ("implementations", "cli/planted.py", "orderkeep.messaging.database_queue", "cli.planted"),
    ("implementations", "cli/planted.py", "orderkeep.messaging.rabbitmq.line", "cli.planted"),
    ("settings", "orders/desk.py", "orderkeep.settings", "orders.desk"),
    ("settings", "database/sqlite.py", "orderkeep.settings", "database.sqlite"),
    ("settings", "payments/tables.py", "orderkeep.settings_values", "payments.tables"),
    ("settings", "contracts/topology.py", "orderkeep.settings", "contracts.topology"),
    ("publishing", "orders/close_orders.py", "orderkeep.messaging.broker", "orders.close_orders"),
    ("publishing", "web/planted.py", "orderkeep.messaging.dispatcher", "web.planted"),
    ("publishing", "cli/planted.py", "orderkeep.messaging.broker", "cli.planted"),
    ("publishing", "contracts/cart_sync.py", "orderkeep.messaging.broker", "contracts.cart_sync"),
    ("publishing", "web/planted.py", "orderkeep.messaging.rabbitmq.confirms", "web.planted"),
    ("front-door", "orders/desk.py", "orderkeep.messaging", "orders.desk"),
    ("sql", "orders/close_orders.py", "sqlalchemy", "orders.close_orders"),
    ("sql", "carts/routes.py", "sqlalchemy.dialects.postgresql", "carts.routes"),
    ("sql", "web/planted.py", "sqlite3", "web.planted"),
    ("sql", "messaging/inbox.py", "sqlite3", "messaging.inbox"),
    ("sql", "wiring/planted.py", "alembic", "wiring.planted"),
    ("amqp", "messaging/delivery.py", "pika", "messaging.delivery"),
    ("amqp", "cli/planted.py", "pika.exceptions", "cli.planted"),
    ("http", "orders/close_orders.py", "litestar.exceptions", "orders.close_orders"),
    ("http", "messaging/inbox.py", "uvicorn", "messaging.inbox"),
    ("demo", "demo/run.py", "orderkeep.contracts.amount", "demo.run"),
    ("demo", "demo/run.py", "orderkeep.wiring", "demo.run"),
    ("demo", "demo/planted.py", "orderkeep.settings", "demo.planted"),
]


@pytest.fixture
def sources(tmp_path: Path) -> Checkout:
    return copy_of_sources(tmp_path)


def contract_ids() -> set[str]:
    rules = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return {contract["id"] for contract in rules["tool"]["importlinter"]["contracts"]}


def test_the_repository_keeps_every_contract() -> None:
    finished = Checkout(root=ROOT).run("lint-imports", "--no-logo", "--no-cache")

    assert finished.exit_code == 0, finished.output


@pytest.mark.parametrize(("contract", "name", "imported", "importer"), PLANTED)
def test_a_planted_import_is_caught(
    sources: Checkout, contract: str, name: str, imported: str, importer: str
) -> None:
    sources.plant(name, f"\nimport {imported}\n")

    finished = sources.run("lint-imports", "--no-logo", "--no-cache", "--contract", contract)

    # The names as the linter writes them: all of a library counts as one module.
    library = imported if imported.startswith("orderkeep.") else imported.partition(".")[0]
    arrow = rf"orderkeep\.{re.escape(importer)}[\w.]* -> {re.escape(library)} \(l\.[\d, l.]+\)"
    assert finished.exit_code == 1
    assert re.search(arrow, finished.output), finished.output


def test_a_module_without_a_place_in_the_layers_is_caught(sources: Checkout) -> None:
    sources.plant("planted.py", '"""Planted."""\n')

    finished = sources.run("lint-imports", "--no-logo", "--no-cache", "--contract", "layers")

    assert finished.exit_code == 1
    assert "orderkeep.planted" in finished.output


def test_every_contract_is_proven_to_bite() -> None:
    assert {contract for contract, *_ in PLANTED} == contract_ids()


def test_every_implementation_that_exists_is_protected() -> None:
    rules = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contracts = {each["id"]: each for each in rules["tool"]["importlinter"]["contracts"]}
    names = (
        "messaging/database_queue",
        "messaging/rabbitmq",
        "database/sqlite",
        "database/postgresql",
        "database/postgresql_wake_ups",
    )

    existing = {
        f"orderkeep.{name.replace('/', '.')}"
        for name in names
        if (ROOT / "src" / "orderkeep" / f"{name}.py").exists()
        or (ROOT / "src" / "orderkeep" / name).exists()
    }

    assert set(contracts["implementations"]["protected_modules"]) == existing
