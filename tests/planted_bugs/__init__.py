"""Mistakes that others have made, planted one at a time: the simulation has to find each of them.

A plant replaces something of the product for as long as a world runs, in the test's own process:
the product carries no switch for it. `python -m tests.planted_bugs` finds for each the first seed
that shows it, and by which invariant.

- `plant.py` says what a plant is; `messages.py`, `orders.py` and `money.py` are the plants.
- `catalogue.py` has all of them.
"""
