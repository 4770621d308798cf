"""What operators call: the messages of every service, and how it all does."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated

import structlog
from litestar import Request, get, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter, SkipValidation
from litestar.types import ControllerRouterHandler

from orderkeep.contracts.caller import Caller
from orderkeep.contracts.page import PAGE_LIMIT_DEFAULT, PageLimit
from orderkeep.contracts.text import Identifier
from orderkeep.database.audit import Act
from orderkeep.messaging.dead_letter import DeadLetterFilter, DeadLetterState
from orderkeep.messaging.outbox_rows import OutboxFilter, OutboxState
from orderkeep.refusal import Refusal
from orderkeep.status import Status
from orderkeep.web.admin_bodies import (
    ChangeAnswer,
    ChangeDeadLettersBody,
    ChangeOutboxBody,
    DeadLetterFilterBody,
    DeadLetterPage,
    DiscardOutboxBody,
    OutboxDiscardFilterBody,
    OutboxFilterBody,
    OutboxPage,
    StatusAnswer,
    WholeDeadLetterAnswer,
    WholeOutboxRowAnswer,
    dead_letter_answer,
    outbox_row_answer,
    status_answer,
    whole_dead_letter_answer,
    whole_outbox_row_answer,
)
from orderkeep.web.asked_messages import (
    changed_answers,
    counts_of,
    given_filter,
    letter_filter,
    read_moment,
)
from orderkeep.web.health import Readiness
from orderkeep.web.known_names import QUEUES, ROUTES, SERVICES, check_known
from orderkeep.web.operations import Change, OperationsDesk
from orderkeep.web.service_messages import Changed

log = structlog.get_logger()

_READ = {"access": "operator:read"}
_WRITE = {"access": "operator"}

Operations = NamedDependency[SkipValidation[OperationsDesk]]
OperatorRequest = Request[Caller, object, State]
ReadStatus = Callable[[], Awaitable[Status]]

# The framework keeps the name `state` for itself.
STATE = QueryParameter(name="state")


@get("/admin/outbox", opt=_READ, tags=["Operations"], summary="List outbox rows")
async def list_outbox(
    operations_desk: Operations,
    wanted_state: Annotated[OutboxState, STATE] = OutboxState.PENDING,
    service: FromQuery[Identifier | None] = None,
    cursor: FromQuery[str | None] = None,
    limit: FromQuery[PageLimit] = PAGE_LIMIT_DEFAULT,
) -> OutboxPage:
    """List the events of every service, service by service, newest first in each."""
    check_known("query/service", service, SERVICES)
    page = await operations_desk.list_outbox(
        state=wanted_state, service=service, cursor=cursor, limit=limit
    )
    return OutboxPage(
        items=tuple(outbox_row_answer(one.service, one.row) for one in page.rows),
        next_cursor=page.next_cursor,
    )


@get("/admin/outbox/{row_id:str}", opt=_READ, tags=["Operations"], summary="Show an outbox row")
async def show_outbox_row(
    row_id: FromPath[str], operations_desk: Operations
) -> WholeOutboxRowAnswer:
    """Show an event with its body and headers, exactly as they are sent."""
    found = await operations_desk.find_outbox_row(row_id)
    if found is None:
        raise Refusal("not_found", f"There is no outbox row {row_id}.")
    return whole_outbox_row_answer(found)


@post(
    "/admin/outbox/retry",
    opt=_WRITE,
    status_code=200,
    tags=["Operations"],
    summary="Let parked outbox rows go again",
)
async def retry_outbox(
    request: OperatorRequest, data: JSONBody[ChangeOutboxBody], operations_desk: Operations
) -> ChangeAnswer:
    """Let rows that were parked as failed go again, with a fresh budget of tries."""
    which = given_filter(data.ids, data.filter) or OutboxFilterBody()
    changed = await operations_desk.retry_outbox(_outbox_change(data, which, request=request))
    return _change_answer("outbox_retried", changed, is_dry_run=data.dry_run, request=request)


@post(
    "/admin/outbox/discard",
    opt=_WRITE,
    status_code=200,
    tags=["Operations"],
    summary="Give up outbox rows",
)
async def discard_outbox(
    request: OperatorRequest, data: JSONBody[DiscardOutboxBody], operations_desk: Operations
) -> ChangeAnswer:
    """Give up rows that were not sent; what waited behind them goes on.

    A filter takes parked rows, or with `state` `pending` those that wait to leave: among them are
    messages that were received and wait for their next try.
    """
    which = given_filter(data.ids, data.filter) or OutboxDiscardFilterBody()
    state = None if which.state is None else OutboxState(which.state)
    change = _outbox_change(data, which, state=state, request=request)
    changed = await operations_desk.discard_outbox(change)
    return _change_answer("outbox_discarded", changed, is_dry_run=data.dry_run, request=request)


@get("/admin/dead-letters", opt=_READ, tags=["Operations"], summary="List dead letters")
async def list_dead_letters(
    *,
    operations_desk: Operations,
    wanted_state: Annotated[DeadLetterState, STATE] = DeadLetterState.OPEN,
    service: FromQuery[Identifier | None] = None,
    queue: FromQuery[Identifier | None] = None,
    reason: FromQuery[Identifier | None] = None,
    aggregate_id: FromQuery[Identifier | None] = None,
    set_aside_from: FromQuery[str | None] = None,
    set_aside_to: FromQuery[str | None] = None,
    cursor: FromQuery[str | None] = None,
    limit: FromQuery[PageLimit] = PAGE_LIMIT_DEFAULT,
) -> DeadLetterPage:
    """List what was set aside in every service, service by service, newest first in each."""
    check_known("query/service", service, SERVICES)
    check_known("query/queue", queue, QUEUES)
    page = await operations_desk.list_dead_letters(
        state=wanted_state,
        which=DeadLetterFilter(
            queue=queue,
            reason=reason,
            aggregate_id=aggregate_id,
            set_aside_from=read_moment("query/set_aside_from", set_aside_from),
            set_aside_to=read_moment("query/set_aside_to", set_aside_to),
        ),
        service=service,
        cursor=cursor,
        limit=limit,
    )
    return DeadLetterPage(
        items=tuple(dead_letter_answer(one.service, one.row) for one in page.rows),
        next_cursor=page.next_cursor,
    )


@get(
    "/admin/dead-letters/{letter_id:str}",
    opt=_READ,
    tags=["Operations"],
    summary="Show a dead letter",
)
async def show_dead_letter(
    letter_id: FromPath[str], operations_desk: Operations
) -> WholeDeadLetterAnswer:
    """Show a dead letter with its body and headers, exactly as they came."""
    found = await operations_desk.find_dead_letter(letter_id)
    if found is None:
        raise Refusal("not_found", f"There is no dead letter {letter_id}.")
    return whole_dead_letter_answer(found)


@post(
    "/admin/dead-letters/discard",
    opt=_WRITE,
    status_code=200,
    tags=["Operations"],
    summary="Close dead letters",
)
async def discard_dead_letters(
    request: OperatorRequest, data: JSONBody[ChangeDeadLettersBody], operations_desk: Operations
) -> ChangeAnswer:
    """Close dead letters without another try; they stay to be read."""
    changed = await operations_desk.discard_dead_letters(
        _dead_letters_change(data, request=request)
    )
    return _change_answer(
        "dead_letters_discarded", changed, is_dry_run=data.dry_run, request=request
    )


@get("/admin/status", opt=_READ, tags=["Operations"], summary="How everything does")
async def show_status(
    readiness: NamedDependency[SkipValidation[Readiness]],
    read_status: NamedDependency[SkipValidation[ReadStatus]],
) -> StatusAnswer:
    """Tell whether everything is in order, and what waits, is parked or was set aside."""
    ready = await readiness.ask()
    return status_answer(await read_status(), ready=ready)


def _outbox_change(
    data: ChangeOutboxBody | DiscardOutboxBody,
    which: OutboxFilterBody,
    *,
    state: OutboxState | None = None,
    request: OperatorRequest,
) -> Change[OutboxFilter]:
    check_known("/filter/service", which.service, SERVICES)
    check_known("/filter/route", which.route, ROUTES)
    return Change(
        references=data.ids,
        filter=OutboxFilter(route=which.route, aggregate_id=which.aggregate_id, state=state),
        service=which.service,
        is_dry_run=data.dry_run,
        act=Act(actor=request.user.user_id, reason=data.reason),
    )


def _dead_letters_change(
    data: ChangeDeadLettersBody, *, request: OperatorRequest
) -> Change[DeadLetterFilter]:
    which = given_filter(data.ids, data.filter) or DeadLetterFilterBody()
    return Change(
        references=data.ids,
        filter=letter_filter(which),
        service=which.service,
        is_dry_run=data.dry_run,
        act=Act(actor=request.user.user_id, reason=data.reason),
    )


def _change_answer(
    event: str, changed: Sequence[Changed], *, is_dry_run: bool, request: OperatorRequest
) -> ChangeAnswer:
    if not is_dry_run:
        log.info(event, operator=request.user.user_id, **counts_of(changed))
    return ChangeAnswer(results=changed_answers(changed))


ROUTE_HANDLERS: list[ControllerRouterHandler] = [
    list_outbox,
    show_outbox_row,
    retry_outbox,
    discard_outbox,
    list_dead_letters,
    show_dead_letter,
    discard_dead_letters,
    show_status,
]
