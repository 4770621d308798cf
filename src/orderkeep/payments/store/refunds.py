"""Refunds: what was asked for, what is due to be tried, what came of it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import bindparam, func, literal_column, select, update
from sqlalchemy.dialects.postgresql import insert

from orderkeep.database.statement import RowStatement, Statement, is_any_of, row_value
from orderkeep.database.transaction import ReadTransaction, Row, Transaction, Value
from orderkeep.instant import Instant
from orderkeep.payments.payment import Refund, RefundStatus
from orderkeep.payments.tables import REFUNDS


@dataclass(frozen=True, slots=True, kw_only=True)
class DueRefund:
    """A refund that the channel is to be asked for now.

    Attributes:
        attempts: How often it was asked for before.
        received_at: When the request came, by the database's clock.
    """

    refund: Refund
    attempts: int
    received_at: Instant


# A payment is refunded once, or in a few parts.
_REFUNDS_OF_PAYMENT_MAX = 100

# Far above any batch, which is a prefetch of messages.
_REFUNDS_MAX = 10_000

# A literal: an engine chooses a partial index only by what the statement itself says.
_IS_REQUESTED = REFUNDS.c.status == literal_column("'requested'")

_FIND_REFUNDS = Statement(
    select(REFUNDS)
    .where(is_any_of(REFUNDS.c.refund_no, "refund_nos"))
    .order_by(REFUNDS.c.refund_no)
    .limit(_REFUNDS_MAX)
)
_REFUNDS_OF_TRADES = Statement(
    select(REFUNDS)
    .where(
        is_any_of(REFUNDS.c.trade_no, "trade_nos"),
        REFUNDS.c.status != RefundStatus.FAILED.value,
    )
    .order_by(REFUNDS.c.refund_no)
    .limit(_REFUNDS_MAX)
)
_REFUNDS_OF_PAYMENT = Statement(
    select(REFUNDS)
    .where(REFUNDS.c.payment_no == bindparam("payment_no"))
    .order_by(REFUNDS.c.requested_at, REFUNDS.c.refund_no)
    .limit(_REFUNDS_OF_PAYMENT_MAX)
)
_INSERT_REFUND = RowStatement(
    insert(REFUNDS)
    .values({column.name: row_value(column.name, column.type) for column in REFUNDS.c})
    .on_conflict_do_nothing(index_elements=["refund_no"])
    .returning(REFUNDS.c.refund_no)
)
_DUE_REFUNDS = Statement(
    select(REFUNDS)
    .where(_IS_REQUESTED, REFUNDS.c.next_attempt_at <= bindparam("now"))
    .order_by(REFUNDS.c.next_attempt_at, REFUNDS.c.refund_no)
    .limit(bindparam("count_max"))
)
_NEXT_DUE = Statement(
    select(func.min(REFUNDS.c.next_attempt_at).label("due_at")).where(_IS_REQUESTED)
)
# The count of attempts is the guard: of two workers that read the same row, one claims it.
_CLAIM_REFUND = RowStatement(
    update(REFUNDS)
    .where(
        REFUNDS.c.refund_no == row_value("the_refund_no", REFUNDS.c.refund_no.type),
        REFUNDS.c.attempts == row_value("old_attempts", REFUNDS.c.attempts.type),
        _IS_REQUESTED,
    )
    .values(
        attempts=REFUNDS.c.attempts + 1,
        next_attempt_at=row_value("claimed_until", REFUNDS.c.next_attempt_at.type),
    )
    .returning(REFUNDS.c.refund_no)
)
_RELEASE_REFUNDS = Statement(
    update(REFUNDS)
    .where(_IS_REQUESTED, REFUNDS.c.next_attempt_at > bindparam("now"))
    .values(next_attempt_at=bindparam("now"))
)
_POSTPONE_REFUND = RowStatement(
    update(REFUNDS)
    .where(
        REFUNDS.c.refund_no == row_value("the_refund_no", REFUNDS.c.refund_no.type),
        _IS_REQUESTED,
    )
    .values(next_attempt_at=row_value("new_attempt_at", REFUNDS.c.next_attempt_at.type))
)
_FINISH_REFUND = RowStatement(
    update(REFUNDS)
    .where(
        REFUNDS.c.refund_no == row_value("the_refund_no", REFUNDS.c.refund_no.type),
        _IS_REQUESTED,
    )
    .values(
        {
            name: row_value(f"new_{name}", REFUNDS.c[name].type)
            for name in ("status", "channel_refund_no", "failure_reason", "finished_at")
        }
    )
    .returning(REFUNDS.c.refund_no)
)


async def find_refunds(transaction: Transaction, refund_nos: Iterable[str]) -> dict[str, Refund]:
    """Return those of the refunds that are known."""
    rows = await transaction.fetch_all(_FIND_REFUNDS, refund_nos=sorted(set(refund_nos)))
    refunds = [_refund(row) for row in rows]
    return {refund.refund_no: refund for refund in refunds}


async def live_refunds_of_trades(
    transaction: Transaction, trade_nos: Iterable[str]
) -> list[Refund]:
    """Return the refunds of the trades, on whatever channel, but for those that failed."""
    rows = await transaction.fetch_all(_REFUNDS_OF_TRADES, trade_nos=sorted(set(trade_nos)))
    return [_refund(row) for row in rows]


async def refunds_of_payment(transaction: ReadTransaction, payment_no: str) -> list[Refund]:
    """Return the refunds of the payment, the first asked for first."""
    rows = await transaction.fetch_all(_REFUNDS_OF_PAYMENT, payment_no=payment_no)
    return [_refund(row) for row in rows]


async def insert_refunds(
    transaction: Transaction, refunds: Sequence[Refund], *, now: Instant
) -> set[str]:
    """Insert refunds, due at once, and return the numbers of those that were not there before."""
    rows: list[dict[str, Value]] = [
        {
            "refund_no": refund.refund_no,
            "order_no": refund.order_no,
            "payment_no": refund.payment_no,
            "pay_channel": refund.pay_channel,
            "trade_no": refund.trade_no,
            "amount_minor": refund.amount_minor,
            "currency": refund.currency,
            "reason": refund.reason,
            "status": refund.status.value,
            "channel_refund_no": refund.channel_refund_no,
            "failure_reason": refund.failure_reason,
            "requested_at": refund.requested_at,
            "received_at": now,
            "finished_at": refund.finished_at,
            "attempts": 0,
            "next_attempt_at": now,
        }
        for refund in sorted(refunds, key=lambda refund: refund.refund_no)
    ]
    return {row["refund_no"] for row in await transaction.fetch_rows(_INSERT_REFUND, rows)}


async def due_refunds(transaction: Transaction, *, now: Instant, count_max: int) -> list[DueRefund]:
    """Return refunds that are to be tried now, longest due first."""
    return [
        DueRefund(
            refund=_refund(row),
            attempts=row["attempts"],
            received_at=Instant(row["received_at"]),
        )
        for row in await transaction.fetch_all(_DUE_REFUNDS, now=now, count_max=count_max)
    ]


async def find_next_due_at(transaction: ReadTransaction) -> Instant | None:
    """Return when the next refund is to be tried, or None if none waits."""
    row = await transaction.fetch_one(_NEXT_DUE)
    assert row is not None
    return None if row["due_at"] is None else Instant(row["due_at"])


async def claim_refunds(
    transaction: Transaction, refunds: Sequence[DueRefund], *, until: Instant
) -> set[str]:
    """Count one more attempt of each and return the numbers of those nobody else claimed.

    Nobody else tries them before `until`: if this process dies meanwhile, someone does then.
    """
    rows: list[dict[str, Value]] = [
        {
            "the_refund_no": due.refund.refund_no,
            "old_attempts": due.attempts,
            "claimed_until": until,
        }
        for due in sorted(refunds, key=lambda due: due.refund.refund_no)
    ]
    return {row["refund_no"] for row in await transaction.fetch_rows(_CLAIM_REFUND, rows)}


async def release_refunds(transaction: Transaction, *, now: Instant) -> int:
    """Let every refund that is claimed, or waits, be tried now; return how many there are."""
    return await transaction.execute(_RELEASE_REFUNDS, now=now)


async def postpone_refunds(transaction: Transaction, due_at: Mapping[str, Instant]) -> None:
    """Set when each refund, by number, is to be tried again."""
    rows: list[dict[str, Value]] = [
        {"the_refund_no": refund_no, "new_attempt_at": due_at[refund_no]}
        for refund_no in sorted(due_at)
    ]
    await transaction.execute_rows(_POSTPONE_REFUND, rows)


async def finish_refunds(transaction: Transaction, refunds: Sequence[Refund]) -> set[str]:
    """Write how refunds ended, and return the numbers of those that had not ended before."""
    rows: list[dict[str, Value]] = [
        {
            "the_refund_no": refund.refund_no,
            "new_status": refund.status.value,
            "new_channel_refund_no": refund.channel_refund_no,
            "new_failure_reason": refund.failure_reason,
            "new_finished_at": refund.finished_at,
        }
        for refund in sorted(refunds, key=lambda refund: refund.refund_no)
    ]
    return {row["refund_no"] for row in await transaction.fetch_rows(_FINISH_REFUND, rows)}


def _refund(row: Row) -> Refund:
    return Refund(
        refund_no=row["refund_no"],
        order_no=row["order_no"],
        trade_no=row["trade_no"],
        amount_minor=row["amount_minor"],
        currency=row["currency"],
        reason=row["reason"],
        status=RefundStatus(row["status"]),
        requested_at=Instant(row["requested_at"]),
        payment_no=row["payment_no"],
        pay_channel=row["pay_channel"],
        channel_refund_no=row["channel_refund_no"],
        failure_reason=row["failure_reason"],
        finished_at=row["finished_at"],
    )
