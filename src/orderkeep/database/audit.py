"""What operators did by hand: who, what, when and why.

Invariant: an entry is written in the transaction of the effect that it tells of. Both are there, or
neither is, whatever crashes: an act without an entry cannot be committed, nor an entry without its
act. Entries are never changed and never removed. A service that lives in a database of its own has
a table of its own, for the same reason.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
from sqlalchemy import Column, Index, Table, Text, and_, bindparam, or_, select
from sqlalchemy.dialects.postgresql import insert

from orderkeep.database.schema import INSTANT, METADATA, ROW_NUMBER
from orderkeep.database.statement import RowStatement, Statement, row_value
from orderkeep.database.transaction import ReadTransaction, Row, Transaction, Value
from orderkeep.instant import Instant

# The act whose subject is a payment case; its detail has the order.
CASE_RESOLVED = "payment_cases.resolve"

ADMIN_AUDIT = Table(
    "admin_audit",
    METADATA,
    Column("id", ROW_NUMBER, primary_key=True, autoincrement=True),
    Column("at", INSTANT, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("reason", Text),
    # JSON, as text: whoever looks into the table with SQL can read it.
    Column("detail", Text, nullable=False),
)
# Operators page through the acts of one person, of one kind, and upon one thing, newest first.
Index("ix_admin_audit_actor", ADMIN_AUDIT.c.actor, ADMIN_AUDIT.c.id)
Index("ix_admin_audit_action", ADMIN_AUDIT.c.action, ADMIN_AUDIT.c.id)
Index("ix_admin_audit_subject", ADMIN_AUDIT.c.subject, ADMIN_AUDIT.c.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """Somebody does something by hand.

    Attributes:
        actor: The user id in their token, or `cli:` and their login.
        reason: Why, in their own words; None where they gave none.
    """

    actor: str
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One thing that was done to one subject.

    Attributes:
        action: What was done, such as `orders.cancel`.
        subject: What it was done to, by the name it has outside: an order number, a SKU, the
            reference of a message.
        detail: What else tells of it: values that JSON has, and no secrets.
    """

    act: Act
    action: str
    subject: str
    detail: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedAct:
    """An entry as it stands in the table."""

    id: int
    at: Instant
    actor: str
    action: str
    subject: str
    reason: str | None
    detail: msgspec.Raw


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFilter:
    """Which entries; None is any.

    Attributes:
        order_no: Only acts upon this order, and upon the payment cases of this order.
    """

    actor: str | None = None
    action: str | None = None
    subject: str | None = None
    order_no: str | None = None


_WRITTEN = ("at", "actor", "action", "subject", "reason", "detail")

_INSERT = RowStatement(
    insert(ADMIN_AUDIT).values(
        {name: row_value(name, ADMIN_AUDIT.c[name].type) for name in _WRITTEN}
    )
)


async def append_audit(
    transaction: Transaction, entries: Sequence[AuditEntry], *, now: Instant
) -> None:
    """Write the entries, in the transaction of what they tell of.

    Args:
        transaction: The one that has the effect.
        entries: One for each thing that changed; what was refused or changed nothing has none.
        now: The database's clock in this transaction.
    """
    if not entries:
        return
    rows: list[dict[str, Value]] = [
        {
            "at": now,
            "actor": entry.act.actor,
            "action": entry.action,
            "subject": entry.subject,
            "reason": entry.act.reason or None,
            "detail": msgspec.json.encode(entry.detail).decode(),
        }
        for entry in entries
    ]
    await transaction.execute_rows(_INSERT, rows)


async def list_audit(
    transaction: ReadTransaction,
    wanted: AuditFilter,
    *,
    before_id: int | None,
    limit_count: int,
) -> list[RecordedAct]:
    """Return entries that fit the filter, newest first.

    Args:
        transaction: A snapshot.
        wanted: Which.
        before_id: The id of the last entry of the page before; None is the first page.
        limit_count: How many at most.
    """
    columns = ADMIN_AUDIT.c
    # Only the conditions that are wanted stand in the text, so that each has its index.
    conditions, parameters = [], {}
    for name in ("actor", "action", "subject"):
        value = getattr(wanted, name)
        if value is not None:
            conditions.append(columns[name] == bindparam(name))
            parameters[name] = value
    if wanted.order_no is not None:
        # A case has a number of its own; its order stands in the detail. Few acts are upon cases,
        # and by the action those few are found.
        named = f'"order_no":"{wanted.order_no}"'
        conditions.append(
            or_(
                columns.subject == wanted.order_no,
                and_(
                    columns.action == CASE_RESOLVED,
                    columns.detail.contains(named, autoescape=True),
                ),
            )
        )
    if before_id is not None:
        conditions.append(columns.id < bindparam("before_id"))
        parameters["before_id"] = before_id
    statement = Statement(
        select(ADMIN_AUDIT)
        .where(*conditions)
        .order_by(columns.id.desc())
        .limit(bindparam("limit_count"))
    )
    rows = await transaction.fetch_all(statement, limit_count=limit_count, **parameters)
    return [_recorded(row) for row in rows]


def _recorded(row: Row) -> RecordedAct:
    return RecordedAct(
        id=row["id"],
        at=Instant(row["at"]),
        actor=row["actor"],
        action=row["action"],
        subject=row["subject"],
        reason=row["reason"],
        detail=msgspec.Raw(row["detail"].encode()),
    )
