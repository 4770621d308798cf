"""All SQL of the payment service.

Lock order: rows of `payment_orders` sorted by order number, then payments sorted by number, then
what was received for them, then refunds sorted by number.
"""
