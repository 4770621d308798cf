"""Cases: money that no rule may decide about, and that waits for an operator."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import bindparam, select
from sqlalchemy.dialects.postgresql import insert

from orderkeep.database.statement import RowStatement, Statement, row_value
from orderkeep.database.transaction import ReadTransaction, Row, Transaction
from orderkeep.instant import Instant
from orderkeep.orders.order import OrderNumber
from orderkeep.orders.payment import CaseKind, PaymentIdentity
from orderkeep.orders.tables import PAYMENT_CASES


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentCase:
    """Money that waits for an operator."""

    kind: CaseKind
    order_no: OrderNumber
    identity: PaymentIdentity
    payment_no: str | None
    amount_minor: int | None
    currency: str | None
    message_id: str
    detail: str
    opened_at: Instant
    state: str = "open"


_CASES_PER_ORDER_MAX = 1000

_CASE_COLUMNS = [column for column in PAYMENT_CASES.c if column.name not in {"id", "resolved_at"}]
_INSERT_CASE = RowStatement(
    insert(PAYMENT_CASES)
    .values({column.name: row_value(column.name, column.type) for column in _CASE_COLUMNS})
    .on_conflict_do_nothing(
        index_elements=["pay_channel", "trade_no", "order_no", "kind", "message_id"]
    )
)
_CASES_OF_ORDER = Statement(
    select(PAYMENT_CASES)
    .where(PAYMENT_CASES.c.order_no == bindparam("order_no"))
    .order_by(PAYMENT_CASES.c.id)
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


async def list_cases(transaction: ReadTransaction, order_no: str) -> list[PaymentCase]:
    """Return every case of the order, the earliest first."""
    rows = await transaction.fetch_all(_CASES_OF_ORDER, order_no=order_no)
    return [_case(row) for row in rows]


def _case(row: Row) -> PaymentCase:
    return PaymentCase(
        kind=CaseKind(row["kind"]),
        order_no=OrderNumber(row["order_no"]),
        identity=PaymentIdentity(pay_channel=row["pay_channel"], trade_no=row["trade_no"]),
        payment_no=row["payment_no"],
        amount_minor=row["amount_minor"],
        currency=row["currency"],
        message_id=row["message_id"],
        detail=row["detail"],
        opened_at=Instant(row["opened_at"]),
        state=row["state"],
    )
