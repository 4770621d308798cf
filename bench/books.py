"""Whether the orders that were counted are there, whole and once, and their stock with them."""

from tests.servers.postgresql import PostgresServer

# Of a new order without cart items: its timeout check and its creation.
_EVENTS_PER_ORDER = 2

_ROWS = """
SELECT
    (SELECT count(*) FROM orders WHERE status = 'pending_payment' AND version = 1) AS orders,
    (SELECT count(*) FROM order_requests) AS requests,
    (SELECT count(*) FROM order_history) AS history,
    (SELECT count(*) FROM order_lines) AS lines,
    (SELECT count(*) FROM stock_movements WHERE kind = 'reserve') AS movements,
    (SELECT count(*) FROM order_outbox JOIN orders ON order_no = aggregate_id) AS events
"""

# Adjustments are what is available, reserved and sold; what is reserved is what was moved so, and
# what the lines of the orders say.
_STOCK = """
SELECT count(*) AS wrong FROM stock
LEFT JOIN (
    SELECT sku_id,
        sum(quantity) FILTER (WHERE kind = 'adjust') AS adjusted,
        coalesce(sum(quantity) FILTER (WHERE kind = 'reserve'), 0) AS reserved
    FROM stock_movements GROUP BY sku_id
) AS moved USING (sku_id)
LEFT JOIN (
    SELECT sku_id, sum(quantity) AS ordered FROM order_lines GROUP BY sku_id
) AS lines USING (sku_id)
WHERE moved.adjusted IS DISTINCT FROM stock.available + stock.reserved + stock.sold
    OR moved.reserved <> stock.reserved
    OR coalesce(lines.ordered, 0) <> stock.reserved
    OR least(stock.available, stock.reserved, stock.sold) < 0
"""


class WrongBooksError(Exception):
    """Answers and database disagree: whatever the rates say, they are worth nothing."""


def check_orders(server: PostgresServer, name: str, *, order_count: int, line_count: int) -> None:
    """Check that the database holds what so many new orders write, and nothing else.

    Args:
        server: Where the database is.
        name: Of the database.
        order_count: Orders that were answered.
        line_count: Of each order.

    Raises:
        WrongBooksError: it does not.
    """
    expected = {
        "orders": order_count,
        "requests": order_count,
        "history": order_count,
        "lines": line_count * order_count,
        "movements": line_count * order_count,
        "events": _EVENTS_PER_ORDER * order_count,
    }
    (stored,) = server.query(_ROWS, database=name)
    (stock,) = server.query(_STOCK, database=name)
    if stored != expected or stock["wrong"]:
        message = f"expected {expected}, stored {stored}, {stock['wrong']} SKUs are wrong"
        raise WrongBooksError(message)
