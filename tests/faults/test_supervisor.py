"""Every end of a process is accounted for, and each is started again."""

import itertools
from typing import Any

import pytest

from tests.faults.schedule import Life
from tests.faults.supervisor import Supervisor, Ward

ARMED = Life(point="intake.before_batch", on_reach=1, seconds=1e9)
AWAY = "orderkeep: cannot connect to PostgreSQL: nobody is there"
CUT_OFF = "orderkeep: the session is lost: connection was closed"


class Member:
    """A process that does as it is told."""

    def __init__(self, role: str, log: str = "") -> None:
        self.name = self.role = role
        self.environment = {"KEPT": "1"}
        self.preload = None
        self.process: Any = self
        self.returncode: int | None = None
        self.exit_code = 0
        self.starts: list[dict[str, str]] = []
        self._log = log

    @property
    def is_alive(self) -> bool:
        return self.returncode is None

    def start(self) -> None:
        self.returncode = None
        self.starts.append(self.environment)

    def kill(self) -> None:
        self.returncode = -9

    def stop(self) -> int:
        self.returncode = self.exit_code
        return self.exit_code

    def pause(self) -> None:
        self.was_stopped = True

    def go_on(self) -> None:
        self.was_stopped = False

    def is_ready(self, *, within_s: float) -> bool:
        return within_s > 0

    def log_text(self) -> str:
        return self._log


def supervised(member: Member, life: Life = ARMED) -> tuple[Supervisor, Ward]:
    ward = Ward(member, itertools.repeat(life))  # type: ignore[arg-type]
    return Supervisor([ward]), ward


def test_the_first_life_has_no_failure_point_and_the_next_ones_have() -> None:
    member = Member("serve")
    supervisor, ward = supervised(member)
    assert ward.life.point is None

    ward.kill(supervisor)
    ward.look(supervisor)

    assert supervisor.killed_counts == {"serve": 1}
    assert supervisor.fired_counts.total() == 0
    assert member.starts == [
        {
            "KEPT": "1",
            "ORDERKEEP_TEST_MODE": "1",
            "ORDERKEEP_FAILURE_POINT": "intake.before_batch:1",
        }
    ]


def test_a_death_at_its_failure_point_is_counted_there() -> None:
    member = Member("work")
    supervisor, ward = supervised(member)
    ward.begin(ARMED)
    member.returncode = -9

    ward.look(supervisor)

    assert supervisor.fired_counts == {"intake.before_batch": 1}
    assert supervisor.fired_by_role == {"work": 1}
    assert supervisor.killed_counts.total() == 0
    assert supervisor.unexpected == []
    assert member.is_alive


@pytest.mark.parametrize(("role", "code"), [("serve", -11), ("serve", 1), ("work", 2)])
def test_any_other_end_is_unexpected(role: str, code: int) -> None:
    member = Member(role, log=AWAY)
    supervisor, ward = supervised(member)
    ward.begin(ARMED)
    member.returncode = code

    ward.look(supervisor)

    assert len(supervisor.unexpected) == 1
    assert member.is_alive


def test_a_death_by_nobody_is_unexpected_where_no_point_was_armed() -> None:
    member = Member("work")
    supervisor, ward = supervised(member)
    member.returncode = -9

    ward.look(supervisor)

    assert len(supervisor.unexpected) == 1


@pytest.mark.parametrize("log", [AWAY, CUT_OFF])
def test_one_that_found_no_database_is_started_again(log: str) -> None:
    member = Member("serve", log=log)
    supervisor, ward = supervised(member)
    ward.begin(ARMED)
    member.returncode = 2

    ward.look(supervisor)

    assert supervisor.unexpected == []
    assert supervisor.without_database_count == 1
    assert not member.is_alive

    ward._not_before_s = 0.0
    ward.look(supervisor)

    assert supervisor.without_database_count == 1
    assert member.is_alive


def test_one_that_comes_by_its_failure_point_while_it_ends_has_died_there() -> None:
    member = Member("work")
    supervisor, ward = supervised(member)
    ward.begin(ARMED)
    member.exit_code = -9

    assert ward.stop(supervisor) == 0
    ward.look(supervisor)

    assert supervisor.fired_counts == {"intake.before_batch": 1}
    assert supervisor.unexpected == []


@pytest.mark.parametrize("code", [0, 1])
def test_one_that_is_asked_to_end_tells_how_it_did(code: int) -> None:
    member = Member("work")
    supervisor, ward = supervised(member)
    ward.begin(ARMED)
    member.exit_code = code

    assert ward.stop(supervisor) == code
    assert supervisor.fired_counts.total() == 0


def test_one_whose_time_is_over_is_killed() -> None:
    member = Member("serve")
    supervisor, ward = supervised(member)
    ward.begin(Life(point=None, on_reach=1, seconds=-1.0))

    ward.look(supervisor)

    assert supervisor.killed_counts == {"serve": 1}


def test_one_that_would_die_nowhere_lives_on() -> None:
    member = Member("serve")
    supervisor, ward = supervised(member, Life(point=None, on_reach=1, seconds=1e9))

    ward.settle(supervisor)

    assert supervisor.killed_counts.total() == 0
    assert member.starts == []


def test_who_was_started_again_or_stopped_has_not_lived_through_it() -> None:
    member = Member("serve")
    supervisor, ward = supervised(member)
    first = supervisor.ready_lives("serve")

    ward.pause()
    ward.go_on()
    second = supervisor.ready_lives("serve")
    ward.kill(supervisor)
    assert supervisor.lives("serve") == set()
    ward.begin_unarmed()

    assert len(first) == len(second) == 1
    assert not first & second
    assert not second & supervisor.lives("serve")


def test_settled_ones_are_armed_no_more() -> None:
    member = Member("serve")
    supervisor, ward = supervised(member)
    ward.begin(ARMED)

    ward.settle(supervisor)

    assert supervisor.killed_counts == {"serve": 1}
    assert member.starts[-1] == {"KEPT": "1"}
    assert member.is_alive
