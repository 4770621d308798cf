"""Every alarm has a page and every page an alarm, and alarms watch numbers that there are."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # it brings no types

from orderkeep.metrics import Metrics
from tests.acceptance.test_runbooks import RUN_HERE, WALKED
from tests.acceptance.walks import blocks_of
from tests.repo.checkout import ROOT

RUNBOOKS = ROOT / "docs" / "runbooks"

PROMETHEUS = ROOT / "deploy" / "prometheus"

ALERTS: dict[str, Any] = yaml.safe_load((PROMETHEUS / "alerts.yaml").read_text())

RULES: list[dict[str, Any]] = [rule for group in ALERTS["groups"] for rule in group["rules"]]

PAGES = sorted(path for path in RUNBOOKS.glob("*.md") if path.name != "README.md")

# What others show: Prometheus itself, the node exporter, and Python's own client on Linux.
FOREIGN = {
    "up": {"job"},
    "node_filesystem_avail_bytes": {"fstype"},
    "node_filesystem_size_bytes": {"fstype"},
    "process_start_time_seconds": {"job"},
}

FUNCTIONS = {
    "changes",
    "delta",
    "deriv",
    "histogram_quantile",
    "increase",
    "max",
    "min_over_time",
    "rate",
    "sum",
    "time",
}

KEYWORDS = {"and", "by", "or", "unless"}

# Every scraped number bears these.
SCRAPED = {"instance", "job"}

PARTS = [
    "What it means",
    "What users notice",
    "How to look",
    "How to mend",
    "How to know that it is well again",
]

_SELECTOR = re.compile(r"\{([^}]*)\}")
_TEXT = re.compile(r'"[^"]*"')
_DURATION = re.compile(r"\[\d+[smhd]\]")
_GROUPING = re.compile(r"\bby \(([^)]*)\)")
_WORD = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")


def known_metrics() -> dict[str, set[str]]:
    """Return the labels of each number that Prometheus can know, by its name there."""
    known = {name: set(labels) for name, labels in FOREIGN.items()}
    metrics = Metrics()
    for collector in set(metrics.registry._collector_to_names):
        labels = set(getattr(collector, "_labelnames", ()))
        for family in collector.describe() if hasattr(collector, "describe") else ():
            names = {
                "counter": [f"{family.name}_total"],
                "histogram": [f"{family.name}_{part}" for part in ("bucket", "count", "sum")],
            }.get(family.type, [family.name])
            le = {"le"} if family.type == "histogram" else set()
            known.update((name, labels | le) for name in names)
    script = (PROMETHEUS / "checks.sh").read_text()
    known.update((name, set()) for name in re.findall(r"^(orderkeep_\w+) ", script, re.MULTILINE))
    return known


def flaws_of(expression: str) -> Iterator[str]:
    """Yield what of an expression Prometheus would not understand, or never find."""
    known = known_metrics()
    if expression.count("(") != expression.count(")"):
        yield "a bracket is open"
    labels: set[str] = set()
    for selector in _SELECTOR.findall(expression):
        labels.update(_WORD.findall(_TEXT.sub("", selector)))
    for grouping in _GROUPING.findall(expression):
        labels.update(_WORD.findall(grouping))
    bare = _GROUPING.sub("", _SELECTOR.sub("", _DURATION.sub("", expression)))
    words = [word for word in _WORD.findall(bare) if word not in FUNCTIONS | KEYWORDS]
    yield from (f"there is no metric {word}" for word in words if word not in known)
    if not words:
        yield "it watches nothing"
    allowed = SCRAPED.union(*(known.get(word, set()) for word in words))
    yield from (f"nothing here has the label {label}" for label in sorted(labels - allowed))


def page_of(alert: str) -> str:
    """Return what the page of an alarm is called: OrderkeepDeadLetters is dead-letters.md."""
    words = re.findall(r"[A-Z][a-z]*", alert.removeprefix("Orderkeep"))
    return "-".join(words).lower() + ".md"


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alarm_is_whole(rule: dict[str, Any]) -> None:
    assert rule.keys() == {"alert", "expr", "for", "labels", "annotations"}
    assert re.fullmatch(r"Orderkeep([A-Z][a-z]+)+", rule["alert"])
    assert re.fullmatch(r"\d+[smh]", rule["for"])
    assert rule["labels"].keys() == {"severity"}
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert rule["annotations"]["summary"].endswith(".")
    assert rule["annotations"]["runbook"] == f"docs/runbooks/{page_of(rule['alert'])}"


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alarm_watches_what_there_is(rule: dict[str, Any]) -> None:
    assert list(flaws_of(rule["expr"])) == []


@pytest.mark.parametrize(
    ("expression", "flaw"),
    [
        ("max(orderkeep_dead_letter) > 0", "there is no metric orderkeep_dead_letter"),
        ("max by (queues) (orderkeep_dead_letters) > 0", "nothing here has the label queues"),
        ("rate(orderkeep_orders[5m]) > 0", "there is no metric orderkeep_orders"),
        ('orderkeep_check_ok{name="broker"} == 0', "nothing here has the label name"),
        ("maximum(orderkeep_overdue_orders) > 0", "there is no metric maximum"),
        ("max(orderkeep_overdue_orders > 0", "a bracket is open"),
        ("time() > 0", "it watches nothing"),
    ],
)
def test_an_alarm_that_could_never_ring_is_found(expression: str, flaw: str) -> None:
    assert list(flaws_of(expression)) == [flaw]


def test_alarms_have_names_of_their_own() -> None:
    names = [rule["alert"] for rule in RULES]

    assert len(set(names)) == len(names) >= 20


def test_each_alarm_has_a_page_and_each_page_an_alarm() -> None:
    assert {page_of(rule["alert"]) for rule in RULES} == {path.name for path in PAGES}


def test_the_list_of_pages_is_whole() -> None:
    listed = re.findall(
        r"^\| \[[^]]+\]\(([a-z-]+\.md)\)", (RUNBOOKS / "README.md").read_text(), re.MULTILINE
    )

    assert sorted(listed) == [path.name for path in PAGES]
    assert len(listed) == len(PAGES)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_page_has_its_parts_and_something_to_do(path: Any) -> None:
    text = path.read_text()

    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == PARTS
    assert text.split("\n")[2].startswith("The alarm: ")
    assert len(text.partition("## How to mend\n")[2].partition("\n## ")[0]) > 100


def test_each_page_that_says_so_is_run() -> None:
    saying = {
        path.name
        for path in PAGES
        if any(block.reason == RUN_HERE for block in blocks_of(path.read_text()))
    }

    assert saying == {f"{name}.md" for name in WALKED}
