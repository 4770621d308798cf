"""A reading begins shortly before what the last one found, and now and then at the beginning."""

from math import inf

from orderkeep.instant import Instant
from orderkeep.messaging.look_back import FULL_INTERVAL_S, SLACK_S, LookBack
from orderkeep.messaging.message import Message
from orderkeep.messaging.outbox_reading import BEGINNING, PendingRow, Ready

NOW = Instant(1_800_000_000_000_000)
SLACK = round(SLACK_S * 1_000_000)
ALL = frozenset(range(16))


def _found(*not_before: int) -> Ready:
    rows = [
        PendingRow(
            id=number,
            aggregate_id="o1",
            attempts=0,
            not_before=Instant(at),
            message=Message(
                route="r", message_id="m", type="t", body=b"", headers={}, published_at=NOW
            ),
        )
        for number, at in enumerate(not_before)
    ]
    return Ready(now=NOW, rows=rows, next_due_s=None)


def _since(look_back: LookBack, *, at_s: float, **changed: object) -> Instant:
    given = {"partitions": ALL, "paused_routes": [], **changed}
    return look_back.begin_reading(at_s=at_s, **given)  # type: ignore[arg-type]  # reason: what a test changes is of its type


def test_the_first_reading_is_of_everything_and_the_next_of_what_is_young() -> None:
    look_back = LookBack()

    assert _since(look_back, at_s=100.0) == BEGINNING
    look_back.note(_found())
    assert _since(look_back, at_s=100.1) == NOW - SLACK


def test_in_a_crowd_the_next_reading_begins_before_the_oldest_that_was_found() -> None:
    look_back = LookBack()
    _since(look_back, at_s=100.0)

    look_back.note(_found(NOW - 3_600_000_000, NOW))

    assert _since(look_back, at_s=100.1) == NOW - 3_600_000_000 - SLACK


def test_now_and_then_everything_is_read_again() -> None:
    look_back = LookBack()
    _since(look_back, at_s=100.0)
    look_back.note(_found())

    assert _since(look_back, at_s=100.0 + FULL_INTERVAL_S - 0.1) == NOW - SLACK
    assert _since(look_back, at_s=100.0 + FULL_INTERVAL_S) == BEGINNING
    assert _since(look_back, at_s=100.1 + FULL_INTERVAL_S) == NOW - SLACK


def test_partitions_that_were_another_s_may_have_old_rows() -> None:
    look_back = LookBack()
    _since(look_back, at_s=100.0, partitions=frozenset({1}))
    look_back.note(_found())

    assert _since(look_back, at_s=100.1) == BEGINNING
    assert _since(look_back, at_s=100.2) == NOW - SLACK


def test_while_a_route_is_paused_and_once_more_after_it_everything_is_read() -> None:
    look_back = LookBack()
    _since(look_back, at_s=100.0)
    look_back.note(_found())

    assert _since(look_back, at_s=100.1, paused_routes=["r"]) == BEGINNING
    assert _since(look_back, at_s=100.2) == BEGINNING
    assert _since(look_back, at_s=100.3) == NOW - SLACK


def test_what_comes_after_rows_on_their_way_may_be_as_old_as_they_are() -> None:
    look_back = LookBack()
    _since(look_back, at_s=100.0)
    old = _found(NOW - 60_000_000)

    look_back.note(_found(NOW), on_their_way=old.rows)
    assert _since(look_back, at_s=100.1) == NOW - 60_000_000 - SLACK
    look_back.note(_found(), on_their_way=old.rows)
    assert _since(look_back, at_s=100.2) == NOW - 60_000_000 - SLACK


def test_who_is_told_to_begin_again_reads_everything() -> None:
    look_back = LookBack()
    _since(look_back, at_s=100.0)
    look_back.note(_found())

    look_back.begin_again()

    assert _since(look_back, at_s=100.1) == BEGINNING


def test_who_found_nothing_young_waits_no_longer_than_until_everything_is_read() -> None:
    look_back = LookBack()
    _since(look_back, at_s=100.0)
    assert look_back.full_due_in_s(100.0) == inf

    _since(look_back, at_s=101.0)
    assert look_back.full_due_in_s(101.0) == FULL_INTERVAL_S - 1
    _since(look_back, at_s=100.0 + FULL_INTERVAL_S)
    assert look_back.full_due_in_s(100.0 + FULL_INTERVAL_S) == inf


def test_nothing_is_older_than_the_beginning() -> None:
    look_back = LookBack()
    _since(look_back, at_s=100.0)

    look_back.note(_found(5))

    assert _since(look_back, at_s=100.1) == BEGINNING
