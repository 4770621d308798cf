"""A seed draws the same schedule each time, with every failure point and every fault in it."""

import itertools
import re
from collections import Counter
from pathlib import Path

from tests.faults.parts import FAULTS, PARTS
from tests.faults.schedule import DRAWN_COUNTS, POINTS, LifeSpan, draw_faults, draw_lives

SOURCES = Path(__file__).parents[2] / "src" / "orderkeep"
SELDOM = "replay"

SPAN = LifeSpan(is_armed=True, at_least_s=1.0, at_most_s=2.0)


def some_lives(seed: int, name: str = "serve 1"):
    return list(itertools.islice(draw_lives(seed, name, role="serve", span=SPAN), 100))


def some_faults(seed: int, lane: str = "broker"):
    weights = {"cut_broker": 2, "kill_rabbitmq": 1}
    return list(itertools.islice(draw_faults(seed, lane, weights=weights, pause_s_max=3.0), 99))


def test_a_seed_draws_the_same_lives_and_another_one_others() -> None:
    assert some_lives(1) == some_lives(1)
    assert some_lives(1) != some_lives(2)
    assert some_lives(1) != some_lives(1, "serve 2")


def test_a_seed_draws_the_same_faults_and_another_one_others() -> None:
    assert some_faults(1) == some_faults(1)
    assert some_faults(1) != some_faults(2)
    assert some_faults(1) != some_faults(1, "database")


def test_every_failure_point_comes_as_often_as_it_is_to_be_before_one_comes_more_often() -> None:
    often = {name: DRAWN_COUNTS.get(name, 1) for name in POINTS["serve"]}
    assert max(often.values()) > 1
    lives = some_lives(7)[: sum(often.values())]
    assert Counter(life.point for life in lives) == often


def test_every_fault_comes_as_often_as_it_weighs() -> None:
    kinds = [fault.kind for fault in some_faults(7)]
    for start in range(0, 99, 3):
        assert sorted(kinds[start : start + 3]) == ["cut_broker", "cut_broker", "kill_rabbitmq"]


def test_a_process_dies_at_every_failure_point_of_the_source() -> None:
    texts = [path.read_text() for path in SOURCES.rglob("*.py")]
    reached = {
        name
        for text in texts
        for name in re.findall(r'^ +reach\(\s*"([^"]*)"\)', text, re.MULTILINE)
    }
    # What operators start now and then is killed in tests of its own.
    everywhere = {name for name in reached if not name.startswith(SELDOM)}
    assert everywhere == {*POINTS["serve"], *POINTS["work"]}


def test_every_fault_is_made_in_some_part_and_none_is_unknown() -> None:
    used = {kind for part in PARTS.values() for lane in part.lanes.values() for kind in lane}
    assert used == FAULTS.keys()
    assert all(part.lanes.keys() == part.pauses.keys() for part in PARTS.values())


def test_the_whole_programme_makes_faults_for_less_than_forty_minutes() -> None:
    assert sum(part.minutes for part in PARTS.values()) <= 36.0
