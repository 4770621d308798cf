"""Runs migrations on the connection that `schema_version.py` or a test hands over.

Without one, it writes them as SQL for PostgreSQL, whose transactions are its reader's.
"""

from alembic import context

if context.is_offline_mode():
    context.configure(dialect_name="postgresql", transactional_ddl=False)
else:
    connection = context.config.attributes["connection"]
    context.configure(connection=connection, transaction_per_migration=True)
with context.begin_transaction():
    context.run_migrations()
