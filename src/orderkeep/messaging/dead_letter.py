"""What a dead letter is: a message that was set aside, as it came, with what went wrong."""

from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256

from orderkeep.database.transaction import Row, Value
from orderkeep.instant import Instant
from orderkeep.messaging.column_text import clean_end, clean_start
from orderkeep.messaging.headers import encode_headers
from orderkeep.messaging.message import Delivery
from orderkeep.messaging.return_to_queue import place_of
from orderkeep.messaging.selection import SELECTED_COUNT_MAX

# A reason is a stable name, a detail a sentence; a traceback shows its end, which tells the most.
_REASON_LENGTH_MAX = 64
_DETAIL_LENGTH_MAX = 2_000
_TRACEBACK_LENGTH_MAX = 50_000


class DeadLetterState(StrEnum):
    """Where a dead letter stands."""

    OPEN = "open"
    REPLAYED = "replayed"
    DISCARDED = "discarded"


class SettleResult(StrEnum):
    """What became of one letter that was named in a replay or a discard."""

    REPLAYED = "replayed"
    DISCARDED = "discarded"
    NOT_OPEN = "not_open"
    NOT_FOUND = "not_found"
    # Its consumer may have forgotten that it took effect: once could not be proved.
    NOT_REMEMBERED = "not_remembered"
    # Its own row cannot be read: somebody has changed it by hand.
    NOT_READABLE = "not_readable"
    # For an edited body: the message took effect, or another edited one has taken its place.
    NOT_WITHOUT_EFFECT = "not_without_effect"


class LetterEvent(StrEnum):
    """What became of a dead letter, as its history tells."""

    SET_ASIDE = "set_aside"
    REPLAYED = "replayed"
    EDITED = "edited"
    DISCARDED = "discarded"


@dataclass(frozen=True, slots=True, kw_only=True)
class SettledLetter:
    """One letter of a replay or a discard, and what became of it, or would.

    Attributes:
        message_id: The new id, where an edited body went on under one.
    """

    id: int
    result: SettleResult
    message_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A message that is set aside.

    Attributes:
        message_id: Its identity for the consumer.
        reason: Stable name, such as `out_of_tries`.
        tries: How often it was tried; 0 if never.
    """

    consumer: str
    message_id: str
    delivery: Delivery
    reason: str
    detail: str
    traceback: str | None
    tries: int
    first_received_at: Instant


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterFilter:
    """Which letters; None is any.

    Attributes:
        aggregate_id: What the message is about, as its headers tell.
        set_aside_from: Set aside at this moment or later.
        set_aside_to: Set aside before this moment.
    """

    queue: str | None = None
    reason: str | None = None
    aggregate_id: str | None = None
    set_aside_from: Instant | None = None
    set_aside_to: Instant | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LetterBatch:
    """Open letters that fit a filter, in the order in which their messages came, up to a number.

    Attributes:
        after_id: Only those that come behind this letter; None begins at the first.
    """

    which: DeadLetterFilter
    after_id: int | None = None
    count_max: int = SELECTED_COUNT_MAX


@dataclass(frozen=True, slots=True, kw_only=True)
class LetterHistoryEntry:
    """One thing that became of a letter.

    Attributes:
        reason: Why it was set aside, a stable name; or an operator's own words.
        detail: What went wrong, where it was set aside.
        tries: How often it had been tried by then.
        actor: Which operator; None where it was the kernel.
        message_id: Under which id an edited body went on.
    """

    event: LetterEvent
    at: Instant
    reason: str | None
    detail: str | None
    tries: int | None
    actor: str | None
    message_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterSummary:
    """A dead letter in a list.

    Attributes:
        type: As the sender wrote it; what was no UTF-8 is escaped.
        settled_count: How often it was replayed or discarded so far.
    """

    id: int
    consumer: str
    queue: str
    message_id: str
    type: str
    reason: str
    detail: str
    tries: int
    state: DeadLetterState
    first_received_at: Instant
    set_aside_at: Instant
    settled_at: Instant | None
    settled_count: int
    aggregate_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A dead letter whole.

    Attributes:
        sender_message_id: As the sender wrote it; None where there was none.
        headers_json: The headers as JSON; see `orderkeep.messaging.headers`.
    """

    summary: DeadLetterSummary
    sender_message_id: bytes | None
    type: bytes
    body: bytes
    headers_json: bytes
    traceback: str | None


def own_id(failure: Failure) -> str:
    """Return an identity for a message whose id another message, with other contents, has taken."""
    delivery = failure.delivery
    parts = (delivery.queue.encode(), failure.message_id.encode(), delivery.body)
    digests = b"".join(sha256(part).digest() for part in parts)
    return f"sha256:{sha256(digests).hexdigest()}"


def row_of(failure: Failure, *, message_id: str, now: Instant) -> dict[str, Value]:
    """Return the columns of a letter that is written now, under the given identity."""
    delivery = failure.delivery
    traceback = failure.traceback
    aggregate_id, sequence = place_of(delivery.headers)
    return {
        "consumer": failure.consumer,
        "queue": delivery.queue,
        "message_id": message_id,
        "sender_message_id": delivery.message_id,
        "type": _type_bytes(delivery.type),
        "body": delivery.body,
        "headers": encode_headers(delivery.headers),
        "reason": clean_start(failure.reason, length_max=_REASON_LENGTH_MAX),
        "detail": clean_start(failure.detail, length_max=_DETAIL_LENGTH_MAX),
        "traceback": traceback and clean_end(traceback, length_max=_TRACEBACK_LENGTH_MAX),
        "tries": failure.tries,
        "state": DeadLetterState.OPEN,
        "first_received_at": failure.first_received_at,
        "set_aside_at": now,
        "settled_count": 0,
        "aggregate_id": aggregate_id,
        "sequence": sequence,
    }


def _type_bytes(type_: str) -> bytes:
    try:
        return type_.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        # A surrogate that stands for no byte.
        return type_.encode("utf-8", "surrogatepass")


def summary_of(row: Row) -> DeadLetterSummary:
    """Return the letter that a row of a list tells of."""
    return DeadLetterSummary(
        id=row["id"],
        consumer=row["consumer"],
        queue=row["queue"],
        message_id=row["message_id"],
        type=row["type"].decode("utf-8", "backslashreplace"),
        reason=row["reason"],
        detail=row["detail"],
        tries=row["tries"],
        state=DeadLetterState(row["state"]),
        first_received_at=row["first_received_at"],
        set_aside_at=row["set_aside_at"],
        settled_at=row["settled_at"],
        settled_count=row["settled_count"],
        aggregate_id=row["aggregate_id"],
    )


def letter_of(row: Row) -> DeadLetter:
    """Return the letter that a whole row holds."""
    return DeadLetter(
        summary=summary_of(row),
        sender_message_id=row["sender_message_id"],
        type=row["type"],
        body=row["body"],
        headers_json=row["headers"],
        traceback=row["traceback"],
    )
