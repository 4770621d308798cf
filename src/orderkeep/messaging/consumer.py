"""What a consumer is: a queue, a way to read its messages, and a handler for a batch of them."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

from msgspec import Struct

from orderkeep.database.transaction import Transaction
from orderkeep.instant import Instant

Body = TypeVar("Body")


class BadMessageError(Exception):
    """A message that can never be handled, whatever the time: it is set aside at once.

    Attributes:
        reason: Stable name, such as `malformed_json` or `invalid_body`.
        detail: What is wrong and where, for a person.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class Received(Struct, Generic[Body], frozen=True, kw_only=True):
    """A message that was read and is new to this consumer.

    Attributes:
        message_id: Its identity: the sender's message id, else the business key, else a hash.
        attempt: 1 for the first try; rises with each retry.
        first_received_at: When this consumer first had it in hand, by the database's clock.
    """

    message_id: str
    body: Body
    attempt: int
    first_received_at: Instant


class Handled(Struct, frozen=True, kw_only=True):
    """The message took its effect, or needs none."""


class TryLater(Struct, frozen=True, kw_only=True):
    """The message had no effect and shall come again after a growing pause.

    The handler answers so only for a bounded time, by `Received.first_received_at`: the kernel does
    not count it against the limit of tries.
    """

    reason: str
    detail: str


class SetAside(Struct, frozen=True, kw_only=True):
    """The message had no effect and never will; it becomes a dead letter."""

    reason: str
    detail: str


Outcome: TypeAlias = Handled | TryLater | SetAside

HANDLED = Handled()


@dataclass(frozen=True, slots=True, kw_only=True)
class Consumer(Generic[Body]):
    """A consumer of one queue.

    Attributes:
        name: Names it in the inbox; never changes, or everything would be new to it again.
        decode: Reads a body. Raises `BadMessageError` for what it cannot take.
        business_key: The identity of a body that came without a message id, or None.
        handle: Takes effect for the whole batch inside the given transaction and returns one
            outcome for each message, in order. It may meet two messages about one aggregate in a
            batch. An exception rolls the batch back; its messages are then tried one by one.
    """

    name: str
    queue: str
    decode: Callable[[bytes], Body]
    business_key: Callable[[Body], str | None]
    handle: Callable[[Transaction, Sequence[Received[Body]]], Awaitable[Sequence[Outcome]]]
