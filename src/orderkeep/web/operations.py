"""What operators see of messages, and what they do about them, over every service at once.

Each service has tables of its own, maybe in a database of its own, so a row is known outside by its
service and its number: `order-17`. A list goes through the services in their order, newest first in
each. A change is one transaction for each service, in which it is also put on record: should the
second fail, the first stands, and asking again changes what is left.
"""

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeAlias, TypeVar

from orderkeep.contracts.page import decode_cursor, encode_cursor
from orderkeep.database.audit import Act, AuditEntry, append_audit
from orderkeep.database.transaction import Database, ReadTransaction, Transaction
from orderkeep.instant import Instant
from orderkeep.messaging.dead_letter import (
    DeadLetter,
    DeadLetterFilter,
    DeadLetterState,
    DeadLetterSummary,
    SettledLetter,
    SettleResult,
)
from orderkeep.messaging.dead_letters import DeadLetters
from orderkeep.messaging.outbox_rows import (
    ChangedRow,
    OutboxFilter,
    OutboxRow,
    OutboxRows,
    OutboxState,
)
from orderkeep.refusal import Refusal

_REFERENCE = re.compile(r"([a-z]+)-([1-9][0-9]{0,18})")
_NUMBER_MAX = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceMessages:
    """One service's messages."""

    service: str
    database: Database
    outbox_rows: OutboxRows
    dead_letters: DeadLetters


class Numbered(Protocol):
    """Anything that has a number within its service."""

    @property
    def id(self) -> int:
        """The number."""


RowT = TypeVar("RowT", bound=Numbered)
FilterT = TypeVar("FilterT")
RowsT = TypeVar("RowsT", bound=Sequence[ChangedRow] | Sequence[SettledLetter])

# What a change is asked for: numbers of one service, or a filter.
Selection: TypeAlias = Sequence[int] | FilterT


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceRow(Generic[RowT]):
    """A row and the service it belongs to."""

    service: str
    row: RowT

    @property
    def reference(self) -> str:
        """What the row is known by outside."""
        return f"{self.service}-{self.row.id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[RowT]):
    """A page of a list; next_cursor is None at the end."""

    rows: tuple[ServiceRow[RowT], ...]
    next_cursor: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Change(Generic[FilterT]):
    """What shall be changed: the rows that are named, or those that a filter finds.

    Attributes:
        references: Such as `order-17`; None where the filter tells.
        service: The filter's service; None is every one.
        is_dry_run: Only tell what would become of each.
        act: Who asks for it, and why.
    """

    references: tuple[str, ...] | None
    filter: FilterT
    service: str | None
    is_dry_run: bool
    act: Act


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """What became of one row, or would."""

    reference: str
    result: str

    @property
    def is_refused(self) -> bool:
        """Whether the row stays as it was; every such result begins with `not`."""
        return is_refused(self.result)


def is_refused(result: str) -> bool:
    """Return whether a result says that a row stays as it was."""
    return result.startswith("not_")


class OperationsDesk:
    """The edge of what operators do with messages: opens each transaction, commits it once."""

    def __init__(self, services: Sequence[ServiceMessages]) -> None:
        """Serve the given services, in their order."""
        self._services = {one.service: one for one in services}

    async def list_outbox(
        self, *, state: OutboxState, service: str | None, cursor: str | None, limit: int
    ) -> Page[OutboxRow]:
        """Return outbox rows in the given state.

        Raises:
            Refusal: `invalid_cursor`.
        """

        async def read(one: ServiceMessages, before_id: int | None, count: int) -> list[OutboxRow]:
            async def work(transaction: ReadTransaction) -> list[OutboxRow]:
                return await one.outbox_rows.list_page(
                    transaction, state=state, before_id=before_id, limit=count
                )

            return await one.database.read(work)

        return await self._page(read, service=service, cursor=cursor, limit=limit)

    async def list_dead_letters(
        self,
        *,
        state: DeadLetterState,
        which: DeadLetterFilter,
        service: str | None,
        cursor: str | None,
        limit: int,
    ) -> Page[DeadLetterSummary]:
        """Return dead letters in the given state.

        Raises:
            Refusal: `invalid_cursor`.
        """

        async def read(
            one: ServiceMessages, before_id: int | None, count: int
        ) -> list[DeadLetterSummary]:
            async def work(transaction: ReadTransaction) -> list[DeadLetterSummary]:
                return await one.dead_letters.list_page(
                    transaction, state=state, which=which, before_id=before_id, limit=count
                )

            return await one.database.read(work)

        return await self._page(read, service=service, cursor=cursor, limit=limit)

    async def find_dead_letter(self, reference: str) -> tuple[str, DeadLetter] | None:
        """Return a dead letter whole and its service, or None if there is none so called."""
        found = self._resolve(reference)
        if found is None:
            return None
        one, number = found

        async def work(transaction: ReadTransaction) -> DeadLetter | None:
            return await one.dead_letters.find(transaction, number)

        letter = await one.database.read(work)
        return None if letter is None else (one.service, letter)

    async def retry_outbox(self, change: Change[OutboxFilter]) -> list[Changed]:
        """Let parked rows go again."""

        async def apply(
            one: ServiceMessages, selection: Selection[OutboxFilter]
        ) -> Sequence[ChangedRow]:
            rows = one.outbox_rows
            return await _apply(
                one,
                change,
                action="outbox.retry",
                work=lambda transaction, now: rows.retry(transaction, selection, now=now),
                preview=lambda transaction: rows.preview_retry(transaction, selection),
            )

        return await self._change(change, apply)

    async def discard_outbox(self, change: Change[OutboxFilter]) -> list[Changed]:
        """Give up rows that were not sent."""

        async def apply(
            one: ServiceMessages, selection: Selection[OutboxFilter]
        ) -> Sequence[ChangedRow]:
            rows = one.outbox_rows
            return await _apply(
                one,
                change,
                action="outbox.discard",
                work=lambda transaction, now: rows.discard(transaction, selection, now=now),
                preview=lambda transaction: rows.preview_discard(transaction, selection),
            )

        return await self._change(change, apply)

    async def replay_dead_letters(self, change: Change[DeadLetterFilter]) -> list[Changed]:
        """Send dead letters to their queues again."""

        async def apply(
            one: ServiceMessages, selection: Selection[DeadLetterFilter]
        ) -> Sequence[SettledLetter]:
            letters, result = one.dead_letters, SettleResult.REPLAYED
            return await _apply(
                one,
                change,
                action="dead_letters.replay",
                work=lambda transaction, now: letters.replay(transaction, selection, now=now),
                preview=lambda transaction: letters.preview(transaction, selection, result=result),
            )

        return await self._change(change, apply)

    async def discard_dead_letters(self, change: Change[DeadLetterFilter]) -> list[Changed]:
        """Close dead letters without another try."""

        async def apply(
            one: ServiceMessages, selection: Selection[DeadLetterFilter]
        ) -> Sequence[SettledLetter]:
            letters, result = one.dead_letters, SettleResult.DISCARDED
            return await _apply(
                one,
                change,
                action="dead_letters.discard",
                work=lambda transaction, now: letters.discard(transaction, selection, now=now),
                preview=lambda transaction: letters.preview(transaction, selection, result=result),
            )

        return await self._change(change, apply)

    async def _page(
        self,
        read: Callable[[ServiceMessages, int | None, int], Awaitable[Sequence[RowT]]],
        *,
        service: str | None,
        cursor: str | None,
        limit: int,
    ) -> Page[RowT]:
        names = [name for name in self._services if service in {None, name}]
        before_id: int | None = None
        if cursor is not None:
            first, before_id = decode_cursor(cursor, str, int)
            if first not in names:
                raise Refusal(
                    "invalid_cursor", "the cursor is not one this list gave out; begin again"
                )
            names = names[names.index(first) :]
        found: list[ServiceRow[RowT]] = []
        for name in names:
            # One more than fits tells whether there is a next page.
            rows = await read(self._services[name], before_id, limit + 1 - len(found))
            found.extend(ServiceRow(service=name, row=row) for row in rows)
            before_id = None
            if len(found) > limit:
                last = found[limit - 1]
                return Page(
                    rows=tuple(found[:limit]),
                    next_cursor=encode_cursor(last.service, last.row.id),
                )
        return Page(rows=tuple(found), next_cursor=None)

    async def _change(
        self,
        change: Change[FilterT],
        apply: Callable[
            [ServiceMessages, Selection[FilterT]], Awaitable[Sequence[ChangedRow | SettledLetter]]
        ],
    ) -> list[Changed]:
        if change.references is None:
            return [
                Changed(reference=f"{name}-{row.id}", result=row.result)
                for name, one in self._services.items()
                if change.service in {None, name}
                for row in await apply(one, change.filter)
            ]
        numbers: dict[str, list[int]] = {}
        for reference in change.references:
            resolved = self._resolve(reference)
            if resolved is not None:
                numbers.setdefault(resolved[0].service, []).append(resolved[1])
        results = {
            f"{name}-{row.id}": row.result
            for name in self._services
            if name in numbers
            for row in await apply(self._services[name], numbers[name])
        }
        return [
            Changed(reference=one, result=results.get(one, SettleResult.NOT_FOUND))
            for one in dict.fromkeys(change.references)
        ]

    def _resolve(self, reference: str) -> tuple[ServiceMessages, int] | None:
        parts = _REFERENCE.fullmatch(reference)
        if parts is None or parts[1] not in self._services or int(parts[2]) > _NUMBER_MAX:
            return None
        return self._services[parts[1]], int(parts[2])


async def _apply(
    one: ServiceMessages,
    change: Change[FilterT],
    *,
    action: str,
    work: Callable[[Transaction, Instant], Awaitable[RowsT]],
    preview: Callable[[ReadTransaction], Awaitable[RowsT]],
) -> RowsT:
    """Make the change and put it on record in one transaction, or only tell what it would do."""

    async def act(transaction: Transaction) -> RowsT:
        now = await transaction.now()
        rows = await work(transaction, now)
        entries = [
            AuditEntry(act=change.act, action=action, subject=f"{one.service}-{row.id}")
            for row in rows
            if not is_refused(row.result)
        ]
        await append_audit(transaction, entries, now=now)
        return rows

    if change.is_dry_run:
        return await one.database.read(preview)
    return await one.database.transact(act)
