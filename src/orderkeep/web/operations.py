"""What operators see of messages, and what they do about them, over every service at once.

A list goes through the services in their order, newest first in each. A change is one transaction
for each service, in which it is also put on record: should the second fail, the first stands, and
asking again changes what is left.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeAlias, TypeVar

from orderkeep.contracts.page import decode_cursor, encode_cursor
from orderkeep.database.audit import Act
from orderkeep.database.transaction import ReadTransaction
from orderkeep.messaging.dead_letter import (
    DeadLetter,
    DeadLetterFilter,
    DeadLetterState,
    DeadLetterSummary,
    LetterHistoryEntry,
    SettledLetter,
    SettleResult,
)
from orderkeep.messaging.outbox_rows import (
    ChangedRow,
    OutboxFilter,
    OutboxRow,
    OutboxState,
    WholeOutboxRow,
)
from orderkeep.refusal import Refusal
from orderkeep.web.service_messages import (
    Changed,
    RecordedChange,
    ServiceMessages,
    apply_on_record,
    numbers_by_service,
    resolve,
)


class Numbered(Protocol):
    """Anything that has a number within its service."""

    @property
    def id(self) -> int:
        """The number."""


RowT = TypeVar("RowT", bound=Numbered)
FilterT = TypeVar("FilterT")

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

    def recorded(self, action: str) -> RecordedChange:
        """Return how the change goes on record under the action."""
        return RecordedChange(act=self.act, action=action, is_dry_run=self.is_dry_run, detail={})


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundLetter:
    """A dead letter whole, its service, and what became of it, the oldest first."""

    service: str
    letter: DeadLetter
    history: tuple[LetterHistoryEntry, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundOutboxRow:
    """An outbox row whole, and its service."""

    service: str
    whole: WholeOutboxRow


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

    async def find_outbox_row(self, reference: str) -> FoundOutboxRow | None:
        """Return an outbox row whole, or None if there is none so called."""
        found = resolve(self._services, reference)
        if found is None:
            return None
        one, number = found
        whole = await one.database.read(
            lambda transaction: one.outbox_rows.find(transaction, number)
        )
        return None if whole is None else FoundOutboxRow(service=one.service, whole=whole)

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

    async def find_dead_letter(self, reference: str) -> FoundLetter | None:
        """Return a dead letter whole, or None if there is none so called."""
        found = resolve(self._services, reference)
        if found is None:
            return None
        one, number = found

        async def work(transaction: ReadTransaction) -> FoundLetter | None:
            letter = await one.dead_letters.find(transaction, number)
            if letter is None:
                return None
            history = await one.dead_letters.history(transaction, number)
            return FoundLetter(service=one.service, letter=letter, history=tuple(history))

        return await one.database.read(work)

    async def retry_outbox(self, change: Change[OutboxFilter]) -> list[Changed]:
        """Let parked rows go again."""

        async def apply(
            one: ServiceMessages, selection: Selection[OutboxFilter]
        ) -> Sequence[ChangedRow]:
            rows = one.outbox_rows
            return await apply_on_record(
                one,
                change.recorded("outbox.retry"),
                work=lambda transaction, now: rows.retry(transaction, selection, now=now),
                preview=lambda transaction: rows.preview_retry(transaction, selection),
                told=lambda row: row.told,
            )

        return await self._change(change, apply)

    async def discard_outbox(self, change: Change[OutboxFilter]) -> list[Changed]:
        """Give up rows that were not sent; a filter takes parked ones unless it says otherwise."""

        async def apply(
            one: ServiceMessages, selection: Selection[OutboxFilter]
        ) -> Sequence[ChangedRow]:
            rows = one.outbox_rows
            return await apply_on_record(
                one,
                change.recorded("outbox.discard"),
                work=lambda transaction, now: rows.discard(transaction, selection, now=now),
                preview=lambda transaction: rows.preview_discard(transaction, selection),
                told=lambda row: row.told,
            )

        return await self._change(change, apply)

    async def discard_dead_letters(self, change: Change[DeadLetterFilter]) -> list[Changed]:
        """Close dead letters without another try."""

        async def apply(
            one: ServiceMessages, selection: Selection[DeadLetterFilter]
        ) -> Sequence[SettledLetter]:
            letters = one.letter_settlement
            return await apply_on_record(
                one,
                change.recorded("dead_letters.discard"),
                work=lambda transaction, now: letters.discard(
                    transaction, selection, now=now, act=change.act
                ),
                preview=lambda transaction: letters.preview_discard(transaction, selection),
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
        numbers = numbers_by_service(self._services, change.references)
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
