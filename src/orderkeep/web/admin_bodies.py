"""What operators send and are answered over HTTP, about messages."""

import base64
from typing import Annotated, Literal

import msgspec

from orderkeep.contracts.text import Identifier, Reason
from orderkeep.instant import Instant, rfc3339
from orderkeep.messaging.dead_letter import DeadLetter, DeadLetterSummary, LetterHistoryEntry
from orderkeep.messaging.headers import decode_headers
from orderkeep.messaging.message import EDITED_FROM_HEADER
from orderkeep.messaging.outbox_rows import OutboxRow
from orderkeep.messaging.selection import SELECTED_COUNT_MAX
from orderkeep.status import Status
from orderkeep.web.health_bodies import CheckAnswer, Health, ReadyAnswer
from orderkeep.web.operations import FoundLetter, FoundOutboxRow

Reference = Annotated[str, msgspec.Meta(max_length=64, examples=["order-17"])]
References = Annotated[
    tuple[Reference, ...], msgspec.Meta(min_length=1, max_length=SELECTED_COUNT_MAX)
]


# A moment in RFC 3339, as everywhere; it is read, and refused, by the routes.
Moment = Annotated[str, msgspec.Meta(max_length=64, examples=["2024-01-01T10:00:00Z"])]


class _Body(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A body that an operator sends."""


class _Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A body that is answered: members without a value are left out."""


class OutboxFilterBody(_Body, frozen=True, kw_only=True):
    """Which outbox rows; what is left out is any, and `all` says that any is meant."""

    service: Identifier | None = None
    route: Identifier | None = None
    aggregate_id: Identifier | None = None
    all: bool = False


class OutboxDiscardFilterBody(OutboxFilterBody, frozen=True, kw_only=True):
    """Which outbox rows to give up: parked ones, unless `state` is `pending`."""

    state: Literal["failed", "pending"] | None = None


class DeadLetterFilterBody(_Body, frozen=True, kw_only=True):
    """Which dead letters; what is left out is any, and `all` says that any is meant."""

    service: Identifier | None = None
    queue: Identifier | None = None
    reason: Identifier | None = None
    aggregate_id: Identifier | None = None
    set_aside_from: Moment | None = None
    set_aside_to: Moment | None = None
    all: bool = False


class ChangeOutboxBody(_Body, frozen=True, kw_only=True):
    """Which outbox rows to change: by ids, or by a filter, which takes the oldest 1000."""

    ids: References | None = None
    filter: OutboxFilterBody | None = None
    dry_run: bool = False
    reason: Reason | None = None


class DiscardOutboxBody(_Body, frozen=True, kw_only=True):
    """Which outbox rows to give up: by ids, or by a filter, which takes the oldest 1000."""

    ids: References | None = None
    filter: OutboxDiscardFilterBody | None = None
    dry_run: bool = False
    reason: Reason | None = None


class ChangeDeadLettersBody(_Body, frozen=True, kw_only=True):
    """Which dead letters to change: by ids, or by a filter, which takes the oldest 1000."""

    ids: References | None = None
    filter: DeadLetterFilterBody | None = None
    dry_run: bool = False
    reason: Reason | None = None


class ChangedAnswer(_Answer, frozen=True, kw_only=True):
    """What became of one row, or would."""

    id: str
    result: str


class ChangeAnswer(_Answer, frozen=True, kw_only=True):
    """What became of each row, or would."""

    results: tuple[ChangedAnswer, ...]


class OutboxRowAnswer(_Answer, frozen=True, kw_only=True):
    """One event in an outbox."""

    id: str
    service: str
    message_id: str
    aggregate_id: str
    sequence: int
    type: str
    route: str
    state: str
    ordered: bool
    attempts: int
    not_before: str
    created_at: str
    deliver_at: str | None = None
    sent_at: str | None = None
    last_error: str | None = None


class WholeOutboxRowAnswer(OutboxRowAnswer, frozen=True, kw_only=True):
    """An event with its contents: `body` is null where it is no UTF-8."""

    body: str | None
    body_base64: str
    headers: msgspec.Raw


class OutboxPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of outbox rows."""

    items: tuple[OutboxRowAnswer, ...]
    next_cursor: str | None


class DeadLetterAnswer(_Answer, frozen=True, kw_only=True):
    """One dead letter in a list."""

    id: str
    service: str
    consumer: str
    queue: str
    message_id: str
    type: str
    reason: str
    detail: str
    tries: int
    state: str
    settled_count: int
    first_received_at: str
    set_aside_at: str
    aggregate_id: str | None = None
    settled_at: str | None = None


class DeadLetterPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of dead letters."""

    items: tuple[DeadLetterAnswer, ...]
    next_cursor: str | None


class LetterHistoryAnswer(_Answer, frozen=True, kw_only=True):
    """One thing that became of a dead letter; `message_id` is that of an edited body."""

    at: str
    event: str
    reason: str | None = None
    detail: str | None = None
    tries: int | None = None
    actor: str | None = None
    message_id: str | None = None


class WholeDeadLetterAnswer(DeadLetterAnswer, frozen=True, kw_only=True):
    """A dead letter with all that came: `body` is null where it is no UTF-8."""

    body: str | None
    body_base64: str
    headers: msgspec.Raw
    sender_message_id: str | None
    traceback: str | None = None
    edited_from: str | None = None
    history: tuple[LetterHistoryAnswer, ...]


class StatusAnswer(Status, frozen=True, kw_only=True):
    """What is going on, and whether everything is in order."""

    status: Health
    checks: dict[str, CheckAnswer]


def outbox_row_answer(service: str, row: OutboxRow) -> OutboxRowAnswer:
    """Return an outbox row as operators see it."""
    return OutboxRowAnswer(
        id=f"{service}-{row.id}",
        service=service,
        message_id=row.message_id,
        aggregate_id=row.aggregate_id,
        sequence=row.sequence,
        type=row.type,
        route=row.route,
        state=row.state,
        ordered=row.ordered,
        attempts=row.attempts,
        not_before=rfc3339(row.not_before),
        created_at=rfc3339(row.created_at),
        deliver_at=_time_or_none(row.deliver_at),
        sent_at=_time_or_none(row.sent_at),
        last_error=row.last_error,
    )


def whole_outbox_row_answer(found: FoundOutboxRow) -> WholeOutboxRowAnswer:
    """Return an outbox row with its contents, exactly as they are sent."""
    whole = found.whole
    return WholeOutboxRowAnswer(
        **msgspec.structs.asdict(outbox_row_answer(found.service, whole.row)),
        body=_text_or_none(whole.body),
        body_base64=base64.b64encode(whole.body).decode(),
        headers=msgspec.Raw(whole.headers_json),
    )


def dead_letter_answer(service: str, letter: DeadLetterSummary) -> DeadLetterAnswer:
    """Return a dead letter as it stands in a list."""
    return DeadLetterAnswer(
        id=f"{service}-{letter.id}",
        service=service,
        consumer=letter.consumer,
        queue=letter.queue,
        message_id=letter.message_id,
        type=letter.type,
        reason=letter.reason,
        detail=letter.detail,
        tries=letter.tries,
        state=letter.state,
        settled_count=letter.settled_count,
        first_received_at=rfc3339(letter.first_received_at),
        set_aside_at=rfc3339(letter.set_aside_at),
        aggregate_id=letter.aggregate_id,
        settled_at=_time_or_none(letter.settled_at),
    )


def whole_dead_letter_answer(found: FoundLetter) -> WholeDeadLetterAnswer:
    """Return a dead letter with all that came, exactly as it came."""
    service, letter = found.service, found.letter
    sender_message_id = letter.sender_message_id
    return WholeDeadLetterAnswer(
        **msgspec.structs.asdict(dead_letter_answer(service, letter.summary)),
        body=_text_or_none(letter.body),
        body_base64=base64.b64encode(letter.body).decode(),
        headers=msgspec.Raw(letter.headers_json),
        sender_message_id=(
            None
            if sender_message_id is None
            else sender_message_id.decode("utf-8", "backslashreplace")
        ),
        traceback=letter.traceback,
        edited_from=_edited_from(letter),
        history=tuple(_history_answer(entry) for entry in found.history),
    )


def _edited_from(letter: DeadLetter) -> str | None:
    edited_from = decode_headers(letter.headers_json).get(EDITED_FROM_HEADER)
    return None if edited_from is None else str(edited_from)


def _history_answer(entry: LetterHistoryEntry) -> LetterHistoryAnswer:
    return LetterHistoryAnswer(
        at=rfc3339(entry.at),
        event=entry.event,
        reason=entry.reason,
        detail=entry.detail,
        tries=entry.tries,
        actor=entry.actor,
        message_id=entry.message_id,
    )


def status_answer(status: Status, *, ready: ReadyAnswer) -> StatusAnswer:
    """Return what is going on, with what the checks found."""
    return StatusAnswer(**msgspec.structs.asdict(status), status=ready.status, checks=ready.checks)


def _text_or_none(raw: bytes) -> str | None:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None


def _time_or_none(instant: Instant | None) -> str | None:
    return None if instant is None else rfc3339(instant)
