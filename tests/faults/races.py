"""Who won where a payment met a closing or a cancellation, as the books tell.

A race is an order of which the buyer acknowledged the payment, and for which the other side was
really there in the same moment: its deadline or its closing lay within a second of the instant at
which the payment was recorded; or the buyer cancelled it within a second of paying,
and was told what came of it.
"""

from collections import Counter
from collections.abc import Collection

from tests.acceptance.fleet_books import FleetBooks

CLOSE_PAID = "pay against close: paid"
CLOSE_CLOSED = "pay against close: closed"
CANCEL_PAID = "pay against cancel: paid"
CANCEL_CANCELLED = "pay against cancel: cancelled"
OUTCOMES = (CLOSE_PAID, CLOSE_CLOSED, CANCEL_PAID, CANCEL_CANCELLED)

# The first end of each order; one that was closed and revived was closed.
_CLOSE = """
    select distinct on (history.order_no) history.to_status
    from order_history as history
    join orders on orders.order_no = history.order_no
    join order_payments as payment on payment.order_no = history.order_no
        and payment.payment_no is not null
    where history.order_no = any($1) and history.to_status in ('paid', 'closed')
        and (abs(payment.received_at - orders.expires_at) <= 1000000
            or abs(payment.received_at - orders.closed_at) <= 1000000)
    order by history.order_no, history.version"""

_CANCEL = """
    select distinct on (history.order_no) history.to_status
    from order_history as history
    join order_payments as payment on payment.order_no = history.order_no
        and payment.payment_no is not null
    where history.order_no = any($1) and history.to_status in ('paid', 'cancelled')
    order by history.order_no, history.version"""


def count_races(
    books: FleetBooks, *, close_nos: Collection[str], cancel_nos: Collection[str]
) -> Counter[str]:
    """Return how often each outcome was, of the orders of which somebody raced something."""
    closed = Counter(row[0] for row in books.rows(_CLOSE, sorted(close_nos)))
    cancelled = Counter(row[0] for row in books.rows(_CANCEL, sorted(cancel_nos)))
    return Counter(
        {
            CLOSE_PAID: closed["paid"],
            CLOSE_CLOSED: closed["closed"],
            CANCEL_PAID: cancelled["paid"],
            CANCEL_CANCELLED: cancelled["cancelled"],
        }
    )
