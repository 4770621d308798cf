"""Each scenario names tests that exist, or the decision that says why there is none."""

import ast
import re
from collections.abc import Iterator

import pytest

from tests.faults.parts import PARTS
from tests.repo.checkout import ROOT

DOCUMENT = ROOT / "docs" / "proof" / "scenarios.md"
DECISION = "(../decisions/0016-faults-that-are-not-made.md)"
COUNT = 30


def scenarios() -> dict[int, str]:
    """Return the text of each scenario by its number."""
    text = DOCUMENT.read_text()
    found = re.findall(r"^(\d+)\. (.*?)(?=^\d+\. |\Z)", text, re.MULTILINE | re.DOTALL)
    return {int(number): body for number, body in found}


def named_tests(body: str) -> list[tuple[str, str]]:
    """Return file and name of each test that a text names."""
    return re.findall(r"`(tests/[\w/.]+\.py)::(\w+)`", body)


def names_in(path: str) -> Iterator[str]:
    """Yield the names of the tests of a file."""
    for node in ast.parse((ROOT / path).read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name


def test_every_scenario_is_there() -> None:
    assert list(scenarios()) == list(range(1, COUNT + 1))


@pytest.mark.parametrize("number", range(1, COUNT + 1))
def test_a_scenario_names_tests_that_exist_or_says_why_not(number: int) -> None:
    body = scenarios()[number]
    named = named_tests(body)

    assert named or DECISION in body
    missing = [f"{path}::{name}" for path, name in named if name not in names_in(path)]
    assert missing == []


def test_every_part_of_the_programme_is_named_and_none_is_unknown() -> None:
    lines = re.findall(r"^ +- `make faults`: (.*)$", DOCUMENT.read_text(), re.MULTILINE)
    named = {name for line in lines for name in re.findall(r"`(\w+)`", line)}

    assert named == PARTS.keys()
