"""Builds every process from settings.

The only place that picks implementations, reads the clock and draws random values: everybody else
is given what they need.

- `chance.py` reads the clock and draws.
- `storage.py` picks the database and the broker.
- `order_parts.py`, `cart_parts.py` and `payment_parts.py` build one service each.
- `shop.py` puts them together and runs them until told to stop.
- `embedded.py` is the whole of `orderkeep run`: the data directory, the schema, the shop.
"""
