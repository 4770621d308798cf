"""What becomes of outbox rows once the broker has answered: sent, tried again later, or parked.

Invariant: a row is written as `sent` only where the broker has confirmed it. What the broker
refused of a row by itself costs the row a try, and after the last it is parked; what is its route's
fault costs it nothing, and is written beside it for whoever looks. A crash before the commit leaves
every row pending.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog

from orderkeep.database.transaction import Session, Transaction
from orderkeep.instant import Instant, after
from orderkeep.messaging.message import PublishOutcome, PublishResult
from orderkeep.messaging.outbox_reading import OutboxReading, PendingRow, Refused
from orderkeep.messaging.retry_schedule import pause_before_attempt

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatchPolicy:
    """How a dispatcher goes about it.

    Attributes:
        poll_interval_s: How often it looks without being woken.
        batch_size: How many rows it reads and publishes at once.
        refusals_max: After so many refusals a row is parked.
        retry_base_s: The mean of the first pause after a refusal.
        retry_max_s: No pause after a refusal is longer.
        route_pause_base_s: The mean of the first pause of a route that is down. It grows, but not
            far: when the route is back, its events shall not wait for the dispatcher to notice.
        route_pause_max_s: No pause of a route is longer.
    """

    poll_interval_s: float = 5.0
    batch_size: int = 100
    refusals_max: int = 16
    retry_base_s: float = 1.0
    retry_max_s: float = 300.0
    route_pause_base_s: float = 0.5
    route_pause_max_s: float = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """A batch of rows, sorted by what the broker made of them.

    Attributes:
        postponed: Rows that wait here until their time, because the broker cannot hold them.
        refused: With what the broker said.
        down: What was said of each route that is down.
        held_back: The ids of each such route's rows: they stay pending, and say why.
    """

    sent: list[PendingRow] = field(default_factory=list)
    postponed: list[PendingRow] = field(default_factory=list)
    refused: list[tuple[PendingRow, str]] = field(default_factory=list)
    down: dict[str, str] = field(default_factory=dict)
    held_back: dict[str, list[int]] = field(default_factory=dict)

    @property
    def settled_count(self) -> int:
        """How many rows something became of."""
        return len(self.sent) + len(self.postponed) + len(self.refused)

    @property
    def is_all_sent(self) -> bool:
        """Whether nothing else became of any row."""
        return not (self.postponed or self.refused or self.down)


class OutboxSettling:
    """Settles the rows of one outbox."""

    def __init__(
        self,
        reading: OutboxReading,
        *,
        policy: DispatchPolicy,
        draw_jitter: Callable[[], float],
        aggregate_name: str,
    ) -> None:
        """Settle with the statements of the reading.

        Args:
            reading: Of the same outbox.
            policy: How often a row may be refused, and how long it waits then.
            draw_jitter: Draws 0.0..1.0 for each pause.
            aggregate_name: What log lines call an aggregate, such as `order_no`.
        """
        self._reading = reading
        self._policy = policy
        self._draw_jitter = draw_jitter
        self._aggregate_name = aggregate_name

    def sorted(self, rows: Sequence[PendingRow], outcomes: Sequence[PublishOutcome]) -> Settlement:
        """Return what follows from the broker's outcome for each row."""
        settlement = Settlement()
        for row, outcome in zip(rows, outcomes, strict=True):
            match outcome.result:
                case PublishResult.CONFIRMED:
                    settlement.sent.append(row)
                case PublishResult.NOT_HELD:
                    settlement.postponed.append(row)
                case PublishResult.REFUSED:
                    settlement.refused.append((row, outcome.detail))
                case PublishResult.ROUTE_DOWN:
                    settlement.down[row.message.route] = outcome.detail
                    settlement.held_back.setdefault(row.message.route, []).append(row.id)
        return settlement

    async def write(self, session: Session, settlement: Settlement) -> None:
        """Write down at once what became of each row; what was discarded meanwhile stays so."""
        if settlement.is_all_sent:
            # As a rule. One statement needs no transaction around it.
            await self._reading.settle_sent(session, [row.id for row in settlement.sent])
        else:
            await session.transact(lambda transaction: self._write(transaction, settlement))

    async def _write(self, transaction: Transaction, settlement: Settlement) -> None:
        now = await transaction.now()
        await self._reading.settle_sent(transaction, [row.id for row in settlement.sent])
        await self._reading.postpone(transaction, [row.id for row in settlement.postponed])
        await self._reading.settle_refused(
            transaction,
            [self._refused(row, detail, now=now) for row, detail in settlement.refused],
        )
        for route, ids in sorted(settlement.held_back.items()):
            await self._reading.note_down(transaction, ids, detail=settlement.down[route])

    def log(self, settlement: Settlement) -> None:
        """Tell of each row that is settled."""
        # The services tell what happened. Each message has a line only for those who look for one;
        # for the others its fields are not even gathered.
        if _is_heard(logging.DEBUG):
            for row in settlement.sent:
                log.debug("outbox_published", **self._fields(row))
        for row, detail in settlement.refused:
            is_parked = self._is_last_refusal(row)
            event = "outbox_failed" if is_parked else "outbox_refused"
            level = log.error if is_parked else log.warning
            level(event, **self._fields(row), attempts=row.attempts + 1, detail=detail)

    def _refused(self, row: PendingRow, detail: str, *, now: Instant) -> Refused:
        pause_s = pause_before_attempt(
            row.attempts + 1,
            jitter=self._draw_jitter(),
            base_s=self._policy.retry_base_s,
            max_s=self._policy.retry_max_s,
        )
        return Refused(
            id=row.id,
            detail=detail,
            not_before=after(now, seconds=pause_s),
            is_parked=self._is_last_refusal(row),
        )

    def _is_last_refusal(self, row: PendingRow) -> bool:
        return row.attempts + 1 >= self._policy.refusals_max

    def _fields(self, row: PendingRow) -> dict[str, str]:
        return {
            "message_id": row.message.message_id,
            "type": row.message.type,
            "route": row.message.route,
            self._aggregate_name: row.aggregate_id,
        }


def _is_heard(level: int) -> bool:
    """Return whether lines of the level are written; a logger that cannot say has them written."""
    is_enabled_for = getattr(log.bind(), "is_enabled_for", None)
    return is_enabled_for is None or bool(is_enabled_for(level))
