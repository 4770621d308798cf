"""Examines what the settings name: the database, the broker, and what waits in them.

Invariant: nothing is changed, and no password is told. What is read is read by `look.py` and
`rabbitmq_look.py`; what to think of it is decided by the `of_…` modules, which are pure.
"""
