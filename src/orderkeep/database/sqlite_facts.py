"""What a SQLite file says of itself; for `orderkeep doctor`.

Invariant: the file is read, never made and never changed, and nothing is judged. A crash leaves
nothing behind.
"""

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import text

from orderkeep.database.statement import Statement
from orderkeep.database.transaction import ReadTransaction, StoreUnavailableError

_SYNCHRONOUS = Statement(text("PRAGMA synchronous"))

# As `PRAGMA synchronous` counts.
_LEVELS = {0: "OFF", 1: "NORMAL", 2: "FULL", 3: "EXTRA"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SqliteFacts:
    """What the library and the file say.

    Attributes:
        library_version: Of the SQLite that this Python uses.
        journal_mode: `wal` where readers and the writer do not wait for each other.
    """

    library_version: tuple[int, int, int]
    journal_mode: str


def sqlite_library_version() -> tuple[int, int, int]:
    """Return the version of the SQLite that this Python uses."""
    return sqlite3.sqlite_version_info


def read_sqlite_facts(path: Path) -> SqliteFacts:
    """Return what the file says, before anybody has set it up.

    Raises:
        StoreUnavailableError: it cannot be opened, or is no database.
    """
    try:
        connection = sqlite3.connect(f"file:{quote(str(path.resolve()))}?mode=ro", uri=True)
        try:
            (journal_mode,) = connection.execute("PRAGMA journal_mode").fetchone()
        finally:
            connection.close()
    except sqlite3.Error as error:
        message = f"{path} cannot be read: {error}"
        raise StoreUnavailableError(message) from error
    return SqliteFacts(library_version=sqlite_library_version(), journal_mode=journal_mode)


async def read_synchronous(transaction: ReadTransaction) -> str:
    """Return how far a commit waits for the disk, on a connection as the service has it."""
    row = await transaction.fetch_one(_SYNCHRONOUS)
    assert row is not None
    return _LEVELS[row["synchronous"]]
