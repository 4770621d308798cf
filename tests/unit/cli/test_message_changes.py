"""Which messages are meant, and how often a filter is applied."""

from typing import get_args

import pytest

from orderkeep.cli import dead_letters, outbox
from orderkeep.cli.exits import WrongUsageError
from orderkeep.cli.message_changes import Wanted, change_all, wanted
from orderkeep.messaging.dead_letter import DeadLetterFilter, DeadLetterState
from orderkeep.messaging.outbox_rows import OutboxFilter, OutboxState
from orderkeep.web.operations import Change
from orderkeep.web.service_messages import Changed

ANY = OutboxFilter()
BY_ROUTE = OutboxFilter(route="cart-sync")


class Desk:
    """Answers as many rows as it is told, round by round."""

    def __init__(self, *rounds: int) -> None:
        self.rounds = list(rounds)
        self.asked: list[Change] = []

    async def change(self, asked: Change) -> list[Changed]:
        self.asked.append(asked)
        count = self.rounds.pop(0) if self.rounds else 0
        return [Changed(reference=f"order-{n}", result="retried") for n in range(count)]


def test_ids_are_taken_as_they_are() -> None:
    assert wanted(["order-1", "cart-2"], ANY, service=None, is_everything=False) == Wanted(
        ids=("order-1", "cart-2"), filter=ANY, service=None
    )


@pytest.mark.parametrize(
    ("which", "service", "is_everything"),
    [
        (BY_ROUTE, None, False),
        (OutboxFilter(state=OutboxState.PENDING), None, False),
        (ANY, "cart", False),
        (ANY, None, True),
    ],
)
def test_a_filter_or_all_needs_no_ids(
    *, which: OutboxFilter, service: str | None, is_everything: bool
) -> None:
    assert wanted(None, which, service=service, is_everything=is_everything) == Wanted(
        ids=None, filter=which, service=service
    )


@pytest.mark.parametrize(
    ("ids", "which", "is_everything", "said"),
    [
        (None, ANY, False, "say which"),
        ([], DeadLetterFilter(), False, "say which"),
        (["order-1"], BY_ROUTE, False, "not both"),
        (["order-1"], ANY, True, "not both"),
        ([f"order-{n}" for n in range(1001)], ANY, False, "1001 ids"),
    ],
)
def test_what_is_unclear_is_wrong_usage(
    *, ids: list[str] | None, which: object, is_everything: bool, said: str
) -> None:
    with pytest.raises(WrongUsageError, match=said):
        wanted(ids, which, service=None, is_everything=is_everything)


async def test_a_filter_is_applied_until_it_finds_no_more() -> None:
    desk = Desk(1000, 3)

    changed = await change_all(
        desk.change, Wanted(ids=None, filter=ANY, service="order"), is_dry_run=False, why="mended"
    )

    assert len(changed) == 1003
    assert [asked.service for asked in desk.asked] == ["order"] * 3


async def test_a_dry_run_asks_once() -> None:
    desk = Desk(1000, 3)

    changed = await change_all(
        desk.change, Wanted(ids=None, filter=ANY, service=None), is_dry_run=True, why=None
    )

    assert len(changed) == 1000
    assert [asked.is_dry_run for asked in desk.asked] == [True]


async def test_ids_are_changed_once() -> None:
    desk = Desk(1, 1)

    await change_all(
        desk.change,
        Wanted(ids=("order-0",), filter=ANY, service=None),
        is_dry_run=False,
        why="mended",
    )

    assert [asked.references for asked in desk.asked] == [("order-0",)]
    assert [asked.act.reason for asked in desk.asked] == ["mended"]
    assert desk.asked[0].act.actor.startswith("cli:")


def test_options_name_every_state() -> None:
    assert set(get_args(outbox.StateName)) == {state.value for state in OutboxState}
    assert set(get_args(dead_letters.StateName)) == {state.value for state in DeadLetterState}
