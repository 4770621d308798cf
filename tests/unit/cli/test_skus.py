"""What `orderkeep skus import` does with a file, good or bad."""

import json
import sqlite3
from pathlib import Path

import pytest

from tests.unit.cli.conftest import Invoke

GOOD = """\
sku_id,product_id,title,price,currency,stock
tea,teas,"Tea,
green",48.00,CNY,200
cup,,Cup,29.90,CNY,
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "skus.csv"
    path.write_text(GOOD)
    return path


def stored(tmp_path: Path) -> list[tuple]:
    connection = sqlite3.connect(tmp_path / "data" / "orderkeep.db")
    try:
        return connection.execute(
            "select sku_id, product_id, title, unit_price_minor, currency, available"
            " from skus join stock using (sku_id) order by sku_id"
        ).fetchall()
    finally:
        connection.close()


def test_a_good_file_is_imported_whole_before_the_first_run(
    invoke: Invoke, file: Path, tmp_path: Path
) -> None:
    result = invoke("skus", "import", str(file))

    assert (result.exit_code, result.stdout) == (0, "2 SKUs imported: 2 new, 0 updated.\n")
    assert stored(tmp_path) == [
        ("cup", None, "Cup", 2990, "CNY", 0),
        ("tea", "teas", "Tea,\ngreen", 4800, "CNY", 200),
    ]


def test_a_known_sku_gets_its_new_price_and_keeps_its_stock(
    invoke: Invoke, file: Path, tmp_path: Path
) -> None:
    invoke("skus", "import", str(file))
    file.write_text("sku_id,title,price,currency\ntea,Green tea,50.00,CNY\npot,Pot,9.00,CNY\n")

    result = invoke("skus", "import", str(file), "--json")

    assert json.loads(result.stdout) == {"created": 1, "updated": 1}
    assert stored(tmp_path) == [
        ("cup", None, "Cup", 2990, "CNY", 0),
        ("pot", None, "Pot", 900, "CNY", 0),
        ("tea", None, "Green tea", 5000, "CNY", 200),
    ]


def test_every_bad_line_is_named_and_nothing_is_imported(
    invoke: Invoke, file: Path, tmp_path: Path
) -> None:
    invoke("skus", "import", str(file))
    bad = tmp_path / "bad.csv"
    bad.write_text(
        "sku_id,title,price,currency,stock\n"
        "pot,Pot,9.00,CNY,1\n"
        "bad id,Pot,9.00,CNY,1\n"
        "lid,Lid,9.001,CNY,-1\n"
    )

    result = invoke("skus", "import", str(bad))

    assert (result.exit_code, result.stdout) == (1, "")
    assert f"{bad}:3: sku_id 'bad id'" in result.stderr
    assert f"{bad}:4: price '9.001'" in result.stderr
    assert f"{bad}:4: stock '-1'" in result.stderr
    assert [row[0] for row in stored(tmp_path)] == ["cup", "tea"]


def test_a_file_imported_again_changes_nothing(invoke: Invoke, file: Path, tmp_path: Path) -> None:
    invoke("skus", "import", str(file))
    before = stored(tmp_path)

    result = invoke("skus", "import", str(file), "--json")

    assert json.loads(result.stdout) == {"created": 0, "updated": 2}
    assert stored(tmp_path) == before


@pytest.mark.parametrize("name", ["missing.csv", "."])
def test_a_file_that_cannot_be_read_is_wrong_usage(
    invoke: Invoke, tmp_path: Path, name: str
) -> None:
    result = invoke("skus", "import", str(tmp_path / name))

    assert result.exit_code == 2
    assert "cannot be read" in result.stderr
    assert not (tmp_path / "data").exists()


def test_an_import_is_on_record_with_who_and_why(invoke: Invoke, tmp_path: Path) -> None:
    file = tmp_path / "skus.csv"
    file.write_text("sku_id,title,price,currency,stock\ntea,Tea,9.00,CNY,3\n")

    invoke("skus", "import", str(file), "--why", "spring")
    listed = json.loads(invoke("audit", "list", "--action", "skus.put", "--json").stdout)
    table = invoke("audit", "list").stdout

    (entry,) = listed["items"]
    assert (entry["subject"], entry["reason"], entry["detail"]["stock"]) == ("tea", "spring", 3)
    assert entry["actor"].startswith("cli:")
    assert "skus.put" in table
