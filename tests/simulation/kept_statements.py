"""Statements made once, and not again by each simulated process.

A process is started thousands of times here, and each time the product would compile the same SQL
again, which takes longer than all else that a small world does. What holds only statements is the
same object in every process; what holds more is a copy of the first, with its own of the rest.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from copy import copy
from functools import cache
from typing import Any
from unittest.mock import patch

from orderkeep.messaging import delivery, dispatcher, reconciliation, settling
from orderkeep.messaging.dead_letters import DeadLetters
from orderkeep.messaging.delivery_attempts import DeliveryAttempts
from orderkeep.messaging.inbox import Inbox
from orderkeep.messaging.letter_settlement import LetterSettlement
from orderkeep.messaging.outbox import Outbox
from orderkeep.messaging.outbox_reading import OutboxReading
from orderkeep.messaging.outbox_rows import OutboxRows
from orderkeep.messaging.sent_events import SentEvents
from orderkeep.messaging.signal import Signal
from orderkeep.messaging.tables import ServiceTables
from orderkeep.orders import desk
from orderkeep.wiring import storage

_first_of: dict[tuple[type, ServiceTables], Any] = {}

# They hold nothing but statements.
_inboxes = cache(Inbox)
_readings = cache(OutboxReading)
_attempts = cache(DeliveryAttempts)


@cache
def _sent_events(sender: Any, receiver: Any, *, routes: tuple[str, ...]) -> SentEvents:
    return SentEvents(sender, receiver, routes=routes)


@contextmanager
def kept_statements() -> Iterator[None]:
    """Let what is built in this context take the statements that were made before."""
    with ExitStack() as patches:
        for module, name, made in (
            (settling, "Inbox", _inboxes),
            (settling, "DeadLetters", _dead_letters_of),
            (dispatcher, "OutboxReading", _readings),
            (delivery, "DeliveryAttempts", _attempts),
            (reconciliation, "SentEvents", _sent),
            (desk, "OutboxRows", _rows_of),
            (storage, "Outbox", _outbox_of),
        ):
            patches.enter_context(patch.object(module, name, made))
        yield


def settlement_of(outbox: Outbox) -> LetterSettlement:
    """Return what settles the dead letters beside the outbox."""
    settlement = copy(_first(LetterSettlement, outbox.tables, lambda: LetterSettlement(outbox)))
    settlement._outbox = outbox
    return settlement


def _dead_letters_of(outbox: Outbox) -> DeadLetters:
    letters: DeadLetters = _first(DeadLetters, outbox.tables, lambda: DeadLetters(outbox))
    return letters


def _rows_of(outbox: Outbox) -> OutboxRows:
    rows = copy(_first(OutboxRows, outbox.tables, lambda: OutboxRows(outbox)))
    rows._appended = outbox.appended
    return rows


def _outbox_of(
    tables: ServiceTables, *, new_message_id: Callable[[], str], unused_routes: frozenset[str]
) -> Outbox:
    outbox = copy(
        _first(
            Outbox,
            tables,
            lambda: Outbox(tables, new_message_id=lambda: "", unused_routes=frozenset()),
        )
    )
    outbox.appended = Signal()
    outbox._new_message_id = new_message_id
    outbox._unused_routes = unused_routes
    return outbox


def _sent(sender: Any, receiver: Any, *, routes: Any) -> SentEvents:
    return _sent_events(sender, receiver, routes=tuple(routes))


def _first(made_class: type, tables: ServiceTables, make: Callable[[], Any]) -> Any:
    key = (made_class, tables)
    if key not in _first_of:
        _first_of[key] = make()
    return _first_of[key]
