"""What the database says when one looks from outside: what is under way, lost, or doubled.

Read only, beside the running service, with plain SQL: nothing of the program under test is used, so
that a mistake of its own cannot hide here. The statements are such that SQLite and PostgreSQL read
them alike; `fleet_books.py` asks them of the latter.
"""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

_SERVICES = ("order", "cart", "payment")

# What is still to be done. Each is empty once the shop has come to rest.
OPEN_WORK = {
    **{
        f"{service}_outbox": f"select count(*) from {service}_outbox where state = 'pending'"  # noqa: S608 (our own names)
        for service in _SERVICES
    },
    "queue_messages": "select count(*) from queue_messages",
    "unpaid orders": "select count(*) from orders where status = 'pending_payment'",
    "refunds of orders": "select count(*) from order_refunds where status = 'requested'",
    "refunds of payments": "select count(*) from refunds where status = 'requested'",
    "webhooks": "select count(*) from webhook_deliveries where state = 'pending'",
}

# Which queues an event reaches, and whose inbox must show it there.
_READERS = """
    select 'order.timeout.queue' as route, 'order.timeout.queue' as queue, 'order' as service
    union all select 'order.timeout.dlq', 'order.timeout.dlq', 'order'
    union all select 'payment.success.notify', 'payment.success.notify', 'order'
    union all select 'payment.refund.result', 'payment.refund.result', 'order'
    union all select 'payment.opened.notify', 'payment.opened.notify', 'order'
    union all select 'cart-sync', 'cart-sync', 'cart'
    union all select 'payment.refund.request', 'payment.refund.request', 'payment'
    union all select 'order.events', 'order.outbox', 'order'
    union all select 'order.events', 'payment.order.events', 'payment'
"""

_SENT = " union ".join(
    f"select route, message_id from {service}_outbox where state != 'discarded'"  # noqa: S608
    for service in _SERVICES
)
_RECEIVED = " union all ".join(
    f"select '{service}' as service, consumer, message_id from {service}_{table}"  # noqa: S608
    for service in _SERVICES
    for table in ("inbox", "dead_letters")
)

# Each yields what contradicts its name; all are empty in a shop at rest.
CONTRADICTIONS = {
    "an event that no consumer has received": f"""
        select reader.queue || ' ' || sent.message_id
        from ({_SENT}) as sent join ({_READERS}) as reader on reader.route = sent.route
        where not exists (
            select 1 from ({_RECEIVED}) as received
            where received.service = reader.service and received.consumer = reader.queue
            and received.message_id = sent.message_id)""",  # noqa: S608
    "an order whose events have a gap or a double": """
        select orders.order_no from orders left join order_outbox as event
            on event.aggregate_id = orders.order_no and event.retry_key is null
            and event.sequence > 0
        group by orders.order_no, orders.event_seq
        having count(event.id) != orders.event_seq
            or count(distinct event.sequence) != orders.event_seq
            or max(event.sequence) != orders.event_seq""",
    "a change of state that was not told once": """
        select history.order_no || ' ' || history.to_status
        from order_history as history left join order_outbox as event
            on event.aggregate_id = history.order_no and event.route = 'order.events'
            and event.retry_key is null and event.type = case history.to_status
                when 'pending_payment' then 'order.created' else 'order.' || history.to_status end
        group by history.order_no, history.to_status having count(event.id) != 1""",
    "an order that the payment service knows otherwise": """
        select orders.order_no from orders left join payment_orders as known
            on known.order_no = orders.order_no
        where coalesce(known.version, -1) != orders.version
            or coalesce(known.status, '') != orders.status
            or coalesce(known.amount_minor, -1) != orders.pay_amount_minor""",
    "a timed-out order that is not in the report": """
        select order_no from order_history where to_status = 'closed'
        except select order_no from timed_out_orders""",
    "an order in the report that never timed out": """
        select order_no from timed_out_orders
        except select order_no from order_history where to_status = 'closed'""",
    "an ordered cart item that is still in its cart": """
        select line.order_no || ' ' || line.cart_item_id from order_lines as line
        join cart_items as item on item.cart_item_id = line.cart_item_id""",
    "money that orders have not heard of": """
        select pay_channel || ' ' || trade_no from payment_receipts
        except select pay_channel || ' ' || trade_no from order_payments""",
    "a refund that the two services tell differently": """
        select asked.refund_no from order_refunds as asked
        left join refunds as done on done.refund_no = asked.refund_no
        where coalesce(done.status, '') != asked.status
            or coalesce(done.amount_minor, -1) != asked.amount_minor
        union all
        select refund_no from refunds
        where refund_no not in (select refund_no from order_refunds)""",
    "a payment whose opening orders have not heard of": """
        select payment_no from payments except select payment_no from order_opened_payments""",
    "stock that does not add up": """
        select stock.sku_id from stock left join stock_movements as movement
            on movement.sku_id = stock.sku_id and movement.kind = 'adjust'
        group by stock.sku_id
        having sum(movement.quantity) != stock.available + stock.reserved + stock.sold""",
    "a parked outbox row": " union all ".join(
        f"select '{service} ' || id from {service}_outbox where state = 'failed'"  # noqa: S608
        for service in _SERVICES
    ),
    "a message that is counted as tried and is not there": " union all ".join(
        f"select consumer || ' ' || message_id from {service}_delivery_attempts"  # noqa: S608
        for service in _SERVICES
    ),
}

_BROKEN_PAGES = "select integrity_check from pragma_integrity_check where integrity_check != 'ok'"

DEAD_LETTERS = " union all ".join(
    f"select queue, reason from {service}_dead_letters"  # noqa: S608
    for service in _SERVICES
)


def open_work(path: Path) -> dict[str, int]:
    """Return what is still to be done, by kind; empty when the shop has come to rest."""
    # One snapshot: what goes from one place to another would be seen in neither.
    counted = " union all ".join(
        f"select '{what}', ({statement})" for what, statement in OPEN_WORK.items()
    )
    return {what: count for what, count in rows(path, counted) if count}


def contradictions(path: Path) -> dict[str, list[str]]:
    """Return what was lost, doubled, or told differently in two places, in a shop at rest."""
    found = {
        what: [str(row[0]) for row in rows(path, statement)]
        for what, statement in {**CONTRADICTIONS, "a broken page": _BROKEN_PAGES}.items()
    }
    return {what: subjects for what, subjects in found.items() if subjects}


def dead_letters(path: Path) -> list[tuple[str, str]]:
    """Return queue and reason of every dead letter."""
    return [(row[0], row[1]) for row in rows(path, DEAD_LETTERS)]


def rows(path: Path, statement: str, *parameters: object) -> list[Any]:
    """Return what a query yields."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30.0)) as connection:
        return connection.execute(statement, parameters).fetchall()
