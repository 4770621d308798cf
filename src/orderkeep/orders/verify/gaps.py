"""What a restored backup lacks, as far as anything still tells of it."""

from sqlalchemy import column, exists, select, table

from orderkeep.database.statement import Statement
from orderkeep.database.transaction import ReadTransaction
from orderkeep.orders.tables import ORDERS
from orderkeep.orders.verify.check import SHOWN_PER_INVARIANT_MAX

# The payment service's own record of what it has heard of orders. It is named and not imported:
# services know nothing of each other but their messages, and here one is looked at from outside.
_HEARD_OF = table("payment_orders", column("order_no"), column("version"))

# Without a version it has heard nothing of the order itself.
_UNKNOWN = Statement(
    select(_HEARD_OF.c.order_no.label("subject"))
    .where(
        _HEARD_OF.c.version.is_not(None),
        ~exists(select(ORDERS.c.order_no).where(ORDERS.c.order_no == _HEARD_OF.c.order_no)),
    )
    .order_by("subject")
    .limit(SHOWN_PER_INVARIANT_MAX)
)


async def find_unknown_orders(transaction: ReadTransaction) -> tuple[str, ...]:
    """Return the orders that payments have heard of and that are not here, some of them at most.

    Ours are written before anybody hears of them, so there are none; but a backup may be older than
    what was told.
    """
    return tuple(str(row["subject"]) for row in await transaction.fetch_all(_UNKNOWN))
