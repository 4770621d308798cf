"""Measures what Orderkeep does on this machine; see docs/performance.md for what the numbers mean.

One module for each question, each a program of its own. On the embedded engine: `orders_over_http`,
`outbox_dispatch` and `closing_lateness`. On PostgreSQL and RabbitMQ, each beside what the servers
can do with nothing of ours in the way: `orders_on_servers`, `dispatch_on_servers`,
`payments_on_servers` and `arrival_on_servers`; and beside what others would write for the same job:
`peer_on_servers`. For as much as a shop may see: `closing_on_servers`, `flow_on_servers`,
`overload_on_servers`, `soak_on_servers` and `growth_on_servers`. `python -m bench` runs them one
after the other.
"""
