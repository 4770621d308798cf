"""Examines what the settings name: the database, the broker, and what waits in them.

Invariant: nothing is changed, and no password is told. What is read is read by `database.py`, and
at the broker by `messaging/rabbitmq/look.py`; what to think of it is decided by the `of_…` modules,
which are pure. `examine.py` puts it all in order.
"""
