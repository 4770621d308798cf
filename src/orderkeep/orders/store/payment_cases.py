"""Cases: money that no rule may decide about, and that waits for an operator."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import bindparam, select, update
from sqlalchemy.dialects.postgresql import insert

from orderkeep.database.statement import RowStatement, Statement, is_any_of, row_value
from orderkeep.database.transaction import ReadTransaction, Row, Transaction
from orderkeep.instant import Instant
from orderkeep.orders.case_resolution import CaseAction, CaseState, PaymentCase, Resolution
from orderkeep.orders.order import OrderNumber
from orderkeep.orders.payment import CaseKind, PaymentIdentity
from orderkeep.orders.tables import PAYMENT_CASES as CASES


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseFilter:
    """What the listed cases have in common; None is anything.

    Attributes:
        before: Only cases with a smaller number: the next page.
    """

    state: CaseState | None = None
    order_no: str | None = None
    trade_no: str | None = None
    before: int | None = None


class StaleCaseError(Exception):
    """A case was resolved under its lock: the lock was not held. A bug, never a refusal."""


_CASES_PER_ORDER_MAX = 1000

# A bound for look-ups by a list of ids; operators resolve a few at a time.
_LOCKED_CASES_MAX = 10_000

_NEW = (
    "kind",
    "state",
    "order_no",
    "pay_channel",
    "trade_no",
    "payment_no",
    "amount_minor",
    "currency",
    "message_id",
    "detail",
    "opened_at",
)
_INSERT_CASE = RowStatement(
    insert(CASES)
    .values({name: row_value(name, CASES.c[name].type) for name in _NEW})
    .on_conflict_do_nothing(
        index_elements=["pay_channel", "trade_no", "order_no", "kind", "message_id"]
    )
)
_BY_IDS = select(CASES).where(is_any_of(CASES.c.id, "case_ids")).order_by(CASES.c.id)
_FIND_CASES = Statement(_BY_IDS.limit(_LOCKED_CASES_MAX))
_LOCK_CASES = Statement(_BY_IDS.limit(_LOCKED_CASES_MAX).with_for_update(key_share=True))
_RESOLVED = ("resolution", "resolved_by", "resolution_reason", "resolved_at")
_RESOLVE_CASE = RowStatement(
    update(CASES)
    .where(
        CASES.c.id == row_value("the_id", CASES.c.id.type),
        CASES.c.state == CaseState.OPEN.value,
    )
    .values(
        state=CaseState.RESOLVED.value,
        **{name: row_value(f"new_{name}", CASES.c[name].type) for name in _RESOLVED},
    )
    .returning(CASES.c.id)
)
_CASES_OF_ORDER = Statement(
    select(CASES)
    .where(CASES.c.order_no == bindparam("order_no"))
    .order_by(CASES.c.id)
    .limit(_CASES_PER_ORDER_MAX)
)


async def insert_cases(transaction: Transaction, cases: Sequence[PaymentCase]) -> None:
    """Open cases; a report that opened its case before opens no second one."""
    await transaction.execute_rows(
        _INSERT_CASE,
        [
            {
                "kind": case.kind,
                "state": case.state,
                "order_no": case.order_no,
                "pay_channel": case.identity.pay_channel,
                "trade_no": case.identity.trade_no,
                "payment_no": case.payment_no,
                "amount_minor": case.amount_minor,
                "currency": case.currency,
                "message_id": case.message_id,
                "detail": case.detail,
                "opened_at": case.opened_at,
            }
            for case in cases
        ],
    )


async def find_cases(
    transaction: ReadTransaction, case_ids: Collection[int]
) -> dict[int, PaymentCase]:
    """Return those of the cases that exist; without a lock, only what never changes holds."""
    rows = await transaction.fetch_all(_FIND_CASES, case_ids=sorted(case_ids))
    return {row["id"]: _case(row) for row in rows}


async def lock_cases(transaction: Transaction, case_ids: Collection[int]) -> dict[int, PaymentCase]:
    """Lock the cases, in the order of their ids, and return those that exist."""
    rows = await transaction.fetch_all(_LOCK_CASES, case_ids=sorted(case_ids))
    return {row["id"]: _case(row) for row in rows}


async def save_resolutions(transaction: Transaction, cases: Sequence[PaymentCase]) -> None:
    """Write how cases ended that this transaction has locked, and found open.

    Raises:
        StaleCaseError: one of them has an end already.
    """
    rows = await transaction.fetch_rows(
        _RESOLVE_CASE,
        [
            {
                "the_id": case.case_id,
                "new_resolution": case.resolution.action,
                "new_resolved_by": case.resolution.resolved_by,
                "new_resolution_reason": case.resolution.reason,
                "new_resolved_at": case.resolution.resolved_at,
            }
            for case in sorted(cases, key=lambda case: case.case_id)
            if case.resolution is not None
        ],
    )
    missed = {case.case_id for case in cases} - {row["id"] for row in rows}
    if missed:
        message = f"cases ended under their lock: {sorted(missed)}"
        raise StaleCaseError(message)


async def list_cases(
    transaction: ReadTransaction, wanted: CaseFilter, *, limit_count: int
) -> list[PaymentCase]:
    """Return cases that fit the filter, newest first."""
    # Only what is wanted stands in the text, so that the state and the order have their indexes.
    # By trade number every case is looked at: of those there are few.
    conditions = []
    if wanted.state is not None:
        conditions.append(CASES.c.state == wanted.state.value)
    if wanted.order_no is not None:
        conditions.append(CASES.c.order_no == wanted.order_no)
    if wanted.trade_no is not None:
        conditions.append(CASES.c.trade_no == wanted.trade_no)
    if wanted.before is not None:
        conditions.append(CASES.c.id < wanted.before)
    statement = Statement(
        select(CASES).where(*conditions).order_by(CASES.c.id.desc()).limit(limit_count)
    )
    return [_case(row) for row in await transaction.fetch_all(statement)]


async def list_cases_of_order(transaction: ReadTransaction, order_no: str) -> list[PaymentCase]:
    """Return every case of the order, the earliest first."""
    rows = await transaction.fetch_all(_CASES_OF_ORDER, order_no=order_no)
    return [_case(row) for row in rows]


def _case(row: Row) -> PaymentCase:
    return PaymentCase(
        case_id=row["id"],
        kind=CaseKind(row["kind"]),
        order_no=OrderNumber(row["order_no"]),
        identity=PaymentIdentity(pay_channel=row["pay_channel"], trade_no=row["trade_no"]),
        payment_no=row["payment_no"],
        amount_minor=row["amount_minor"],
        currency=row["currency"],
        message_id=row["message_id"],
        detail=row["detail"],
        opened_at=Instant(row["opened_at"]),
        resolution=_find_resolution(row),
    )


def _find_resolution(row: Row) -> Resolution | None:
    if row["state"] == CaseState.OPEN.value:
        return None
    return Resolution(
        # One that was resolved by hand, past every command, says nothing of itself.
        action=CaseAction(row["resolution"] or CaseAction.DISMISS),
        resolved_by=row["resolved_by"] or "",
        reason=row["resolution_reason"] or "",
        resolved_at=Instant(row["resolved_at"] or row["opened_at"]),
    )
