"""What `outbox` and `dead-letters` share: which messages are meant, and changing them."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Generic, Literal, TypeVar

import typer

from orderkeep.cli.environment import operator_name, read_settings_quietly
from orderkeep.cli.exits import ExitCode, WrongUsageError
from orderkeep.cli.terminal import confirm, counted, note, print_json, print_table

if TYPE_CHECKING:
    from orderkeep.database.transaction import Database
    from orderkeep.settings import Settings
    from orderkeep.web.operations import Change, OperationsDesk
    from orderkeep.web.service_messages import Changed, ServiceMessages

# As the service has it, which takes long to import; see orderkeep.messaging.selection.
CHANGED_COUNT_MAX = 1000

# A filter is applied again while it finds that many: a million rows, then it is asked for anew.
_ROUND_COUNT_MAX = 1000

ServiceName = Literal["order", "cart", "payment"]
Service = Annotated[ServiceName | None, typer.Option("--service", help="Only of this service.")]
Ids = Annotated[
    list[str] | None, typer.Argument(metavar="ID", help="Such as order-17, from the list.")
]
Everything = Annotated[bool, typer.Option("--all", help="Every one that can be, without a filter.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only tell what would become of each.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

FilterT = TypeVar("FilterT")
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted(Generic[FilterT]):
    """Which messages shall be changed: by their ids, or by a filter.

    Attributes:
        ids: None where the filter tells.
    """

    ids: tuple[str, ...] | None
    filter: FilterT
    service: str | None


def wanted(
    ids: Sequence[str] | None, which: FilterT, *, service: str | None, is_everything: bool
) -> Wanted[FilterT]:
    """Return which messages are meant.

    Args:
        ids: Those named one by one.
        which: A frozen dataclass whose fields are None where they mean any.
        service: Only of this one.
        is_everything: `--all` was given: no filter is needed.

    Raises:
        WrongUsageError: neither ids nor a filter is given, or both, or too many ids.
    """
    is_filtered = service is not None or which != type(which)()
    if ids and (is_filtered or is_everything):
        message = "give either ids or a filter, not both"
        raise WrongUsageError(message)
    if not ids and not is_filtered and not is_everything:
        message = "say which: ids from the list, a filter, or --all"
        raise WrongUsageError(message)
    if ids and len(ids) > CHANGED_COUNT_MAX:
        message = f"{len(ids)} ids are more than {CHANGED_COUNT_MAX} at once"
        raise WrongUsageError(message)
    return Wanted(ids=tuple(ids) if ids else None, filter=which, service=service)


def with_messages(
    work: "Callable[[Settings, Sequence[ServiceMessages]], Awaitable[T]]",
) -> T:
    """Do the work with the messages of all services, and return its answer."""
    from orderkeep.cli.opened_database import with_database
    from orderkeep.wiring.operator_desks import build_messages
    from orderkeep.wiring.storage import build_outboxes

    settings = read_settings_quietly()

    async def with_services(database: "Database") -> T:
        outboxes = build_outboxes(settings)
        return await work(settings, build_messages(settings, outboxes, database=database))

    return with_database(settings, with_services)


def with_operations(work: "Callable[[OperationsDesk], Awaitable[T]]") -> T:
    """Do the work with the desk for messages of all services, and return its answer."""
    from orderkeep.web.operations import OperationsDesk

    return with_messages(lambda _settings, messages: work(OperationsDesk(messages)))


async def change_all(
    change: "Callable[[Change[FilterT]], Awaitable[list[Changed]]]",
    which: Wanted[FilterT],
    *,
    is_dry_run: bool,
    why: str | None,
) -> "list[Changed]":
    """Change what is meant, as often as a filter finds more; return what became of each."""
    from orderkeep.database.audit import Act
    from orderkeep.web.operations import Change

    asked = Change(
        references=which.ids,
        filter=which.filter,
        service=which.service,
        is_dry_run=is_dry_run,
        act=Act(actor=operator_name(), reason=why),
    )
    changed = await change(asked)
    is_finished = is_dry_run or which.ids is not None
    for _ in range(_ROUND_COUNT_MAX):
        if is_finished:
            break
        more = await change(asked)
        changed.extend(more)
        is_finished = not more
    return changed


def carry_out(
    change: "Callable[[OperationsDesk, Change[FilterT]], Awaitable[list[Changed]]]",
    which: Wanted[FilterT],
    *,
    is_dry_run: bool,
    why: str | None,
    as_json: bool,
    question: str | None = None,
    thing: str = "event",
    is_confirmed: bool = False,
) -> None:
    """Change what is meant, and print what became of each message.

    Args:
        change: The desk's method.
        which: The messages.
        is_dry_run: Change nothing.
        why: For the record.
        as_json: Print for a program.
        question: Asked before anything is changed, with the number of messages and their name
            for `{counted}`; None asks nothing.
        thing: What one of them is called.
        is_confirmed: The question has its answer.

    Raises:
        WrongUsageError: nobody is there to answer the question.
        typer.Exit: with 1, if a message that was named could not be changed.
    """

    def apply(*, is_dry_run: bool) -> "list[Changed]":
        return with_operations(
            lambda desk: change_all(
                lambda asked: change(desk, asked), which, is_dry_run=is_dry_run, why=why
            )
        )

    changed = apply(is_dry_run=True)
    if not is_dry_run and any(not one.is_refused for one in changed):
        if question is not None:
            count = sum(not one.is_refused for one in changed)
            shown = counted(count, thing, count_max=CHANGED_COUNT_MAX)
            confirm(question.format(counted=shown), is_confirmed=is_confirmed)
        changed = apply(is_dry_run=False)
    print_changed(changed, is_dry_run=is_dry_run, as_json=as_json)
    if which.ids is not None and any(one.is_refused for one in changed):
        raise typer.Exit(ExitCode.WRONG)


def print_changed(changed: "Sequence[Changed]", *, is_dry_run: bool, as_json: bool) -> None:
    """Print what became of each message, or would."""
    if as_json:
        print_json(
            {
                "is_dry_run": is_dry_run,
                "results": [{"id": one.reference, "result": one.result} for one in changed],
            }
        )
        return
    if not changed:
        note("There are none.")
        return
    print_table(
        ("id", "would be" if is_dry_run else "is"),
        [(one.reference, one.result.replace("_", " ")) for one in changed],
    )
    if is_dry_run:
        note("Nothing was changed: this was a dry run.")
