"""The page for operators names every line that the code can log."""

import ast
from collections.abc import Iterator
from pathlib import Path

from orderkeep.contracts.order_events import OrderEventType
from tests.repo.checkout import ROOT
from tests.repo.written_tables import rows_of

SOURCES = ROOT / "src" / "orderkeep"

PAGE = ROOT / "docs" / "how-to" / "operate.md"

LEVELS = {"debug", "info", "warning", "error", "critical", "exception"}

# What hands a name on to the log.
TELLERS = {"_answer", "_change_answer"}

# Names that are put together, by the expression that does it.
PUT_TOGETHER = {
    "f'refund_{refund.status}'": {"refund_succeeded", "refund_failed"},
    "event.event_type.value.replace('.', '_')": {
        one.value.replace(".", "_") for one in OrderEventType
    },
}


def names_in(tree: ast.Module) -> Iterator[str]:
    """Yield the names that a module logs; an expression that nobody has foreseen as it is."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "event":
            yield from _told(node.value, is_only_text=True)
        if not isinstance(node, ast.Call) or not node.args:
            continue
        called = ast.unparse(node.func)
        owner, _, method = called.rpartition(".")
        if (owner == "log" and method in LEVELS) or called == "level":
            yield from _told(node.args[0])
        elif called in TELLERS:
            yield from _told(node.args[0], is_only_text=True)


def _told(value: ast.expr, *, is_only_text: bool = False) -> Iterator[str]:
    match value:
        case ast.Constant(value=str(name)):
            yield name
        case ast.IfExp(body=body, orelse=orelse):
            yield from _told(body)
            yield from _told(orelse)
        case ast.Name(id="event"):
            # What it stands for is found where it is set.
            return
        case _:
            text = ast.unparse(value)
            if text in PUT_TOGETHER:
                yield from PUT_TOGETHER[text]
            elif not is_only_text:
                yield text


def logged_names(sources: Path) -> set[str]:
    """Return all names that the sources log."""
    return {
        name for path in sources.rglob("*.py") for name in names_in(ast.parse(path.read_text()))
    }


def test_every_name_of_the_log_stands_on_the_page() -> None:
    alarms = rows_of(PAGE, heading="## The log")
    others = rows_of(PAGE, heading="### All names")
    documented = [name.strip("`") for row in [*alarms, *others] for name in row[0].split(", ")]

    assert sorted(documented) == sorted(logged_names(SOURCES))
    assert all(row[-1] for row in [*alarms, *others])


def test_a_name_that_is_put_together_unforeseen_is_found(tmp_path: Path) -> None:
    (tmp_path / "planted.py").write_text('log.info(f"order_{what}")\nlog.error("plain")\n')

    assert logged_names(tmp_path) == {"f'order_{what}'", "plain"}
