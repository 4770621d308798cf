"""The rules that no linter holds: the repository keeps them, and each catches a violation."""

import inspect
from pathlib import Path

import pytest

from tests.repo import source_rules
from tests.repo.checkout import repository_files
from tests.repo.source_rules import Rule

SOURCES = "src/**/*.py"
EVERY_CODE = "**/*.py"
EVERY_FILE = "**"

RULES: list[tuple[Rule, str]] = [
    (source_rules.file_length, EVERY_CODE),
    (source_rules.function_length, EVERY_CODE),
    (source_rules.file_name, EVERY_CODE),
    (source_rules.class_names, EVERY_CODE),
    (source_rules.module_docstring, EVERY_CODE),
    (source_rules.publish_calls, SOURCES),
    (source_rules.environment_reads, SOURCES),
    (source_rules.type_ignore_reasons, SOURCES),
    (source_rules.machine_paths, EVERY_FILE),
    (source_rules.index_addresses, EVERY_FILE),
]

LONG_FUNCTION = '"""Planted."""\n\ndef long():\n' + "    x = 1\n" * 70

# The rule, where a violation of it is planted, and what is planted.
PLANTED: list[tuple[Rule, str, str]] = [
    (source_rules.file_length, "src/orderkeep/orders/long.py", "#\n" * 401),
    (source_rules.file_length, "tests/unit/test_long.py", "#\n" * 801),
    (source_rules.function_length, "src/orderkeep/orders/long.py", LONG_FUNCTION),
    (source_rules.file_name, "src/orderkeep/orders/order_utils.py", ""),
    (source_rules.file_name, "src/orderkeep/orders/order_service.py", ""),
    (source_rules.file_name, "src/orderkeep/helpers/order.py", ""),
    (source_rules.class_names, "src/orderkeep/orders/order.py", "class OrderManager: ..."),
    (source_rules.class_names, "src/orderkeep/orders/order.py", "class BaseOrder: ..."),
    (source_rules.class_names, "src/orderkeep/orders/order.py", "class AbstractOrder: ..."),
    (source_rules.class_names, "src/orderkeep/orders/order.py", "class IOrder: ..."),
    (source_rules.class_names, "src/orderkeep/orders/order.py", "class OrderService: ..."),
    (source_rules.class_names, "src/orderkeep/orders/order.py", "class HTTPHandler: ..."),
    (source_rules.module_docstring, "src/orderkeep/orders/silent.py", "LIMIT = 1\n"),
    (source_rules.module_docstring, "src/orderkeep/orders/silent.py", '""""""\nLIMIT = 1\n'),
    (
        source_rules.publish_calls,
        "src/orderkeep/orders/close_orders.py",
        "await broker.publish([message])\n",
    ),
    (
        source_rules.publish_calls,
        "src/orderkeep/messaging/delivery.py",
        "send = self._broker.publish\n",
    ),
    (source_rules.environment_reads, "src/orderkeep/logs.py", "x = os.environ['TERM']\n"),
    (source_rules.environment_reads, "src/orderkeep/logs.py", "from os import getenv\n"),
    (
        source_rules.type_ignore_reasons,
        "src/orderkeep/orders/order.py",
        "x = 1  # type: ignore[assignment]\n",
    ),
    (source_rules.type_ignore_reasons, "src/orderkeep/orders/order.py", "x = cast(int, y)\n"),
    (source_rules.machine_paths, "docs/how-to/run.md", "Look into /ho" + "me/ann/orders.\n"),
    (source_rules.machine_paths, "Makefile", "cp x /wo" + "rk/main\n"),
    (source_rules.index_addresses, "Makefile", "pip --index" + "-url https://x\n"),
    (source_rules.index_addresses, "docs/index.md", "from pypi" + ".org\n"),
]

# What looks like a violation and is none.
KEPT: list[tuple[Rule, str, str]] = [
    (source_rules.file_length, "src/orderkeep/orders/long.py", "#\n" * 400),
    (source_rules.file_length, "tests/unit/test_long.py", "#\n" * 800),
    (source_rules.function_length, "src/a.py", LONG_FUNCTION.removesuffix("    x = 1\n")),
    (source_rules.file_name, "src/orderkeep/database/database_queue.py", ""),
    (source_rules.class_names, "src/a.py", "class Handled: ..."),
    (source_rules.class_names, "src/a.py", "class IsAnyOf: ..."),
    (source_rules.class_names, "src/a.py", "class ServiceTables: ..."),
    (source_rules.module_docstring, "src/orderkeep/empty.py", ""),
    (
        source_rules.publish_calls,
        "src/orderkeep/messaging/publishing.py",
        "await broker.publish([message])\n",
    ),
    (source_rules.environment_reads, "src/orderkeep/cli/run.py", "x = os.environ\n"),
    (source_rules.environment_reads, "src/orderkeep/a.py", "x = settings.environ\n"),
    (
        source_rules.type_ignore_reasons,
        "src/a.py",
        "x = 1  # type: ignore[assignment]  # the driver's stubs are wrong\n",
    ),
    (source_rules.type_ignore_reasons, "src/a.py", "x = cast(int, y)  # checked above\n"),
    (source_rules.machine_paths, "docs/a.md", "GET https://shop.example/home/page\n"),
    # Put together here: what looks for such paths elsewhere would take it for one.
    (
        source_rules.machine_paths,
        "docs/a.md",
        "`orders/{0}/x`, ${{HOME}}/home/x, ./{0}/x\n".format("work"),
    ),
]


def found(rule: Rule, *, root: Path, name: str, text: str) -> list[str]:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return list(rule(path))


@pytest.mark.parametrize(("rule", "files"), RULES, ids=[rule.__name__ for rule, _ in RULES])
def test_the_repository_keeps_the_rule(rule: Rule, files: str) -> None:
    wrong = [
        sentence for path in repository_files(files) if is_text(path) for sentence in rule(path)
    ]

    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(("rule", "name", "text"), PLANTED)
def test_a_planted_violation_is_caught(tmp_path: Path, rule: Rule, name: str, text: str) -> None:
    wrong = found(rule, root=tmp_path, name=name, text=text)

    assert len(wrong) == 1
    assert wrong[0].startswith(str(tmp_path / name))


@pytest.mark.parametrize(("rule", "name", "text"), KEPT)
def test_what_only_looks_like_a_violation_is_let_be(
    tmp_path: Path, rule: Rule, name: str, text: str
) -> None:
    assert found(rule, root=tmp_path, name=name, text=text) == []


def test_every_rule_is_applied_and_proven_to_bite() -> None:
    rules = {
        function
        for name, function in inspect.getmembers(source_rules, inspect.isfunction)
        if not name.startswith("_") and function.__module__ == source_rules.__name__
    }

    assert {rule for rule, _ in RULES} == rules
    assert {rule for rule, _, _ in PLANTED} == rules


def test_the_rules_look_at_the_sources() -> None:
    names = {path.name for path in repository_files(SOURCES)}

    assert {"instant.py", "broker.py", "tables.py"} <= names


def is_text(path: Path) -> bool:
    return b"\0" not in path.read_bytes()[:8192]
