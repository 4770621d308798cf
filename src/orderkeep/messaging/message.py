"""What travels: an event on its way out, a message at a broker, a delivery on its way in."""

from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct, field

from orderkeep.instant import Instant

# Headers of the contract; see docs/reference/messages.md.
SCHEMA_VERSION_HEADER = "x-schema-version"
AGGREGATE_ID_HEADER = "x-aggregate-id"
SEQUENCE_HEADER = "x-sequence"

# Headers of ours, on a message that the kernel sends back to its own queue for another try: the
# number of the coming try, how many of the tries so far failed (waiting is not failing), and when
# the consumer first had the message in hand, in microseconds since 1970 UTC.
ATTEMPT_HEADER = "x-orderkeep-attempt"
FAILED_TRIES_HEADER = "x-orderkeep-failed-tries"
FIRST_RECEIVED_HEADER = "x-orderkeep-first-received-at"
RETRY_HEADERS = frozenset({ATTEMPT_HEADER, FAILED_TRIES_HEADER, FIRST_RECEIVED_HEADER})

# On a message whose body an operator edited: the id of the message that it stands for.
EDITED_FROM_HEADER = "x-orderkeep-edited-from"

HeaderValue = str | int | float | bool | None
Headers = Mapping[str, HeaderValue]


class Event(Struct, frozen=True, kw_only=True):
    """An event that a use case appends to its outbox, to leave once the transaction commits.

    Attributes:
        aggregate_id: What the event is about: an order number, or a cart's user.
        sequence: Rises with each event of this aggregate from this service. The transaction that
            appends has raised the aggregate's counter first, under its row lock: that is what
            makes the order of sequences the order of commits.
        type: The event's name, such as `order.paid`.
        route: The name of an exchange or a queue in the topology.
        body: UTF-8 JSON; or any bytes, when a foreign message is passed on.
        ordered: Leaves after all earlier ordered events of the same aggregate and route.
        deliver_at: The broker shall hold it until then; None is at once.
        not_before: The outbox shall hold it until then; None is at once.
        message_id: None lets the outbox draw one; set where the event has an identity already.
        retry_key: Names one try of one message for one consumer, or one replay: a second row with
            the same key is dropped, so what is asked for twice is sent once.
        why: For a try: why the message comes again, as operators read it.
        headers: What travels besides the contract's own headers.
    """

    aggregate_id: str
    sequence: int
    type: str
    route: str
    body: bytes
    ordered: bool = True
    deliver_at: Instant | None = None
    not_before: Instant | None = None
    message_id: str | None = None
    retry_key: str | None = None
    why: str | None = None
    headers: Headers = field(default_factory=dict)


class Message(Struct, frozen=True, kw_only=True):
    """A message handed to a broker.

    Attributes:
        order_key: Messages of one queue with the same key are handed out in the order they came,
            one at a time; None is free.
        published_at: When the event was appended.
    """

    route: str
    message_id: str
    type: str
    body: bytes
    headers: Headers
    published_at: Instant
    deliver_at: Instant | None = None
    order_key: str | None = None


class PublishResult(StrEnum):
    """What a broker made of one message."""

    CONFIRMED = "confirmed"
    # The route's fault: broker away, queue missing, nack, return. Costs the message nothing.
    ROUTE_DOWN = "route_down"
    # The message's own fault: it alone is refused while others pass.
    REFUSED = "refused"
    # The broker cannot hold it until `deliver_at`, so the outbox shall. Costs the message nothing.
    NOT_HELD = "not_held"


class PublishOutcome(Struct, frozen=True, kw_only=True):
    """What a broker made of one message, and its words where it was not confirmed."""

    result: PublishResult
    detail: str = ""


class Delivery(Struct, frozen=True, kw_only=True):
    """A message as a broker hands it out: from anyone, so nothing in it can be trusted.

    Attributes:
        tag: The broker's own handle for it.
        message_id: As the sender wrote it, any bytes; None when there is none.
        type: As the sender wrote it, for the dead-letter list only; bytes that are no UTF-8 stand
            in it as lone surrogates (`surrogateescape`).
        headers: As the sender wrote them. A broker may hand out values of other kinds than its
            senders may give: they are kept and shown, never trusted.
        redelivered: It was handed out before and not acknowledged: its consumer may have died.
    """

    queue: str
    tag: int
    body: bytes
    message_id: bytes | None
    type: str
    headers: Headers
    redelivered: bool
