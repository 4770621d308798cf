"""`orderkeep dead-letters`: messages that were set aside, exactly as they came."""

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from orderkeep.cli.contents import print_body, print_lines
from orderkeep.cli.environment import operator_name
from orderkeep.cli.exits import FoundWrongError, WrongUsageError
from orderkeep.cli.known_names import check_known
from orderkeep.cli.message_changes import (
    DryRun,
    Everything,
    Ids,
    Service,
    Yes,
    carry_out,
    wanted,
    with_operations,
)
from orderkeep.cli.moments import MOMENT, read_moment
from orderkeep.cli.paging import (
    LIMIT_DEFAULT,
    All,
    Cursor,
    Limit,
    Page,
    Paging,
    print_page,
    print_page_json,
)
from orderkeep.cli.replays import (
    RATE_DEFAULT,
    Force,
    HowToReplay,
    Rate,
    carry_out_replay,
    with_replays,
)
from orderkeep.cli.terminal import (
    AsJson,
    examples,
    note,
    print_bytes,
    print_fields,
    print_json,
    print_text,
    read_file,
)

if TYPE_CHECKING:
    from orderkeep.messaging.dead_letter import DeadLetterFilter
    from orderkeep.web.admin_bodies import DeadLetterAnswer
    from orderkeep.web.operations import FoundLetter, OperationsDesk

app = typer.Typer(help="Look at messages that were set aside; replay or close them.")

StateName = Literal["open", "replayed", "discarded"]

Queue = Annotated[str | None, typer.Option("--queue", help="Only from this queue.")]
Reason = Annotated[
    str | None,
    typer.Option("--reason", help="Only set aside for this reason, such as out_of_tries."),
]

Aggregate = Annotated[str | None, typer.Option("--order", help="Only about this order number.")]
SetAsideFrom = Annotated[
    str | None, typer.Option("--from", help=f"Set aside at this time or later, {MOMENT}.")
]
SetAsideTo = Annotated[
    str | None, typer.Option("--to", help=f"Set aside before this time, {MOMENT}.")
]

# Not `--reason` as elsewhere: that is a letter's own, why it was set aside.
Why = Annotated[
    str | None, typer.Option("--why", help="Your reason, for the record of what operators did.")
]


@app.command(
    "list",
    epilog=examples(
        "orderkeep dead-letters list", "orderkeep dead-letters list --queue cart-sync --json"
    ),
)
def list_dead_letters(
    *,
    state: Annotated[StateName, typer.Option("--state", help="In this state.")] = "open",
    queue: Queue = None,
    reason: Reason = None,
    order: Aggregate = None,
    set_aside_from: SetAsideFrom = None,
    set_aside_to: SetAsideTo = None,
    service: Service = None,
    limit: Limit = LIMIT_DEFAULT,
    cursor: Cursor = None,
    is_whole: All = False,
    as_json: AsJson = False,
) -> None:
    """List what was set aside, service by service, newest first in each."""
    which = _filter(queue, reason, order, set_aside_from, set_aside_to)
    paging = Paging(limit=limit, cursor=cursor, is_whole=is_whole)

    async def fetch(desk: "OperationsDesk", at: str | None, count: int) -> "Page[DeadLetterAnswer]":
        from orderkeep.messaging.dead_letter import DeadLetterState
        from orderkeep.web.admin_bodies import dead_letter_answer

        page = await desk.list_dead_letters(
            state=DeadLetterState(state), which=which, service=service, cursor=at, limit=count
        )
        return Page(
            items=[dead_letter_answer(each.service, each.row) for each in page.rows],
            next_cursor=page.next_cursor,
        )

    page = with_operations(lambda desk: paging.collect(lambda at, count: fetch(desk, at, count)))
    if as_json:
        print_page_json(page)
        return
    print_page(
        page,
        ("id", "queue", "reason", "detail", "tries", "set aside", "message id"),
        lambda letter: (
            letter.id,
            letter.queue,
            letter.reason,
            letter.detail,
            letter.tries,
            letter.set_aside_at,
            letter.message_id,
        ),
    )


@app.command(
    epilog=examples(
        "orderkeep dead-letters show order-3",
        "orderkeep dead-letters show order-3 --raw > body.bin",
    )
)
def show(
    letter_id: Annotated[str, typer.Argument(metavar="ID", help="Such as order-3, from the list.")],
    *,
    raw: Annotated[
        bool, typer.Option("--raw", help="Write the body alone, byte for byte.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show a dead letter with everything that came, exactly as it came."""
    from orderkeep.web.admin_bodies import whole_dead_letter_answer

    found = with_operations(lambda desk: desk.find_dead_letter(letter_id))
    if found is None:
        message = f"there is no dead letter {letter_id}"
        raise FoundWrongError(message)
    if raw:
        print_bytes(found.letter.body)
    elif as_json:
        print_json(whole_dead_letter_answer(found))
    else:
        _print(found)


@app.command(
    epilog=examples(
        "orderkeep dead-letters replay order-3",
        "orderkeep dead-letters replay --queue payment.success.notify --reason out_of_tries",
        "orderkeep dead-letters replay order-3 --body mended.json --why 'the amount was missing'",
    )
)
def replay(
    ids: Ids = None,
    *,
    queue: Queue = None,
    reason: Reason = None,
    order: Aggregate = None,
    set_aside_from: SetAsideFrom = None,
    set_aside_to: SetAsideTo = None,
    service: Service = None,
    everything: Everything = False,
    body: Annotated[
        str | None,
        typer.Option(
            "--body",
            metavar="FILE",
            help="Send what is in the file in the message's place, under a new id; - reads it from"
            " standard input.",
        ),
    ] = None,
    rate: Rate = RATE_DEFAULT,
    force: Force = False,
    dry_run: DryRun = False,
    why: Why = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Send messages to their queues again, as if for the first time; many at once are confirmed."""
    which = wanted(
        ids,
        _filter(queue, reason, order, set_aside_from, set_aside_to),
        service=service,
        is_everything=everything,
    )
    how = HowToReplay(
        rate_per_s=rate,
        is_forced=force,
        is_dry_run=dry_run,
        why=why,
        is_confirmed=yes,
        as_json=as_json,
        question="Replay {counted}?",
        thing="dead letter",
    )
    if body is not None:
        _replay_edited(which.ids, read_file(body), how)
        return
    carry_out_replay(lambda desk, piece: desk.replay_dead_letters(piece), which, how)


@app.command(
    epilog=examples(
        "orderkeep dead-letters discard order-3",
        "orderkeep dead-letters discard --reason unreadable --yes",
    )
)
def discard(
    ids: Ids = None,
    *,
    queue: Queue = None,
    reason: Reason = None,
    order: Aggregate = None,
    set_aside_from: SetAsideFrom = None,
    set_aside_to: SetAsideTo = None,
    service: Service = None,
    everything: Everything = False,
    dry_run: DryRun = False,
    why: Why = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Close messages without another try; they stay to be read."""
    which = _filter(queue, reason, order, set_aside_from, set_aside_to)
    carry_out(
        lambda desk, change: desk.discard_dead_letters(change),
        wanted(ids, which, service=service, is_everything=everything),
        is_dry_run=dry_run,
        why=why,
        as_json=as_json,
        question="Close {counted} without another try?",
        thing="dead letter",
        is_confirmed=yes,
    )


def _filter(
    queue: str | None,
    reason: str | None,
    order: str | None,
    set_aside_from: str | None,
    set_aside_to: str | None,
) -> "DeadLetterFilter":
    from orderkeep.messaging.dead_letter import DeadLetterFilter

    check_known("--queue", queue, "queue")
    return DeadLetterFilter(
        queue=queue,
        reason=reason,
        aggregate_id=order,
        set_aside_from=read_moment("--from", set_aside_from),
        set_aside_to=read_moment("--to", set_aside_to),
    )


def _replay_edited(ids: tuple[str, ...] | None, body: bytes, how: HowToReplay) -> None:
    from orderkeep.database.audit import Act
    from orderkeep.web.replays import EditedReplay

    if ids is None or len(ids) != 1:
        message = "--body takes the place of one message: give one id"
        raise WrongUsageError(message)
    edited = EditedReplay(
        reference=ids[0],
        body=body,
        is_forced=how.is_forced,
        is_dry_run=how.is_dry_run,
        act=Act(actor=operator_name(), reason=how.why),
    )
    settled = with_replays(lambda desk: desk.replay_edited(edited))
    if how.as_json:
        answer = {"id": ids[0], "result": settled.result, "message_id": settled.message_id}
        print_json({"is_dry_run": how.is_dry_run, "results": [answer]})
    elif how.is_dry_run:
        print_text(f"The edited message would go in the place of {ids[0]}.")
        note("Nothing was changed: this was a dry run.")
    else:
        print_text(f"{ids[0]} is replayed, edited, as the message {settled.message_id}.")


def _print(found: "FoundLetter") -> None:
    from orderkeep.web.admin_bodies import whole_dead_letter_answer

    letter = found.letter
    answer = whole_dead_letter_answer(found)
    print_fields(
        {
            "id": answer.id,
            "queue": answer.queue,
            "state": answer.state,
            "reason": answer.reason,
            "detail": answer.detail,
            "tries": answer.tries,
            "first received": answer.first_received_at,
            "set aside": answer.set_aside_at,
            "settled": answer.settled_at,
            "message id": answer.message_id,
            "sender's id": answer.sender_message_id,
            "edited from": answer.edited_from,
            "order": answer.aggregate_id,
            "type": answer.type or None,
            "headers": bytes(answer.headers).decode("utf-8", "backslashreplace"),
        }
    )
    if letter.traceback is not None:
        print_lines("traceback", letter.traceback)
    print_body(letter.body)
    print_text("history:")
    for entry in answer.history:
        told = {
            "by": entry.actor,
            "as": entry.message_id,
            "tries": entry.tries,
            "reason": entry.reason,
            "detail": entry.detail,
        }
        words = " ".join(f"{name}={value}" for name, value in told.items() if value is not None)
        print_text(f"  {entry.at}  {entry.event}  {words}")
