"""The proof of the simulation tells what its committed reports tell, and all of them."""

import json
from collections import Counter
from typing import Any

from tests.repo.checkout import ROOT
from tests.repo.written_tables import check_part, code, table

DOCUMENT = ROOT / "docs" / "proof" / "simulation.md"
REPORTS = ROOT / "docs" / "proof" / "simulation"

# By what a world counts, what that is in words.
COUNTED = {
    "asked": "requests, by what came of them",
    "ends": "orders that went from one state to another",
    "races": "races with money, by who came first",
    "faults": "faults",
    "points": "processes that died at a failure point",
}


def reported() -> list[dict[str, Any]]:
    """Return every report, by its seeds."""
    found = [json.loads(path.read_text()) for path in REPORTS.glob("*.json")]
    return sorted(found, key=lambda report: report["seeds"][0])


def runs(reports: list[dict[str, Any]]) -> str:
    """Return what each run came to, and the sum."""
    names = ("seeds_count", "orders_count", "stored_count", "commits_count")
    rows = [
        [code(report["commit"]), f"{report['seeds'][0]} to {report['seeds'][1]}"]
        + [f"{report[name]:,}" for name in names]
        + [str(len(report["breaches"])), f"{per_processor_s(report):.0f}"]
        for report in reports
    ]
    rows.append(
        ["**total**", ""]
        + [f"{total(reports, name):,}" for name in names]
        + [str(sum(len(report["breaches"]) for report in reports)), ""]
    )
    columns = ["worlds", "orders asked for", "made", "commits looked at", "breaches"]
    return table(["commit", "seeds", *columns, "orders per second of a processor"], rows)


def sums(reports: list[dict[str, Any]]) -> str:
    """Return what was done, in sum."""
    rows = [["seconds simulated", f"{sum(report['virtual_s'] for report in reports):,.0f}"]]
    rows += [
        [words, ", ".join(f"{each} {number:,}" for each, number in sorted(counts.items()))]
        for name, words in COUNTED.items()
        for counts in [counted(reports, name)]
    ]
    return table(["what", "how often"], rows)


def per_processor_s(report: dict[str, Any]) -> float:
    """Return how many orders one second of a processor simulated."""
    return float(report["orders_count"] / report["processor_s"])


def total(reports: list[dict[str, Any]], name: str) -> int:
    """Return the sum of a number."""
    return sum(report[name] for report in reports)


def counted(reports: list[dict[str, Any]], name: str) -> Counter[str]:
    """Return the sums of what is counted by kind."""
    counts: Counter[str] = Counter()
    for report in reports:
        counts.update(report[name])
    return counts


def test_the_document_tells_what_the_reports_tell() -> None:
    reports = reported()
    check_part(DOCUMENT, writer=__file__, text=f"\n{runs(reports)}\n{sums(reports)}\n")


def test_a_million_orders_were_simulated_and_nothing_broke() -> None:
    reports = reported()
    assert total(reports, "orders_count") >= 1_000_000
    assert [report["breaches"] for report in reports] == [[] for _ in reports]


def test_no_world_was_counted_twice() -> None:
    seeds = [
        seed for report in reported() for seed in range(report["seeds"][0], report["seeds"][1] + 1)
    ]
    assert len(seeds) == len(set(seeds))
    assert len(seeds) == total(reported(), "seeds_count")
