"""What operators call to replay: dead letters, edited ones, and events that were sent before."""

import base64

import structlog
from litestar import Request, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody, SkipValidation
from litestar.types import ControllerRouterHandler

from orderkeep.contracts.caller import Caller
from orderkeep.database.audit import Act
from orderkeep.messaging.sent_replay import Destination, SentFilter
from orderkeep.refusal import invalid
from orderkeep.web.admin_bodies import DeadLetterFilterBody
from orderkeep.web.asked_messages import (
    changed_answers,
    counts_of,
    given_filter,
    letter_filter,
    read_moment,
)
from orderkeep.web.known_names import ROUTES, SERVICES, check_known
from orderkeep.web.replay_bodies import (
    ReplayAnswer,
    ReplayDeadLettersBody,
    ReplayedEditAnswer,
    ReplayEditedBody,
    ReplayEventsBody,
    SentFilterBody,
)
from orderkeep.web.replays import (
    EditedReplay,
    Replay,
    ReplayDesk,
    Replayed,
    call_count_max,
)

log = structlog.get_logger()

_WRITE = {"access": "operator"}

Replays = NamedDependency[SkipValidation[ReplayDesk]]
OperatorRequest = Request[Caller, object, State]


@post(
    "/admin/dead-letters/replay",
    opt=_WRITE,
    status_code=200,
    tags=["Operations"],
    summary="Send dead letters to their queues again",
)
async def replay_dead_letters(
    request: OperatorRequest, data: JSONBody[ReplayDeadLettersBody], replay_desk: Replays
) -> ReplayAnswer:
    """Send messages to their queues again, as if for the first time, at a rate.

    By a filter it is done piece by piece: go on with `cursor` after `wait_s`, until `next_cursor`
    is null.
    """
    which = given_filter(data.ids, data.filter) or DeadLetterFilterBody()
    replayed = await replay_desk.replay_dead_letters(
        Replay(
            references=data.ids,
            filter=letter_filter(which),
            service=which.service,
            cursor=data.cursor,
            count_max=call_count_max(data.rate),
            rate_per_s=data.rate,
            is_forced=data.force,
            is_dry_run=data.dry_run,
            act=Act(actor=request.user.user_id, reason=data.reason),
        )
    )
    return _answer("dead_letters_replayed", replayed, data, request=request)


@post(
    "/admin/dead-letters/{letter_id:str}/replay",
    opt={**_WRITE, "conflicts": True},
    status_code=200,
    tags=["Operations"],
    summary="Send an edited message in a dead letter's place",
)
async def replay_edited(
    request: OperatorRequest,
    letter_id: FromPath[str],
    data: JSONBody[ReplayEditedBody],
    replay_desk: Replays,
) -> ReplayedEditAnswer:
    """Send an edited message, under an id of its own, in the place of one that was set aside."""
    settled = await replay_desk.replay_edited(
        EditedReplay(
            reference=letter_id,
            body=_edited_body(data),
            is_forced=data.force,
            is_dry_run=data.dry_run,
            act=Act(actor=request.user.user_id, reason=data.reason),
        )
    )
    if not data.dry_run:
        log.info(
            "dead_letter_edited",
            operator=request.user.user_id,
            dead_letter=letter_id,
            message_id=settled.message_id,
        )
    return ReplayedEditAnswer(id=letter_id, result=settled.result, message_id=settled.message_id)


@post(
    "/admin/outbox/replay",
    opt=_WRITE,
    status_code=200,
    tags=["Operations"],
    summary="Send events again that were sent before",
)
async def replay_events(
    request: OperatorRequest, data: JSONBody[ReplayEventsBody], replay_desk: Replays
) -> ReplayAnswer:
    """Send events again under their own ids, to all who got them or to one queue, at a rate.

    Under one `key` an event goes to one place once. By a filter it is done piece by piece: go on
    with `cursor` after `wait_s`, until `next_cursor` is null.
    """
    which = given_filter(data.ids, data.filter) or SentFilterBody()
    check_known("/filter/service", which.service, SERVICES)
    check_known("/filter/route", which.route, ROUTES)
    replayed = await replay_desk.replay_sent(
        Replay(
            references=data.ids,
            filter=SentFilter(
                route=which.route,
                aggregate_id=which.aggregate_id,
                sent_from=read_moment("/filter/sent_from", which.sent_from),
                sent_to=read_moment("/filter/sent_to", which.sent_to),
            ),
            service=which.service,
            cursor=data.cursor,
            count_max=call_count_max(data.rate),
            rate_per_s=data.rate,
            is_forced=data.force,
            is_dry_run=data.dry_run,
            act=Act(actor=request.user.user_id, reason=data.reason),
        ),
        to=Destination(queue=data.queue, key=data.key or ""),
    )
    return _answer("outbox_replayed", replayed, data, request=request)


def _edited_body(data: ReplayEditedBody) -> bytes:
    if (data.body is None) == (data.body_base64 is None):
        raise invalid("", "give either body or body_base64")
    if data.body is not None:
        return data.body.encode()
    try:
        return base64.b64decode(data.body_base64 or "", validate=True)
    except ValueError:
        # Of which binascii.Error is one; what is not ASCII is another.
        raise invalid("/body_base64", "expected base64") from None


def _answer(
    event: str,
    replayed: Replayed,
    data: ReplayDeadLettersBody | ReplayEventsBody,
    *,
    request: OperatorRequest,
) -> ReplayAnswer:
    wait_s = 0.0
    if not data.dry_run:
        log.info(event, operator=request.user.user_id, **counts_of(replayed.results))
        wait_s = replayed.replayed_count / data.rate
    return ReplayAnswer(
        results=changed_answers(replayed.results),
        next_cursor=replayed.next_cursor,
        wait_s=round(wait_s, 3),
    )


ROUTE_HANDLERS: list[ControllerRouterHandler] = [
    replay_dead_letters,
    replay_edited,
    replay_events,
]
