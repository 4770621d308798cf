"""`orderkeep doctor` on a machine of its own; on servers see tests/acceptance."""

import json
from pathlib import Path

import pytest

from orderkeep.settings import load_settings
from orderkeep.wiring import chance
from orderkeep.wiring.doctor.examination import Examination, Verdict
from orderkeep.wiring.doctor.examine import examine
from tests.unit.cli.conftest import Invoke


@pytest.fixture
def _with_database(invoke: Invoke) -> None:
    """A database as `run` leaves it."""
    assert invoke("migrate").exit_code == 0
    assert invoke("status").exit_code == 0


@pytest.mark.usefixtures("_with_database")
def test_a_sound_database_is_well(invoke: Invoke) -> None:
    done = invoke("doctor")

    assert done.exit_code == 0
    assert "ok       database.schema: it is that of this release" in done.stdout
    assert done.stdout.splitlines()[-1].endswith(" ok")


@pytest.mark.usefixtures("_with_database")
def test_json_names_every_examination(invoke: Invoke) -> None:
    done = invoke("doctor", "--json")

    document = json.loads(done.stdout)
    assert document["is_well"] is True
    (schema,) = (each for each in document["examinations"] if each["name"] == "database.schema")
    assert schema == {
        "name": "database.schema",
        "subject": None,
        "verdict": "ok",
        "found": "it is that of this release",
        "remedy": None,
    }


@pytest.mark.usefixtures("_with_database")
def test_a_warning_alone_is_no_failure(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORDERKEEP_TEST_MODE", "1")

    done = invoke("doctor")

    assert done.exit_code == 0
    assert "warning  settings.test_mode: the test mode is on" in done.stdout
    assert "         to do: unset ORDERKEEP_TEST_MODE" in done.stdout


def test_something_wrong_is_a_failure(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORDERKEEP_TEST_MODE", "1")
    monkeypatch.setenv("ORDERKEEP_FAILURE_POINT", "database.before_commit")

    done = invoke("doctor")

    assert done.exit_code == 1
    assert "WRONG    settings.failure_point" in done.stdout
    assert done.stdout.splitlines()[-1].endswith("1 wrong, 1 skipped")


@pytest.mark.usefixtures("_with_database")
async def test_a_queue_that_nobody_reads_is_told(tmp_path: Path) -> None:
    settings = load_settings(
        {"ORDERKEEP_DATA_DIR": str(tmp_path / "data"), "ORDERKEEP_SERVICES": "orders,payment"}
    )

    examinations = await examine(settings, now=chance.now)

    assert [each for each in examinations if each.verdict is not Verdict.OK] == [
        Examination(
            name="settings.services",
            verdict=Verdict.WARNING,
            found="cart does not run here, and nobody reads cart-sync: what is sent there piles up"
            " in the database",
            remedy="name these queues in ORDERKEEP_UNUSED_QUEUES, or run the service somewhere",
        )
    ]
