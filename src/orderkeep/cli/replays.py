"""What replays on the command line share: they go piece by piece, at a rate, and ask before."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from orderkeep.cli.environment import operator_name
from orderkeep.cli.exits import ExitCode, WrongUsageError
from orderkeep.cli.message_changes import (
    CHANGED_COUNT_MAX,
    FilterT,
    T,
    Wanted,
    print_changed,
    with_messages,
)
from orderkeep.cli.terminal import confirm, counted, note

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orderkeep.settings import Settings
    from orderkeep.web.replays import Replay, ReplayDesk, Replayed
    from orderkeep.web.service_messages import Changed, ServiceMessages

# As the HTTP API has them; see orderkeep.web.replays.
RATE_DEFAULT = 100.0
RATE_MIN = 0.1
RATE_MAX = 1000.0
PIECE_COUNT_MAX = CHANGED_COUNT_MAX

# A piece leaves within so long, so that whoever interrupts a replay stops it soon.
PIECE_S = 5.0

Rate = Annotated[
    float,
    typer.Option("--rate", min=RATE_MIN, max=RATE_MAX, help="Messages that leave in a second."),
]
Force = Annotated[
    bool,
    typer.Option(
        "--force",
        help="Also what is so old that its consumer may have forgotten whether it took effect.",
    ),
]

# Replays one piece; the filter is whatever the command has.
ReplayPiece: TypeAlias = "Callable[[ReplayDesk, Replay[Any]], Awaitable[Replayed]]"


@dataclass(frozen=True, slots=True, kw_only=True)
class HowToReplay:
    """How a replay was asked for.

    Attributes:
        why: For the record.
        is_confirmed: The question has its answer.
        question: Asked before many are replayed, with their number and name for `{counted}`.
        thing: What one of them is called.
    """

    rate_per_s: float
    is_forced: bool
    is_dry_run: bool
    why: str | None
    is_confirmed: bool
    as_json: bool
    question: str
    thing: str


def carry_out_replay(replay: ReplayPiece, which: Wanted[FilterT], how: HowToReplay) -> None:
    """Replay what is meant, and print what became of each message.

    Raises:
        WrongUsageError: the rate is none, or nobody is there to answer the question.
        typer.Exit: with 1, if a message that was named could not be replayed.
    """
    if not RATE_MIN <= how.rate_per_s <= RATE_MAX:
        # The option's own limits let pass what is no number.
        message = f"--rate: expected {RATE_MIN:g} to {RATE_MAX:g}"
        raise WrongUsageError(message)

    def apply(*, is_dry_run: bool) -> "list[Changed]":
        return with_replays(
            lambda desk: replay_all(replay, which, how, desk, is_dry_run=is_dry_run)
        )

    is_bulk = which.ids is None or len(which.ids) > 1
    if how.is_dry_run:
        changed = apply(is_dry_run=True)
    elif is_bulk and not how.is_confirmed:
        changed = apply(is_dry_run=True)
        count = sum(not one.is_refused for one in changed)
        if count:
            confirm(how.question.format(counted=counted(count, how.thing)), is_confirmed=False)
            changed = apply(is_dry_run=False)
    else:
        changed = apply(is_dry_run=False)
    print_changed(changed, is_dry_run=how.is_dry_run, as_json=how.as_json)
    if any(one.result == "not_remembered" for one in changed):
        note(
            "What is not remembered is so old that its consumer may have forgotten whether it took"
            " effect: find out, and then --force it."
        )
    if which.ids is not None and any(one.is_refused for one in changed):
        raise typer.Exit(ExitCode.WRONG)


def with_replays(work: "Callable[[ReplayDesk], Awaitable[T]]") -> T:
    """Do the work with the desk for replays of all services, and return its answer."""
    from orderkeep import failure_points
    from orderkeep.wiring.operator_desks import build_replay_desk

    def with_desk(settings: "Settings", messages: "Sequence[ServiceMessages]") -> "Awaitable[T]":
        failure_points.arm(settings.armed_point)
        return work(build_replay_desk(messages))

    return with_messages(with_desk)


async def replay_all(
    replay: ReplayPiece,
    which: Wanted[FilterT],
    how: HowToReplay,
    desk: "ReplayDesk",
    *,
    is_dry_run: bool,
) -> "list[Changed]":
    """Replay piece after piece, each when the one before has left; return what became of each."""
    import asyncio

    from orderkeep.database.audit import Act
    from orderkeep.web.replays import Replay

    piece_count = min(PIECE_COUNT_MAX, max(1, int(how.rate_per_s * PIECE_S)))
    asked = Replay(
        references=None,
        filter=which.filter,
        service=which.service,
        cursor=None,
        count_max=PIECE_COUNT_MAX if is_dry_run else piece_count,
        rate_per_s=how.rate_per_s,
        is_forced=how.is_forced,
        is_dry_run=is_dry_run,
        act=Act(actor=operator_name(), reason=how.why),
    )
    pieces = iter(_pieces_of(which.ids, piece_count=piece_count))
    asked = replace(asked, references=next(pieces))
    changed: list[Changed] = []
    while True:
        replayed = await replay(desk, asked)
        changed.extend(replayed.results)
        if replayed.next_cursor is not None:
            asked = replace(asked, cursor=replayed.next_cursor)
        elif (named := next(pieces, None)) is not None:
            asked = replace(asked, references=named)
        else:
            return _as_named(changed, which.ids)
        if not is_dry_run and replayed.replayed_count:
            await asyncio.sleep(replayed.replayed_count / how.rate_per_s)


def _pieces_of(
    ids: tuple[str, ...] | None, *, piece_count: int
) -> "Sequence[tuple[str, ...] | None]":
    """Return the ids in pieces, in the order in which the rows came; a filter has one, of none."""
    if ids is None:
        return [None]
    # The shorter of two numbers is the smaller one.
    named = sorted(dict.fromkeys(ids), key=lambda id_: (len(id_), id_))
    return [tuple(named[at : at + piece_count]) for at in range(0, len(named), piece_count)]


def _as_named(changed: "list[Changed]", ids: tuple[str, ...] | None) -> "list[Changed]":
    """Return what became of each in the order in which they were named."""
    if ids is None:
        return changed
    found = {one.reference: one for one in changed}
    return [found[id_] for id_ in dict.fromkeys(ids)]
