"""The proof of the fault programme tells what its committed reports tell, and all of them."""

import json
from collections.abc import Mapping

from tests.faults.races import OUTCOMES
from tests.faults.schedule import POINTS
from tests.faults.tally import BOUNDS_S, Tally, total_of
from tests.repo.checkout import ROOT
from tests.repo.written_tables import check_part, code, table

DOCUMENT = ROOT / "docs" / "proof" / "faults.md"
REPORTS = ROOT / "docs" / "proof" / "faults"


def reported() -> list[Tally]:
    """Return every part of every report."""
    documents = [json.loads(path.read_text()) for path in sorted(REPORTS.glob("*.json"))]
    return [Tally.from_document(part) for document in documents for part in document["parts"]]


def outcomes(tallies: list[Tally]) -> str:
    """Return what each part came to, and the sum."""
    names = (
        "attempted",
        "acknowledged",
        "found",
        "lost",
        "doubled",
        "oversold",
        "stuck",
        "recovered",
        "unexpected",
    )
    rows = [
        [tally.name, str(tally.seed or ""), code(tally.commit), str(round(tally.elapsed_s))]
        + [f"{getattr(tally, name):,}" for name in names]
        for tally in tallies
    ]
    total = total_of(tallies)
    rows.append(
        ["**total**", "", "", str(round(total.elapsed_s))]
        + [f"{getattr(total, name):,}" for name in names]
    )
    return table(["part", "seed", "commit", "seconds", *names], rows)


def sums(total: Tally) -> str:
    """Return what was done, in sum."""
    ours, points = kills_of_ours(total), fired(total)
    rows = [
        ["acknowledged besides orders, and found", counts(total.told)],
        ["refused for want of stock, unreached", f"{total.refused:,}, {total.unreached:,}"],
        ["kills of our processes", f"{ours:,}"],
        ["... by kind", counts(total.kills)],
        ["connections cut", f"{total.cuts.total():,}"],
        ["... by way and kind", counts(total.cuts)],
        ["other faults", counts(total.faults)],
        ["the failure point that fired least", f"{min(points.values()):,}"],
        ["... each", counts(points)],
        ["races, by winner", counts({name: total.races[name] for name in OUTCOMES})],
        ["snapshots of the stock, each adding up", f"{total.snapshots:,}"],
        ["... of these with the orders", f"{total.snapshots_with_orders:,}"],
        ["requests, of these answered 'not now'", f"{total.requests:,}, {total.not_now:,}"],
        *(
            [
                f"{what}: middle, longest" + bound(what),
                f"{sorted(times)[len(times) // 2]:.2f} s, {max(times):.2f} s, of {len(times)}",
            ]
            for what, times in sorted(total.recoveries_s.items())
        ),
    ]
    return table(["what", "how often, or how long"], rows)


def kills_of_ours(total: Tally) -> int:
    """Return how many processes of the shop were killed, at a failure point or anywhere."""
    return sum(
        number for kind, number in total.kills.items() if kind.split()[0] in {"serve", "work"}
    )


def fired(total: Tally) -> dict[str, int]:
    """Return how often each failure point fired."""
    return {name: total.points[name] for name in sorted({*POINTS["serve"], *POINTS["work"]})}


def bound(what: str) -> str:
    """Return what is asked for of a recovery, in words."""
    return f" (at most {BOUNDS_S[what]:g} s)" if what in BOUNDS_S else ""


def counts(numbers: Mapping[str, int]) -> str:
    """Return counts by name, without what was never."""
    return ", ".join(f"{name} {number:,}" for name, number in sorted(numbers.items()) if number)


def test_the_document_tells_what_the_reports_tell() -> None:
    tallies = reported()
    text = f"\n{outcomes(tallies)}\n{sums(total_of(tallies))}\n"
    check_part(DOCUMENT, writer=__file__, text=text)


def test_nothing_was_lost_doubled_oversold_or_stuck() -> None:
    for tally in reported():
        assert (tally.lost, tally.doubled, tally.oversold, tally.stuck) == (0, 0, 0, 0)
        assert tally.found == tally.acknowledged
        assert tally.verify_exit_codes == [0]
        assert tally.is_clean


def test_the_reports_together_reach_the_figures_that_the_document_names() -> None:
    total = total_of(reported())
    assert total.attempted >= 10_000
    assert total.acknowledged >= 10_000
    assert kills_of_ours(total) >= 500
    assert total.kills["postgresql"] >= 50
    assert total.kills["rabbitmq"] >= 25
    assert total.cuts.total() >= 100
    assert min(fired(total).values()) >= 20
    assert min(total.races[name] for name in OUTCOMES) >= 50


def test_no_report_takes_longer_than_is_asked_for() -> None:
    total = total_of(reported())
    for what, bound_s in BOUNDS_S.items():
        assert max(total.recoveries_s[what]) <= bound_s
