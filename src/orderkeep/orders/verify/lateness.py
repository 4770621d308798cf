"""Liveness: what is later than it should be, or waits for an operator."""

from collections.abc import Sequence

from sqlalchemy import bindparam, select

from orderkeep.database.statement import DatabaseNow, Statement, written_out
from orderkeep.database.transaction import ReadTransaction
from orderkeep.instant import MICROSECONDS_PER_SECOND
from orderkeep.messaging.receipts import Receipts
from orderkeep.messaging.tables import ServiceTables
from orderkeep.orders.order import Status
from orderkeep.orders.tables import ORDERS
from orderkeep.orders.verify.check import SHOWN_PER_INVARIANT_MAX, Finding

_OVERDUE = Statement(
    select(ORDERS.c.order_no.label("subject"))
    .where(
        ORDERS.c.status == written_out(Status.PENDING_PAYMENT.value),
        ORDERS.c.expires_at <= DatabaseNow() - bindparam("late_us"),
    )
    .order_by(ORDERS.c.expires_at)
    .limit(SHOWN_PER_INVARIANT_MAX)
)


async def find_lateness(
    transaction: ReadTransaction,
    *,
    overdue_s: float,
    outboxes: Sequence[ServiceTables],
    outbox_age_s: float,
) -> list[Finding]:
    """Return what is later than it should be.

    Args:
        overdue_s: Past its deadline, an order may stay unpaid for so long: grace and sweep.
        outboxes: The services whose outboxes are looked at.
        outbox_age_s: For so long a row that may go may stay pending.
    """
    findings: list[Finding] = []
    overdue = await transaction.fetch_all(
        _OVERDUE, late_us=round(overdue_s * MICROSECONDS_PER_SECOND)
    )
    if overdue:
        findings.append(
            Finding(
                invariant="closed-in-time",
                says="no order stays unpaid past deadline, sweep interval and grace",
                subjects=tuple(row["subject"] for row in overdue),
                remedy="see that a worker runs: `orderkeep status`",
            )
        )
    for tables in outboxes:
        rows = await transaction.fetch_all(
            _old_pending(tables), late_us=round(outbox_age_s * MICROSECONDS_PER_SECOND)
        )
        if rows:
            findings.append(
                Finding(
                    invariant=f"{tables.service}-outbox-sent-in-time",
                    says="no event that may go stays in the outbox for long",
                    subjects=tuple(str(row["subject"]) for row in rows),
                    remedy="see that a dispatcher runs and its broker is up: `orderkeep status`",
                )
            )
        parked = await transaction.fetch_all(_parked(tables))
        if parked:
            findings.append(
                Finding(
                    invariant=f"{tables.service}-outbox-none-parked",
                    says="no event is parked, and holds up those behind it",
                    subjects=tuple(str(row["subject"]) for row in parked),
                    remedy="`orderkeep outbox list --state failed` says why; then retry it, or"
                    " discard it",
                )
            )
    return findings


def find_missing(receipts: Sequence[Receipts]) -> list[Finding]:
    """Return what was sent and has not reached its consumer."""
    return [
        Finding(
            invariant=f"{each.queue}-received",
            says=f"each event that was sent reaches its consumer; {each.missing_count} of"
            f" {each.sent_count} have not",
            subjects=each.missing,
            remedy=f"see that a worker reads {each.queue}: `orderkeep status`; what a broker lost"
            " is sent again by itself",
        )
        for each in receipts
        if each.missing_count
    ]


def _old_pending(tables: ServiceTables) -> Statement:
    outbox = tables.outbox
    return Statement(
        select(outbox.c.message_id.label("subject"))
        .where(
            outbox.c.state == written_out("pending"),
            outbox.c.not_before <= DatabaseNow() - bindparam("late_us"),
        )
        .order_by(outbox.c.not_before)
        .limit(SHOWN_PER_INVARIANT_MAX)
    )


def _parked(tables: ServiceTables) -> Statement:
    outbox = tables.outbox
    return Statement(
        select(outbox.c.message_id.label("subject"))
        .where(outbox.c.state == written_out("failed"))
        .order_by(outbox.c.id)
        .limit(SHOWN_PER_INVARIANT_MAX)
    )
