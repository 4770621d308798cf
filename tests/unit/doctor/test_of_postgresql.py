"""What the doctor thinks of a PostgreSQL server."""

from dataclasses import replace
from typing import Any

import pytest

from orderkeep.database.postgresql_facts import RelationFacts
from orderkeep.database.transaction import StoreTooOldError
from orderkeep.wiring.doctor.of_postgresql import (
    ClockFacts,
    examine_clock,
    examine_connections,
    examine_old_server,
    examine_role,
    examine_server,
)
from tests.unit.doctor.facts import POSTGRESQL, found, remedy, verdicts

TABLES = {"orders", "order_outbox", "carts"}


def server(*, is_local: bool = False, **changes: Any):
    return list(examine_server(replace(POSTGRESQL, **changes), is_local=is_local))


def role(**changes: Any):
    return list(examine_role(replace(POSTGRESQL, **changes), table_names=TABLES))


def test_a_sound_server_has_nothing_to_mend() -> None:
    examinations = [*server(), *role()]

    assert verdicts(examinations) == []
    assert found(examinations, "database.version") == "PostgreSQL 16.4"
    assert found(examinations, "database.rights") == "the role shop may read and write 3 relations"


@pytest.mark.parametrize(
    ("changes", "name", "verdict"),
    [
        ({"encoding": "LATIN1"}, "database.encoding", "wrong"),
        ({"read_only": "it is a replica"}, "database.writable", "wrong"),
        ({"fsync": "off"}, "database.fsync", "wrong"),
        ({"full_page_writes": "off"}, "database.full_page_writes", "wrong"),
        ({"synchronous_commit": "off"}, "database.synchronous_commit", "wrong"),
        ({"autovacuum": "off"}, "database.autovacuum", "warning"),
        ({"is_encrypted": False}, "database.encryption", "warning"),
    ],
)
def test_what_is_wrong_with_a_server_is_told(
    changes: dict[str, Any], name: str, verdict: str
) -> None:
    examinations = server(**changes)

    assert verdicts(examinations) == [(name, verdict)]
    assert remedy(examinations, name)


def test_a_server_that_is_too_old_is_to_be_upgraded() -> None:
    examinations = [examine_old_server(StoreTooOldError("PostgreSQL 14.9 is too old"))]

    assert verdicts(examinations) == [("database.version", "wrong")]
    assert found(examinations, "database.version") == "PostgreSQL 14.9 is too old"
    assert remedy(examinations, "database.version")


def test_a_commit_that_waits_for_less_than_all_replicas_is_safe() -> None:
    assert verdicts(server(synchronous_commit="local")) == []


def test_what_stays_on_the_machine_need_not_be_encrypted() -> None:
    assert verdicts(server(is_local=True, is_encrypted=False)) == []


def test_rights_that_are_missing_are_named() -> None:
    examinations = role(
        relations=(
            RelationFacts(name="orders", is_owned=False, missing_rights=("INSERT", "DELETE")),
            RelationFacts(name="order_outbox_id_seq", is_owned=False, missing_rights=("USAGE",)),
            RelationFacts(name="of_another_program", is_owned=False, missing_rights=("SELECT",)),
        )
    )

    assert verdicts(examinations) == [("database.rights", "wrong")]
    assert found(examinations, "database.rights") == (
        "the role shop lacks rights: INSERT, DELETE on orders; USAGE on order_outbox_id_seq"
    )


def test_many_missing_rights_make_no_endless_sentence() -> None:
    tables = [f"table_{number}" for number in range(9)]
    facts = replace(
        POSTGRESQL,
        relations=tuple(
            RelationFacts(name=name, is_owned=False, missing_rights=("INSERT",)) for name in tables
        ),
    )

    (examination,) = examine_role(facts, table_names=set(tables))

    assert examination.found.endswith("INSERT on table_4; and 4 more")


def test_a_role_without_any_schema_is_told_how_to_get_one() -> None:
    examinations = role(schema_name=None, role='the "shop"')

    assert verdicts(examinations) == [("database.rights", "wrong")]
    assert remedy(examinations, "database.rights") == (
        'as the owner: GRANT USAGE ON SCHEMA public TO "the ""shop"""'
    )


def test_a_role_that_may_do_anything_is_a_warning() -> None:
    examinations = role(excess_attributes=("SUPERUSER", "CREATEDB"))

    assert verdicts(examinations) == [("database.role", "warning")]
    assert found(examinations, "database.role") == (
        "the role shop may do more than it needs: SUPERUSER, CREATEDB"
    )


def test_a_role_that_owns_the_tables_is_a_warning() -> None:
    examinations = role(relations=(RelationFacts(name="orders", is_owned=True, missing_rights=()),))

    assert verdicts(examinations) == [("database.role", "warning")]


@pytest.mark.parametrize(
    ("connections_max", "pool_size", "verdict"),
    [(97, 8, "ok"), (48, 8, "ok"), (47, 8, "warning"), (97, 50, "warning"), (3, 8, "warning")],
)
def test_connections_must_do_for_four_processes(
    connections_max: int, pool_size: int, verdict: str
) -> None:
    facts = replace(POSTGRESQL, connections_max=connections_max)

    assert examine_connections(facts, pool_size=pool_size).verdict.value == verdict


@pytest.mark.parametrize(
    ("ahead_s", "verdict"),
    [
        (0.0, "ok"),
        (1.0, "ok"),
        (1.1, "warning"),
        (-1.1, "warning"),
        (10.0, "warning"),
        (10.1, "wrong"),
        (-3600.0, "wrong"),
    ],
)
def test_clocks_that_differ_are_told_apart(ahead_s: float, verdict: str) -> None:
    examination = examine_clock(ClockFacts(ahead_s=ahead_s, uncertainty_s=0.001))

    assert examination.verdict.value == verdict


def test_it_is_told_which_clock_is_ahead() -> None:
    ahead = examine_clock(ClockFacts(ahead_s=2.5, uncertainty_s=0.01))
    behind = examine_clock(ClockFacts(ahead_s=-2.5, uncertainty_s=0.01))

    assert ahead.found == ("the database's clock is 2.500 s ahead of this machine's (± 0.010 s)")
    assert behind.found == "the database's clock is 2.500 s behind this machine's (± 0.010 s)"
