"""`orderkeep dead-letters`: messages that were set aside, exactly as they came."""

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from orderkeep.cli.exits import FoundWrongError
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
from orderkeep.cli.terminal import (
    AsJson,
    Why,
    examples,
    print_bytes,
    print_fields,
    print_json,
    print_text,
)

if TYPE_CHECKING:
    from orderkeep.messaging.dead_letter import DeadLetter
    from orderkeep.web.admin_bodies import DeadLetterAnswer
    from orderkeep.web.operations import OperationsDesk

app = typer.Typer(help="Look at messages that were set aside; replay or close them.")

StateName = Literal["open", "replayed", "discarded"]

Queue = Annotated[str | None, typer.Option("--queue", help="Only from this queue.")]
Reason = Annotated[
    str | None,
    typer.Option("--reason", help="Only set aside for this reason, such as out_of_tries."),
]

_DUMP_WIDTH = 16


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
    service: Service = None,
    limit: Limit = LIMIT_DEFAULT,
    cursor: Cursor = None,
    is_whole: All = False,
    as_json: AsJson = False,
) -> None:
    """List what was set aside, service by service, newest first in each."""
    from orderkeep.messaging.dead_letter import DeadLetterFilter

    which = DeadLetterFilter(queue=queue, reason=reason)
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
    service, letter = found
    if raw:
        print_bytes(letter.body)
    elif as_json:
        print_json(whole_dead_letter_answer(service, letter))
    else:
        _print(service, letter)


@app.command(
    epilog=examples(
        "orderkeep dead-letters replay order-3",
        "orderkeep dead-letters replay --queue payment.success.notify --reason out_of_tries",
    )
)
def replay(
    ids: Ids = None,
    *,
    queue: Queue = None,
    reason: Reason = None,
    service: Service = None,
    everything: Everything = False,
    dry_run: DryRun = False,
    why: Why = None,
    as_json: AsJson = False,
) -> None:
    """Send messages to their queues again, as if for the first time."""
    from orderkeep.messaging.dead_letter import DeadLetterFilter

    which = DeadLetterFilter(queue=queue, reason=reason)
    carry_out(
        lambda desk, change: desk.replay_dead_letters(change),
        wanted(ids, which, service=service, is_everything=everything),
        is_dry_run=dry_run,
        why=why,
        as_json=as_json,
    )


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
    service: Service = None,
    everything: Everything = False,
    dry_run: DryRun = False,
    why: Why = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Close messages without another try; they stay to be read."""
    from orderkeep.messaging.dead_letter import DeadLetterFilter

    which = DeadLetterFilter(queue=queue, reason=reason)
    carry_out(
        lambda desk, change: desk.discard_dead_letters(change),
        wanted(ids, which, service=service, is_everything=everything),
        is_dry_run=dry_run,
        why=why,
        as_json=as_json,
        question="Close {count} dead letters without another try?",
        is_confirmed=yes,
    )


def _print(service: str, letter: "DeadLetter") -> None:
    from orderkeep.web.admin_bodies import whole_dead_letter_answer

    answer = whole_dead_letter_answer(service, letter)
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
            "type": answer.type or None,
            "headers": bytes(answer.headers).decode("utf-8", "backslashreplace"),
        }
    )
    if letter.traceback is not None:
        _print_lines("traceback", letter.traceback)
    if answer.body is not None and _is_plain(answer.body):
        _print_lines(f"body, {len(letter.body)} bytes", answer.body)
    else:
        print_text(f"body, {len(letter.body)} bytes, which are no plain text (--raw writes them):")
        for line in dump_lines(letter.body):
            print_text(f"  {line}")


def _print_lines(title: str, text: str) -> None:
    print_text(f"{title}:")
    for line in text.split("\n"):
        print_text(f"  {line}")


def _is_plain(text: str) -> bool:
    return all(line.isprintable() for line in text.split("\n"))


def dump_lines(raw: bytes) -> list[str]:
    """Return the bytes as lines of offset, hexadecimal digits and characters."""
    return [
        f"{start:08x}  {raw[start : start + _DUMP_WIDTH].hex(' '):<{3 * _DUMP_WIDTH}} "
        + "".join(
            chr(byte) if 0x20 <= byte < 0x7F else "."  # noqa: PLR2004 (what ASCII prints)
            for byte in raw[start : start + _DUMP_WIDTH]
        )
        for start in range(0, len(raw), _DUMP_WIDTH)
    ]
