"""What the doctor thinks of a SQLite file."""

import pytest

from orderkeep.database.sqlite_facts import SqliteFacts
from orderkeep.wiring.doctor.of_sqlite import examine_file, examine_library


@pytest.mark.parametrize(
    ("version", "verdict"), [((3, 34, 1), "wrong"), ((3, 35, 0), "ok"), ((3, 50, 4), "ok")]
)
def test_an_old_library_is_wrong(version: tuple[int, int, int], verdict: str) -> None:
    assert examine_library(version).verdict.value == verdict


@pytest.mark.parametrize(
    ("journal_mode", "synchronous", "verdicts"),
    [
        ("wal", "FULL", ["ok", "ok"]),
        ("wal", "EXTRA", ["ok", "ok"]),
        ("wal", "NORMAL", ["ok", "wrong"]),
        ("delete", None, ["skipped"]),
    ],
)
def test_a_commit_must_reach_the_disk(
    journal_mode: str, synchronous: str | None, verdicts: list[str]
) -> None:
    facts = SqliteFacts(library_version=(3, 45, 0), journal_mode=journal_mode)

    examinations = list(examine_file(facts, synchronous=synchronous))

    assert [each.verdict.value for each in examinations] == verdicts
