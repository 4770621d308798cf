"""Measures what Orderkeep does on this machine; see docs/performance.md for what the numbers mean.

One module for each question, each a program of its own: `orders_over_http`, `outbox_dispatch` and
`closing_lateness`. `python -m bench` runs them one after the other.
"""
