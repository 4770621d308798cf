"""Check the guarantees on a live database, read only: each query yields what breaks an invariant.

A breach of safety (money, stock, history) is always wrong. Lateness is a warning: the work may be
under way; on a system that has come to rest it is a breach too.

Every check is one query, which the database answers with `SHOWN_PER_INVARIANT_MAX` rows at most:
memory does not grow with the tables. Run all of them in one transaction, so that they see one
snapshot: an order that is being paid is paid in all of them or in none.
"""

from orderkeep.database.transaction import ReadTransaction
from orderkeep.orders.verify.check import SHOWN_PER_INVARIANT_MAX, Finding
from orderkeep.orders.verify.gaps import find_unknown_orders
from orderkeep.orders.verify.history import HISTORY_CHECKS
from orderkeep.orders.verify.lateness import find_lateness, find_missing
from orderkeep.orders.verify.money import MONEY_CHECKS
from orderkeep.orders.verify.stock import STOCK_CHECKS

__all__ = [
    "CHECKS",
    "SHOWN_PER_INVARIANT_MAX",
    "Finding",
    "find_breaches",
    "find_lateness",
    "find_missing",
    "find_unknown_orders",
]

CHECKS = (*STOCK_CHECKS, *HISTORY_CHECKS, *MONEY_CHECKS)


async def find_breaches(transaction: ReadTransaction) -> list[Finding]:
    """Return every invariant of safety that the database breaks."""
    findings: list[Finding] = []
    for check in CHECKS:
        rows = await transaction.fetch_all(check.breaches)
        if rows:
            findings.append(check.finding(tuple(str(row["subject"]) for row in rows)))
    return findings
