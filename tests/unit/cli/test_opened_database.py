"""A database that is missing, older, newer or none at all: one line, exit 2, nothing touched."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.unit.cli.conftest import Invoke

# One command of each group; `skus import` is the one that may make the database.
COMMANDS = [
    "status",
    "verify",
    "orders list",
    "orders cancel 0100000000000009",
    "outbox list",
    "outbox retry --all",
    "dead-letters list",
    "dead-letters discard --all --yes",
]


@pytest.fixture
def database_path(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data" / "orderkeep.db"


@pytest.mark.parametrize("command", COMMANDS)
def test_without_a_database_a_command_says_so_and_makes_none(
    invoke: Invoke, tmp_path: Path, command: str
) -> None:
    result = invoke(*command.split())

    assert (result.exit_code, result.stdout) == (2, "")
    assert "there is no database at" in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("command", [*COMMANDS, "migrate", "skus import {file}"])
def test_a_database_from_a_newer_release_is_left_alone(
    invoke: Invoke, database_path: Path, tmp_path: Path, command: str
) -> None:
    file = tmp_path / "skus.csv"
    file.write_text("sku_id,title,price,currency\ntea,Tea,1.00,CNY\n")
    invoke("migrate")
    with closing(sqlite3.connect(database_path)) as connection, connection:
        connection.execute("update alembic_version set version_num = '9999'")

    result = invoke(*command.format(file=file).split())

    assert (result.exit_code, result.stdout) == (2, "")
    assert "install" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("command", [*COMMANDS, "skus import {file}"])
def test_a_database_without_a_schema_waits_for_its_migration(
    invoke: Invoke, database_path: Path, tmp_path: Path, command: str
) -> None:
    file = tmp_path / "skus.csv"
    file.write_text("sku_id,title,price,currency\ntea,Tea,1.00,CNY\n")
    database_path.touch()

    result = invoke(*command.format(file=file).split())

    assert (result.exit_code, result.stdout) == (2, "")
    assert "orderkeep migrate" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_migration_brings_the_schema_and_says_whether_it_had_to(
    invoke: Invoke, tmp_path: Path
) -> None:
    first = invoke("migrate", "--json")
    second = invoke("migrate", "--json")
    told = invoke("migrate")
    status = invoke("status", "--json")

    assert json.loads(first.stdout) == {"is_changed": True}
    assert json.loads(second.stdout) == {"is_changed": False}
    assert told.stdout == "The database has the current schema already.\n"
    assert json.loads(status.stdout)["orders"] == {}
    assert (tmp_path / "data" / "orderkeep.db").exists()


@pytest.mark.parametrize("command", ["status", "migrate"])
def test_a_file_that_is_no_database_is_refused(
    invoke: Invoke, database_path: Path, command: str
) -> None:
    database_path.write_text("not a database at all\n" * 100)

    result = invoke(command)

    assert (result.exit_code, result.stdout) == (2, "")
    assert "not a database" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("command", ["migrate", "token --user ann"])
def test_a_data_directory_that_cannot_be_made_is_refused(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: str
) -> None:
    (tmp_path / "file").write_text("")  # nobody, not even root, makes a directory under a file
    monkeypatch.setenv("ORDERKEEP_DATA_DIR", str(tmp_path / "file" / "data"))

    result = invoke(*command.split())

    assert (result.exit_code, result.stdout) == (2, "")
    assert "cannot be written" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("command", [*COMMANDS, "migrate"])
def test_a_database_server_that_is_away_is_one_clear_line(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    # The discard port: nobody listens there.
    monkeypatch.setenv("ORDERKEEP_DATABASE_URL", "postgresql://shop:sesame@127.0.0.1:9/orders")

    result = invoke(*command.split())

    assert (result.exit_code, result.stdout) == (2, "")
    assert "cannot connect to PostgreSQL" in result.stderr
    assert "sesame" not in result.stderr
    assert result.stderr.count("\n") == 1


def test_an_empty_shop_is_clean_and_every_list_is_empty(invoke: Invoke) -> None:
    invoke("migrate")

    verified = invoke("verify", "--quiesced")
    lists = [invoke(group, "list", "--json") for group in ("orders", "outbox", "dead-letters")]
    told = invoke("orders", "list")

    assert (verified.exit_code, verified.stdout) == (0, "Every guarantee holds.\n")
    assert [json.loads(each.stdout) for each in lists] == [{"items": [], "next_cursor": None}] * 3
    assert (told.exit_code, told.stdout, told.stderr) == (0, "", "There are none.\n")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("orders show 0100000000000009", "There is no order 0100000000000009"),
        ("orders timeline 0100000000000009", "There is no order 0100000000000009"),
        ("orders cancel 0100000000000009", "There is no order 0100000000000009"),
        ("dead-letters show order-7", "there is no dead letter order-7"),
        ("dead-letters show nonsense", "there is no dead letter nonsense"),
    ],
)
def test_what_does_not_exist_exits_with_1(invoke: Invoke, command: str, said: str) -> None:
    invoke("migrate")

    result = invoke(*command.split())

    assert (result.exit_code, result.stdout) == (1, "")
    assert said in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "command",
    [
        "orders list --cursor nonsense",
        "orders list --from yesterday",
        "orders list --limit 101",
        "orders list --limit 0",
        "outbox list --state lost",
        "outbox list --service shipping",
        "outbox retry",
        "outbox retry order-1 --route cart-sync",
        "dead-letters discard --yes",
        "dead-letters list --cursor nonsense",
    ],
)
def test_what_is_asked_wrongly_exits_with_2(invoke: Invoke, command: str) -> None:
    invoke("migrate")

    result = invoke(*command.split())

    assert (result.exit_code, result.stdout) == (2, "")
    assert "Traceback" not in result.stderr
