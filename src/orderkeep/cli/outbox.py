"""`orderkeep outbox`: events that wait for their queue, and those that were parked."""

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from orderkeep.cli.contents import print_body
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
from orderkeep.cli.replays import RATE_DEFAULT, Force, HowToReplay, Rate, carry_out_replay
from orderkeep.cli.terminal import (
    AsJson,
    Why,
    examples,
    print_bytes,
    print_fields,
    print_json,
)

if TYPE_CHECKING:
    from orderkeep.web.admin_bodies import OutboxRowAnswer
    from orderkeep.web.operations import FoundOutboxRow, OperationsDesk

app = typer.Typer(
    help="Look at events on their way to the queues; retry or give up parked ones, replay sent ones"
)

StateName = Literal["pending", "sent", "failed", "discarded"]

Route = Annotated[str | None, typer.Option("--route", help="Only for this queue or exchange.")]
Aggregate = Annotated[str | None, typer.Option("--order", help="Only about this order number.")]


@app.command(
    "list",
    epilog=examples("orderkeep outbox list --state failed", "orderkeep outbox list --all --json"),
)
def list_outbox(
    *,
    state: Annotated[StateName, typer.Option("--state", help="In this state.")] = "pending",
    service: Service = None,
    limit: Limit = LIMIT_DEFAULT,
    cursor: Cursor = None,
    is_whole: All = False,
    as_json: AsJson = False,
) -> None:
    """List events, service by service, newest first in each."""
    paging = Paging(limit=limit, cursor=cursor, is_whole=is_whole)
    page = with_operations(
        lambda desk: paging.collect(
            lambda at, count: _fetch(desk, state=state, service=service, cursor=at, limit=count)
        )
    )
    if as_json:
        print_page_json(page)
        return
    print_page(
        page,
        ("id", "type", "route", "order", "created", "attempts", "message id", "last error"),
        lambda row: (
            row.id,
            row.type,
            row.route,
            row.aggregate_id,
            row.created_at,
            row.attempts,
            row.message_id,
            row.last_error,
        ),
    )


@app.command(
    epilog=examples(
        "orderkeep outbox show order-17", "orderkeep outbox show order-17 --raw > body.bin"
    )
)
def show(
    row_id: Annotated[str, typer.Argument(metavar="ID", help="Such as order-17, from the list.")],
    *,
    raw: Annotated[
        bool, typer.Option("--raw", help="Write the body alone, byte for byte.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show an event with its state, body and headers, exactly as they are sent."""
    from orderkeep.web.admin_bodies import whole_outbox_row_answer

    found = with_operations(lambda desk: desk.find_outbox_row(row_id))
    if found is None:
        message = f"there is no event {row_id}"
        raise FoundWrongError(message)
    if raw:
        print_bytes(found.whole.body)
    elif as_json:
        print_json(whole_outbox_row_answer(found))
    else:
        _print(found)


@app.command(
    epilog=examples(
        "orderkeep outbox retry order-17 order-18",
        "orderkeep outbox retry --route cart-sync --dry-run",
    )
)
def retry(
    ids: Ids = None,
    *,
    route: Route = None,
    order: Aggregate = None,
    service: Service = None,
    everything: Everything = False,
    dry_run: DryRun = False,
    why: Why = None,
    as_json: AsJson = False,
) -> None:
    """Let parked events go again, with a fresh budget of tries."""
    from orderkeep.messaging.outbox_rows import OutboxFilter

    check_known("--route", route, "route")
    which = OutboxFilter(route=route, aggregate_id=order)
    carry_out(
        lambda desk, change: desk.retry_outbox(change),
        wanted(ids, which, service=service, is_everything=everything),
        is_dry_run=dry_run,
        why=why,
        as_json=as_json,
    )


@app.command(
    epilog=examples(
        "orderkeep outbox discard order-17",
        "orderkeep outbox discard --order 0100000000000009 --state pending --yes",
    )
)
def discard(
    ids: Ids = None,
    *,
    route: Route = None,
    order: Aggregate = None,
    state: Annotated[
        Literal["failed", "pending"] | None,
        typer.Option(
            "--state",
            help="In this state: failed, which is parked and the default, or pending, which waits.",
        ),
    ] = None,
    service: Service = None,
    everything: Everything = False,
    dry_run: DryRun = False,
    why: Why = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Give up parked events; what waited behind them goes on.

    Those that wait to leave are taken by their ids, or by --state pending. Some of them are
    messages that were received and wait for their next try.
    """
    from orderkeep.messaging.outbox_rows import OutboxFilter, OutboxState

    check_known("--route", route, "route")
    which = OutboxFilter(
        route=route, aggregate_id=order, state=None if state is None else OutboxState(state)
    )
    carry_out(
        lambda desk, change: desk.discard_outbox(change),
        wanted(ids, which, service=service, is_everything=everything),
        is_dry_run=dry_run,
        why=why,
        as_json=as_json,
        question="A received message that waits for its next try is given up, too."
        " Give up {counted} still waiting to leave?"
        if which.state is OutboxState.PENDING
        else "Give up {counted}, which nobody will hear of?",
        is_confirmed=yes,
    )


@app.command(
    epilog=examples(
        "orderkeep outbox replay --order 0100000000000009",
        "orderkeep outbox replay --route order.events --from 2024-01-01T10:00:00Z"
        " --queue order.outbox",
    )
)
def replay(
    ids: Ids = None,
    *,
    route: Route = None,
    order: Aggregate = None,
    sent_from: Annotated[
        str | None, typer.Option("--from", help=f"Sent at this time or later, {MOMENT}.")
    ] = None,
    sent_to: Annotated[
        str | None, typer.Option("--to", help=f"Sent before this time, {MOMENT}.")
    ] = None,
    service: Service = None,
    everything: Everything = False,
    queue: Annotated[
        str | None,
        typer.Option("--queue", help="Only to this queue; without it, to all who got them."),
    ] = None,
    key: Annotated[
        str,
        typer.Option(
            "--key",
            help="Under one key an event goes to one place once; give another to send it again.",
        ),
    ] = "",
    rate: Rate = RATE_DEFAULT,
    force: Force = False,
    dry_run: DryRun = False,
    why: Why = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Send events again that were sent before, under their own ids; many at once are confirmed.

    Whoever took effect for them takes none again. Interrupted, the same command goes on.
    """
    from orderkeep.contracts.text import is_identifier
    from orderkeep.messaging.sent_replay import Destination, SentFilter

    if key and not is_identifier(key):
        message = "--key: expected 1 to 64 of letters, digits and ._:-"
        raise WrongUsageError(message)
    check_known("--route", route, "route")
    check_known("--queue", queue, "queue")
    which = SentFilter(
        route=route,
        aggregate_id=order,
        sent_from=read_moment("--from", sent_from),
        sent_to=read_moment("--to", sent_to),
    )
    to = Destination(queue=queue, key=key)
    carry_out_replay(
        lambda desk, piece: desk.replay_sent(piece, to=to),
        wanted(ids, which, service=service, is_everything=everything),
        HowToReplay(
            rate_per_s=rate,
            is_forced=force,
            is_dry_run=dry_run,
            why=why,
            is_confirmed=yes,
            as_json=as_json,
            thing="event",
            question="Send {counted} again"
            + (f" to {queue}?" if queue else " to all who got them?"),
        ),
    )


def _print(found: "FoundOutboxRow") -> None:
    from orderkeep.web.admin_bodies import whole_outbox_row_answer

    answer = whole_outbox_row_answer(found)
    print_fields(
        {
            "id": answer.id,
            "route": answer.route,
            "state": answer.state,
            "type": answer.type or None,
            "message id": answer.message_id,
            "order": answer.aggregate_id,
            "sequence": answer.sequence,
            "attempts": answer.attempts,
            "last error": answer.last_error,
            "created": answer.created_at,
            "not before": answer.not_before,
            "deliver at": answer.deliver_at,
            "sent": answer.sent_at,
            "headers": bytes(answer.headers).decode("utf-8", "backslashreplace"),
        }
    )
    print_body(found.whole.body)


async def _fetch(
    desk: "OperationsDesk", *, state: StateName, service: str | None, cursor: str | None, limit: int
) -> "Page[OutboxRowAnswer]":
    from orderkeep.messaging.outbox_rows import OutboxState
    from orderkeep.web.admin_bodies import outbox_row_answer

    page = await desk.list_outbox(
        state=OutboxState(state), service=service, cursor=cursor, limit=limit
    )
    return Page(
        items=[outbox_row_answer(each.service, each.row) for each in page.rows],
        next_cursor=page.next_cursor,
    )
