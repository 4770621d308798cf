"""Simulated shoppers: a busy day at a running service, seen from outside.

They talk HTTP and nothing else, as any client would; no part of the service is imported here. Each
shopper fills a cart, orders with a one-time token or a key of their own, and then lives one of the
stories of `shopper.py`: pays, pays late, cancels, walks away, sends everything twice, asks for what
does not exist. `run.py` starts them and counts what they were told; what no client should ever see
(two orders for one key, an acknowledged order that is gone) is a *surprise* in the summary.
"""

from orderkeep.demo.run import DemoOptions, DemoSummary, run_demo

__all__ = ["DemoOptions", "DemoSummary", "run_demo"]
