"""Routes that are down are tried again after growing pauses."""

import pytest

from orderkeep.messaging.route_pauses import RoutePauses


@pytest.fixture
def pauses() -> RoutePauses:
    return RoutePauses(base_s=1, max_s=4)


def test_a_route_is_paused_for_a_while(pauses: RoutePauses):
    pauses.pause("q", at_s=100, jitter=0.5)

    assert pauses.paused_routes(at_s=100.9) == ["q"]
    assert pauses.next_end_s(at_s=100.9) == 101
    assert pauses.paused_routes(at_s=101) == []
    assert pauses.next_end_s(at_s=101) is None


def test_each_pause_in_a_row_is_longer_up_to_the_maximum(pauses: RoutePauses):
    ends_s = []
    for _ in range(4):
        pauses.pause("q", at_s=100, jitter=0.5)
        ends_s.append(pauses.next_end_s(at_s=100))

    assert ends_s == [101, 102, 104, 104]


def test_a_message_that_went_through_ends_the_growth(pauses: RoutePauses):
    pauses.pause("q", at_s=100, jitter=0.5)
    pauses.pause("q", at_s=100, jitter=0.5)
    pauses.resume("q")

    pauses.pause("q", at_s=200, jitter=0.5)

    assert pauses.next_end_s(at_s=200) == 201


def test_only_a_change_of_state_is_told(pauses: RoutePauses):
    told = [
        pauses.resume("q"),
        pauses.pause("q", at_s=100, jitter=0.5),
        pauses.pause("q", at_s=100, jitter=0.5),
        pauses.resume("q"),
        pauses.resume("q"),
    ]

    assert told == [False, True, False, True, False]


def test_routes_are_paused_each_for_itself(pauses: RoutePauses):
    pauses.pause("a", at_s=100, jitter=0.5)
    pauses.pause("b", at_s=100.5, jitter=0.5)

    assert pauses.paused_routes(at_s=101.2) == ["b"]
