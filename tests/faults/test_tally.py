"""A report is the sum of its parts, and says when something is wrong."""

import json
from collections import Counter

import pytest

from tests.faults.tally import BOUNDS_S, TOLD, Tally, total_of

WRITES = next(iter(BOUNDS_S))
ALL_TOLD = Counter(dict.fromkeys(TOLD, 1))


def clean_tally(**more: object) -> Tally:
    values = {"attempted": 3, "acknowledged": 2, "found": 2, "verify_exit_codes": [0]} | more
    return Tally(name="a part", seed=7, commit="abc", **values)  # type: ignore[arg-type]


def test_a_part_without_a_finding_is_clean() -> None:
    assert clean_tally().is_clean
    assert "clean" in clean_tally().table()


@pytest.mark.parametrize(
    "more",
    [
        {"lost": 1},
        {"doubled": 1},
        {"oversold": 1},
        {"stuck": 1},
        {"unexpected": 1},
        {"found": 1},
        {"acknowledged": 0, "found": 0},
        {"findings": ["UNEXPECTED: something"]},
        {"verify_exit_codes": [1]},
        {"verify_exit_codes": []},
    ],
)
def test_a_part_with_a_finding_is_not(more: dict[str, object]) -> None:
    tally = clean_tally(**more)
    assert not tally.is_clean
    assert "WRONG" in tally.table()
    assert (
        not total_of([clean_tally(), tally]).is_clean
        or {"verify_exit_codes", "acknowledged"} & more.keys()
    )


def test_what_takes_too_long_is_a_finding() -> None:
    quick = clean_tally(told=ALL_TOLD, recoveries_s={WRITES: [0.1, BOUNDS_S[WRITES]]})
    slow = clean_tally(told=ALL_TOLD, recoveries_s={WRITES: [0.1, BOUNDS_S[WRITES] + 0.01]})
    for tally in (quick, slow):
        tally.hold_to_bounds()
    assert quick.is_clean
    assert slow.unexpected == 1
    assert not slow.is_clean


@pytest.mark.parametrize("missing", TOLD)
def test_what_was_never_tried_is_a_finding(missing: str) -> None:
    tally = clean_tally(told=ALL_TOLD - Counter({missing: 1}))
    tally.hold_to_bounds()
    assert tally.unexpected == 1
    assert missing in tally.findings[0]


def test_a_watcher_that_slept_is_a_finding() -> None:
    awake = clean_tally(told=ALL_TOLD, faults_s=60.0, looks_during_faults=200)
    asleep = clean_tally(told=ALL_TOLD, faults_s=60.0, looks_during_faults=100)
    for tally in (awake, asleep):
        tally.hold_to_bounds()
    assert awake.is_clean
    assert not asleep.is_clean


def test_several_parts_are_added_up() -> None:
    one = clean_tally(kills=Counter(serve=2), recoveries_s={WRITES: [1.0]})
    other = clean_tally(kills=Counter(serve=1, work=4), recoveries_s={WRITES: [2.0]})

    total = total_of([one, other])

    assert (total.attempted, total.acknowledged, total.found) == (6, 4, 4)
    assert total.kills == {"serve": 3, "work": 4}
    assert total.recoveries_s == {WRITES: [1.0, 2.0]}
    assert (total.seed, total.commit, total.is_clean) == (7, "abc", True)


def test_a_report_is_read_as_it_was_written() -> None:
    tally = clean_tally(kills=Counter(serve=2), recoveries_s={WRITES: [1.0]})
    assert Tally.from_document(json.loads(json.dumps(tally.document()))) == tally
