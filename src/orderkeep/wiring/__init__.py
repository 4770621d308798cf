"""Builds every process from settings.

The only place that picks implementations, reads the clock and draws random values: everybody else
is given what they need.

- `chance.py` reads the clock and draws.
- `storage.py` picks the database and the broker.
- `order_parts.py`, `cart_parts.py` and `payment_parts.py` build one service each.
- `loops.py` builds what carries a service's messages, `readiness.py` what `/health/ready` asks.
- `shop.py` puts them together, `running.py` runs them until told to stop.
- `processes.py` is the whole of `orderkeep run`, `serve` and `work`.
- `doctor/` looks at what they would stand on.
"""
