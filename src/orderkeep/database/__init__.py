"""The database: one port for transactions, one set of statements, an engine behind each dialect.

Invariant: whoever opens a transaction commits it once; nothing inside awaits anything but the
database; what `transact` has answered survives a kill and a power cut.

- `transaction.py` is the port: what use cases and edges see.
- `statement.py` turns SQLAlchemy Core into SQL text, once for each engine.
- `sqlite.py` is the embedded engine.
- `postgresql.py` is the engine across the network; `postgresql_…` are its parts: a connection and
  its limits, a transaction, what errors mean, sessions, wake-ups, migrations. `bulk.py` makes its
  statements for all rows at once.
- `schema.py` collects the tables that the services define; `migrations/` makes them; and
  `schema_version.py` brings a database to the current schema.
"""
