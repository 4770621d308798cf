"""A way into our queues for a foreign service without AMQP.

Invariant: a message answered 202 is in the outbox of the service that consumes it, so it reaches
its queue however often anything crashes. The same message handed in twice has the same identity,
and takes effect once. What it says is not judged here: its consumer sets aside what it cannot read.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
import structlog
from litestar import Request, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import FromPath, HeaderParameter, RawBody, SkipValidation
from litestar.types import ControllerRouterHandler

from orderkeep.contracts.caller import Caller
from orderkeep.database.transaction import Database, Transaction
from orderkeep.messaging.consumer import BadMessageError, Consumer
from orderkeep.messaging.identity import message_identity
from orderkeep.messaging.message import AGGREGATE_ID_HEADER, Event
from orderkeep.messaging.outbox import Outbox
from orderkeep.refusal import Refusal

log = structlog.get_logger()

MessageId = Annotated[
    str,
    msgspec.Meta(pattern=r"^[!-~]{1,128}$(?!\n)", description="1 to 128 visible ASCII characters."),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class InboundQueue:
    """A queue that this process consumes.

    Attributes:
        outbox: Of the service that consumes it.
        consumer: Tells what a message is known by.
        database: Holds the outbox.
    """

    outbox: Outbox
    consumer: Consumer[Any]  # each queue has its own type of body
    database: Database


InboundQueues = Mapping[str, InboundQueue]


class MessageTaken(msgspec.Struct, frozen=True, kw_only=True):
    """A message is on its way to its queue."""

    message_id: str


@post(
    "/queues/{queue:str}/messages",
    opt={"access": "messages", "goes_first": True},
    status_code=202,
    tags=["Queues"],
    summary="Hand in a message",
)
async def hand_in_message(
    request: Request[Caller, object, State],
    queue: FromPath[str],
    body: RawBody,
    inbound_queues: NamedDependency[SkipValidation[InboundQueues]],
    message_id: Annotated[MessageId | None, HeaderParameter(name="Message-Id")] = None,
) -> MessageTaken:
    """Take a message for a queue that this service consumes; any bytes, as over AMQP."""
    inbound = inbound_queues.get(queue)
    if inbound is None:
        raise Refusal("not_found", "This service consumes no queue of that name.")
    event = _event_of(body, queue=queue, inbound=inbound, message_id=message_id)

    async def work(transaction: Transaction) -> None:
        await inbound.outbox.pass_on(transaction, [event], now=await transaction.now())

    await inbound.database.transact(work)
    assert event.message_id is not None
    log.info(
        "message_handed_in",
        queue=queue,
        message_id=event.message_id,
        order_no=event.aggregate_id,
        sender=request.user.user_id,
    )
    return MessageTaken(message_id=event.message_id)


def _event_of(body: bytes, *, queue: str, inbound: InboundQueue, message_id: str | None) -> Event:
    business_key, order_no = None, ""
    try:
        decoded = inbound.consumer.decode(body)
    except BadMessageError:
        # The consumer will set it aside, with its words; here it only needs an identity.
        log.debug("message_unreadable", queue=queue)
    else:
        business_key = inbound.consumer.business_key(decoded)
        order_no = getattr(decoded, "order_no", None) or ""
    return Event(
        aggregate_id=order_no,
        sequence=0,
        type="",
        route=queue,
        body=body,
        ordered=False,
        # A retry knows what it is about from here.
        headers={AGGREGATE_ID_HEADER: order_no} if order_no else {},
        message_id=message_identity(
            queue=queue,
            body=body,
            sender_message_id=None if message_id is None else message_id.encode(),
            business_key=business_key,
        ),
    )


ROUTE_HANDLERS: list[ControllerRouterHandler] = [hand_in_message]
