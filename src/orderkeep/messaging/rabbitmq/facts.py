"""What was seen at RabbitMQ: addresses, queues, exchanges, rights. PURE."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from orderkeep.messaging.rabbitmq.options import WrongTopologyError

# The name by which rights speak of the default exchange.
DEFAULT_EXCHANGE_IN_RIGHTS = "amq.default"

ArgumentValue = str | int | bool | None

_INEQUIVALENT = re.compile(
    r"inequivalent arg '(?P<name>[^']+)' for .+: received (?:.+) but current is (?P<current>.+)$"
)
_TYPED_VALUE = re.compile(r"the value '(?P<text>.*)' of type '(?P<type>\w+)'$")
_REFUSED = re.compile(r"access to (?P<kind>queue|exchange|topic) '(?P<name>[^']*)'")

_NUMBER_TYPES = frozenset(
    {"signedint", "unsignedint", "long", "short", "unsignedshort", "byte", "unsignedbyte"}
)


class Right(StrEnum):
    """What a user may do with a queue or an exchange, in RabbitMQ's words."""

    CONFIGURE = "configure"
    WRITE = "write"
    READ = "read"


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressFacts:
    """One address of the broker.

    Attributes:
        address: As it may be shown: without the password.
        error: Why there is no connection, or None where there was.
        cluster: What the broker's cluster is called, if it says.
    """

    address: str
    host: str
    is_encrypted: bool
    error: str | None = None
    product: str = ""
    version: str = ""
    cluster: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ArgumentDifference:
    """One argument of a queue that is not as we would declare it; None is that there is none."""

    name: str
    ours: ArgumentValue
    theirs: ArgumentValue


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueFacts:
    """One queue.

    Attributes:
        message_count: Messages that wait; None where there is no queue.
        consumer_count: Who consume it.
        differences: From what we would declare.
        refused: Rights that we need and do not have.
        unclear: What the broker said that we do not understand, or None.
    """

    name: str
    message_count: int | None
    consumer_count: int = 0
    differences: tuple[ArgumentDifference, ...] = ()
    refused: frozenset[Right] = field(default_factory=frozenset)
    unclear: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeFacts:
    """One exchange.

    Attributes:
        wanted_type: As we would declare it.
        type: As it is; None where there is none.
        refused: Rights that we need and do not have.
        unclear: What the broker said that we do not understand, or None.
    """

    name: str
    wanted_type: str
    type: str | None
    refused: frozenset[Right] = field(default_factory=frozenset)
    unclear: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerFacts:
    """What was seen over the first address that answers.

    Attributes:
        user: Whose rights were looked at.
        vhost: Where.
        exchanges: Ours, and the default one by the name that rights have for it.
        plugin_error: Why there are no delayed message exchanges; None where there are, or where
            nobody asked.
        stray_binding: What is bound past the hold queue; None where nothing is, or nobody asked.
        lost: Why the look ended early, or None.
    """

    user: str
    vhost: str
    queues: tuple[QueueFacts, ...] = ()
    exchanges: tuple[ExchangeFacts, ...] = ()
    plugin_error: WrongTopologyError | None = None
    stray_binding: WrongTopologyError | None = None
    lost: str | None = None


def differing_argument(
    text: str, *, ours: Mapping[str, object]
) -> tuple[str, ArgumentValue] | None:
    """Return the argument that the broker says is different, and what it is there.

    Args:
        text: Of its refusal of a declaration.
        ours: The arguments that were declared. Where only the value differs the broker leaves out
            its type, which is that of ours.

    Returns:
        None where the text says something else.
    """
    found = _INEQUIVALENT.search(text)
    if found is None:
        return None
    theirs = _value(found["current"])
    declared = ours.get(found["name"])
    if isinstance(theirs, str) and isinstance(declared, int):
        theirs = theirs == "true" if isinstance(declared, bool) else int(theirs)
    return found["name"], theirs


def refused_kind(text: str) -> str | None:
    """Return whether it is the `queue` or the `exchange` that a refusal speaks of."""
    found = _REFUSED.search(text)
    return None if found is None else found["kind"]


def plain_value(value: object) -> ArgumentValue:
    """Return the value of an argument of ours as the broker would tell it."""
    return value if value is None or isinstance(value, str | int) else str(value)


def _value(text: str) -> ArgumentValue:
    if text == "none":
        return None
    typed = _TYPED_VALUE.search(text)
    if typed is None:
        # Of the type that was declared: '20', 'direct', ''x-delayed-message''.
        return text.strip("'")
    if typed["type"] in _NUMBER_TYPES:
        return int(typed["text"])
    if typed["type"] == "bool":
        return typed["text"] == "true"
    return typed["text"]
