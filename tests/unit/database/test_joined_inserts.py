"""Which inserts may go together, and how their text is made one."""

import pytest

from orderkeep.database.joined_inserts import is_plain_insert, joined


@pytest.mark.parametrize(
    ("sql", "is_plain"),
    [
        ("INSERT INTO a (x) VALUES ($1)", True),
        ("INSERT INTO a (x) VALUES ($1) ON CONFLICT (x) DO NOTHING", True),
        ("INSERT INTO a (x) VALUES ($1) ON CONFLICT (x) DO UPDATE SET x = $1", False),
        ("INSERT INTO a (x) VALUES ((SELECT max(x) FROM a))", False),
        ("INSERT INTO a (x) SELECT y FROM b", False),
        ("UPDATE a SET x = $1", False),
        ("DELETE FROM a WHERE x = $1", False),
    ],
)
def test_only_an_insert_that_reads_nothing_and_changes_nothing_is_plain(
    sql: str, *, is_plain: bool
) -> None:
    assert is_plain_insert(sql) is is_plain


def test_one_insert_stays_as_it_is() -> None:
    assert joined(("INSERT INTO a VALUES ($1, $2)",)) == "INSERT INTO a VALUES ($1, $2)"


def test_placeholders_go_on_from_one_insert_to_the_next() -> None:
    eleven = " ".join(f"${number}" for number in range(1, 12))

    sql = joined((eleven, "$2 $1 $2", "none"))

    assert sql == f"WITH insert_3 AS (none), insert_2 AS ($13 $12 $13) {eleven}"
