"""The messages of one service as operators see them, and changes of them that are put on record.

Each service has tables of its own, maybe in a database of its own, so a row is known outside by its
service and its number: `order-17`.

Invariant: a change of rows is one transaction, in which each row that changed is put on record.
"""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from orderkeep.database.audit import Act, AuditEntry, append_audit
from orderkeep.database.transaction import Database, ReadTransaction, Transaction
from orderkeep.instant import Instant
from orderkeep.messaging.dead_letters import DeadLetters
from orderkeep.messaging.letter_settlement import LetterSettlement
from orderkeep.messaging.outbox_rows import OutboxRows
from orderkeep.messaging.sent_replay import SentReplay

_REFERENCE = re.compile(r"([a-z]+)-([1-9][0-9]{0,18})")
_NUMBER_MAX = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceMessages:
    """One service's messages."""

    service: str
    database: Database
    outbox_rows: OutboxRows
    dead_letters: DeadLetters
    letter_settlement: LetterSettlement
    sent_replay: SentReplay


class ChangedNumber(Protocol):
    """What became of one row that is known by its number within its service."""

    @property
    def id(self) -> int:
        """The number."""

    @property
    def result(self) -> str:
        """A name; of those that leave the row as it was, it begins with `not`."""


ChangedT = TypeVar("ChangedT", bound=ChangedNumber)


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """What became of one row, or would."""

    reference: str
    result: str

    @property
    def is_refused(self) -> bool:
        """Whether the row stays as it was."""
        return is_refused(self.result)


def is_refused(result: str) -> bool:
    """Return whether a result says that a row stays as it was: every such one begins with `not`."""
    return result.startswith("not_")


def resolve(
    services: Mapping[str, ServiceMessages], reference: str
) -> tuple[ServiceMessages, int] | None:
    """Return the service and the number that a reference names, or None if it names none."""
    parts = _REFERENCE.fullmatch(reference)
    if parts is None or parts[1] not in services or int(parts[2]) > _NUMBER_MAX:
        return None
    return services[parts[1]], int(parts[2])


def numbers_by_service(
    services: Mapping[str, ServiceMessages], references: Sequence[str]
) -> dict[str, list[int]]:
    """Return the numbers that references name, by service; what names nothing is left out."""
    numbers: dict[str, list[int]] = {}
    for reference in references:
        resolved = resolve(services, reference)
        if resolved is not None:
            numbers.setdefault(resolved[0].service, []).append(resolved[1])
    return numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedChange:
    """A change and how it goes on record.

    Attributes:
        action: Its stable name, such as `outbox.retry`.
        detail: What else the record tells of each row.
        is_dry_run: Only tell what would become of each.
    """

    act: Act
    action: str
    is_dry_run: bool
    detail: Mapping[str, object]


async def apply_on_record(
    one: ServiceMessages,
    change: RecordedChange,
    *,
    work: Callable[[Transaction, Instant], Awaitable[Sequence[ChangedT]]],
    preview: Callable[[ReadTransaction], Awaitable[Sequence[ChangedT]]],
    told: Callable[[ChangedT], Mapping[str, object]] = lambda _row: {},
) -> Sequence[ChangedT]:
    """Make the change and put it on record in one transaction, or only tell what it would do.

    Args:
        one: Whose rows are changed.
        change: How it goes on record.
        work: Makes it.
        preview: Tells what it would do.
        told: What the record tells of one row, besides the change's own detail.
    """

    async def act(transaction: Transaction) -> Sequence[ChangedT]:
        now = await transaction.now()
        rows = await work(transaction, now)
        entries = [
            AuditEntry(
                act=change.act,
                action=change.action,
                subject=f"{one.service}-{row.id}",
                detail={**told(row), **change.detail},
            )
            for row in rows
            if not is_refused(row.result)
        ]
        await append_audit(transaction, entries, now=now)
        return rows

    if change.is_dry_run:
        return await one.database.read(preview)
    return await one.database.transact(act)
