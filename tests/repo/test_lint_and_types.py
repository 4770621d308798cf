"""The linter, the formatter and the type checker find nothing, and are set up to find something."""

import re
import tomllib
from pathlib import Path

import pytest

from tests.repo.checkout import ROOT, Checkout, rules_alone

# What the linter finds, and a line that it is found in.
LINT_PLANTED = [
    ("TID251", "from datetime import datetime\n\nNOW = datetime.now()\n"),
    ("TD002", "# TODO: make it faster\n"),
    ("FIX001", "# FIXME(ann): it is wrong\n"),
    ("T201", 'print("hello")\n'),
    ("BLE001", "try:\n    import json\nexcept Exception:\n    json = None\n"),
    ("ERA001", "# total = price * quantity\n"),
    ("E501", f'TEXT = "{"x" * 100}"\n'),
    ("D205", 'def pay():\n    """Pay\n    now.\n    """\n'),
    ("ANN001", 'def pay(order) -> None:\n    """Pay."""\n'),
    ("S608", 'def find(name: str) -> str:\n    return f"SELECT 1 FROM orders WHERE x = {name}"\n'),
]

# For each name that may not be used, a use of it.
BANNED_PLANTED = {
    "datetime.datetime.now": "from datetime import UTC, datetime\n\nX = datetime.now(UTC)\n",
    "datetime.datetime.utcnow": "from datetime import datetime\n\nX = datetime.utcnow()\n",
    "datetime.datetime.today": "from datetime import datetime\n\nX = datetime.today()\n",
    "datetime.date.today": "from datetime import date\n\nX = date.today()\n",
    "time.time": "import time\n\nX = time.time()\n",
    "time.time_ns": "from time import time_ns\n\nX = time_ns()\n",
    "time.sleep": "import time\n\ntime.sleep(1)\n",
    "random": "import random\n\nX = random.random()\n",
    "secrets": "from secrets import token_hex\n\nX = token_hex(8)\n",
}

HALF_A_MATCH = """
import enum

class Choice(enum.Enum):
    A = 1
    B = 2

def choose(choice: Choice) -> None:
    match choice:
        case Choice.A:
            pass
"""

# What the type checker finds, and code that it is found in.
TYPES_PLANTED = [
    ("no-untyped-def", "def pay(order):\n    return order\n"),
    ("no-any-return", "from typing import Any\n\n\ndef pay(x: Any) -> int:\n    return x\n"),
    ("return-value", "def pay() -> int:\n    return '1'\n"),
    ("unreachable", "def pay(x: int) -> int:\n    return x\n    return 2\n"),
    ("ignore-without-code", "X: int = '1'  # type: ignore\n"),
    ("possibly-undefined", "def pay(x: int) -> int:\n    if x:\n        y = 1\n    return y\n"),
    ("exhaustive-match", HALF_A_MATCH),
]


@pytest.fixture
def rules(tmp_path: Path) -> Checkout:
    return rules_alone(tmp_path)


def test_the_linter_finds_nothing() -> None:
    finished = Checkout(root=ROOT).run("ruff", "check", "--no-fix", ".")

    assert finished.exit_code == 0, finished.output


def test_every_file_is_in_the_format() -> None:
    finished = Checkout(root=ROOT).run("ruff", "format", "--check", ".")

    assert finished.exit_code == 0, finished.output


# From nothing, with no cache of an earlier run, the checker reads every library as well.
@pytest.mark.timeout(600)
@pytest.mark.slow
def test_the_type_checker_finds_nothing() -> None:
    finished = Checkout(root=ROOT).run("mypy")

    assert finished.exit_code == 0, finished.output


@pytest.mark.parametrize(("code", "text"), LINT_PLANTED)
def test_the_linter_catches_what_is_planted(rules: Checkout, code: str, text: str) -> None:
    rules.plant("orders/planted.py", text)

    finished = rules.run("ruff", "check", "--no-cache", "--output-format=concise", ".")

    assert finished.exit_code == 1
    assert re.search(rf"planted\.py:\d+:\d+: {code} ", finished.output), finished.output


@pytest.mark.parametrize(("name", "text"), BANNED_PLANTED.items())
def test_a_banned_name_is_caught_everywhere_but_in_one_file(
    rules: Checkout, name: str, text: str
) -> None:
    rules.plant("orders/planted.py", text)
    rules.plant("wiring/planted.py", text)
    rules.plant("wiring/chance.py", text)

    finished = rules.run(
        "ruff", "check", "--no-cache", "--select=TID251", "--output-format=concise", "."
    )

    assert f"`{name}` is banned" in finished.output
    found_in = set(re.findall(r"^src/orderkeep/([\w/.]+):", finished.output, re.MULTILINE))
    assert found_in == {"orders/planted.py", "wiring/planted.py"}


def test_every_banned_name_is_proven_to_be_caught() -> None:
    rules = tomllib.loads((ROOT / "pyproject.toml").read_text())

    assert BANNED_PLANTED.keys() == (
        rules["tool"]["ruff"]["lint"]["flake8-tidy-imports"]["banned-api"].keys()
    )


def test_a_file_out_of_format_is_caught(rules: Checkout) -> None:
    rules.plant("orders/planted.py", "X = ( 1,2 )\n")

    finished = rules.run("ruff", "format", "--no-cache", "--check", ".")

    assert finished.exit_code == 1
    assert "planted.py" in finished.output


def test_the_type_checker_catches_what_is_planted(rules: Checkout) -> None:
    for code, text in TYPES_PLANTED:
        rules.plant(f"planted_{code.replace('-', '_')}.py", text)

    finished = rules.run("mypy", "--cache-dir=/dev/null", "src")

    assert finished.exit_code == 1
    for code, _ in TYPES_PLANTED:
        where = rf"planted_{code.replace('-', '_')}\.py:\d+: error: .*"
        assert re.search(rf"{where}\[{code}\]", finished.output), finished.output
