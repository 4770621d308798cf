"""The database: one port for transactions, one set of statements, an engine behind each dialect.

Invariant: whoever opens a transaction commits it once; nothing inside awaits anything but the
database; what `transact` has answered survives a kill and a power cut.

- `transaction.py` is the port: what use cases and edges see.
- `statement.py` turns SQLAlchemy Core into SQL text, once for each engine.
- `sqlite.py` is the embedded engine.
- `postgresql.py` is the engine across the network; `postgresql_…` are its parts: a connection and
  its limits, what gives away a pooler, a transaction, what errors mean, sessions, wake-ups,
  migrations. `connection_pool.py` has the connections that all transactions share, `retries.py`
  runs a transaction again, and `bulk.py` makes its statements for all rows at once.
- `turns.py` and `in_hand.py` serve both engines: who is next, and what a close waits for.
- `sqlite_facts.py` and `postgresql_facts.py` read what `orderkeep doctor` judges.
- `schema.py` collects the tables that the services define; `migrations/` makes them, and
  `migration_scripts.py` knows their order; `schema_version.py` brings a database to the current
  schema.
"""
