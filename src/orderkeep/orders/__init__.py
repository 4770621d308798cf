"""The life of an order.

A buyer sends a cart's lines to `routes.py`, with a key that makes the request repeatable.
`intake.py` gathers the requests of the moment, and `place_orders.py` decides them together in one
transaction: it claims each key, takes stock for every line or for none, writes the order, and
leaves messages in the outbox. From there an order has one end:

                          pay in time                       record_payments.py
    [pending_payment] ------------------------> [paid]
          |   |                                    ^
          |   |  cancel    cancel_order.py         |  by the late-payment policy `revive` or an
          |   +------------------> [cancelled]     |  operator, when the stock is still there
          |                                        |
          |      deadline passed                   |
          +----------------------> [closed] -------+
                 close_orders.py, started by a message (consumers/order_timeout_queue.py),
                 or by the sweep (sweep.py) where no message came

Rules that hold everywhere:

- Each change of state is one transaction that also moves the stock, appends to the history and
  writes the messages that tell of it: `write_changes.py`. A crash leaves all of it or none.
- Whoever changes an order locks its row first and decides on what it finds; of two that race, the
  second finds an ended order and does what its own rules say of that. `order.py`, `stock.py`,
  `pricing.py` and `payment.py` decide, and touch nothing.
- The deadline is `expires_at` in the row, compared with the database's clock. Messages are hints.
- Locks are taken in one order: keys, orders, payments, stock; each sorted.
- Money that comes late, twice, or in the wrong amount is recorded first. `payment.py` has the table
  of what happens then: a refund, or a case for an operator; never silence. `case_resolution.py`
  has what the operator's verdict does, `resolve_cases.py` does it, once.

`desk.py` and `catalogue_desk.py` open the transactions for requests, the kernel's delivery opens
them for messages, the sweep for itself; nothing else commits. All SQL is in `store/`, `tables.py`
and `verify/`. `events.py` builds what others are told; `consumers/` has one module for each queue
that is read here; `webhooks.py` tells receivers outside; `timeline.py` tells an order's story.
"""
