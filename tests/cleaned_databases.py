"""PostgreSQL databases for tests, emptied and given to the next: making one takes far longer.

`CREATE DATABASE` and `DROP DATABASE` each wait for a checkpoint of the whole server; deleting the
few rows that a test has left takes a millisecond.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from tests.plain_sql import PostgresPlainSql, run_alone
from tests.servers.availability import fresh_database, postgresql_server

# In the order of no foreign key, which is what `replica` looks past; and row numbers begin at 1.
_EMPTY = """
DO $$ DECLARE made record; BEGIN
  SET LOCAL session_replication_role = 'replica';
  FOR made IN SELECT tablename AS name FROM pg_tables WHERE schemaname = 'public' LOOP
    EXECUTE format('DELETE FROM %I', made.name);
  END LOOP;
  FOR made IN
    SELECT sequencename AS name FROM pg_sequences
    WHERE schemaname = 'public' AND last_value IS NOT NULL
  LOOP
    PERFORM setval(made.name::regclass, 1, false);
  END LOOP;
END $$
"""


class CleanedDatabases:
    """The databases of one test run that hold the same tables."""

    def __init__(self, fill: Callable[[str], None]) -> None:
        """Make none yet.

        Args:
            fill: Makes the tables, given the URL of an empty database.
        """
        self._fill = fill
        self._free: list[str] = []
        self._made = ExitStack()

    @contextmanager
    def given(self) -> Iterator[str]:
        """Give the URL of a database with every table and no row."""
        server = postgresql_server()
        url = (
            self._free.pop()
            if self._free
            else self._made.enter_context(fresh_database(server, self._fill))
        )
        yield url
        # What a test has changed of the schema, or left open, is nobody else's.
        if url not in PostgresPlainSql.changed_urls:
            run_alone(url, _EMPTY)
            self._free.append(url)

    def drop(self) -> None:
        """Drop all of them."""
        self._made.close()
