"""A connection to the SQLite file, set up the way every user of the file must be.

Invariant: what is committed on it is on disk (`synchronous=FULL`). Opening changes nothing but the
file's mode, which is WAL from its first user on; a crash leaves it in one mode or the other.
"""

import sqlite3
import threading
import time
from pathlib import Path

from orderkeep.database.transaction import (
    ConstraintViolatedError,
    StoreTooOldError,
    StoreUnavailableError,
)

# 3.35 brought RETURNING, the newest thing the statements need.
SQLITE_VERSION_MIN = (3, 35, 0)

# Command-line tools write beside a running service; each waits this long for its turn.
BUSY_TIMEOUT_S = 5.0

# Every distinct statement of the service, with room to spare: a miss costs a parse.
_CACHED_STATEMENTS_COUNT = 512

# Between two questions whether a file that is just being made may be put into WAL mode.
_WAL_PAUSE_S = 0.01

# The codes that say "not now": the database is held, full, unreachable, or its disk is failing.
_UNAVAILABLE_CODES = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_NOMEM,
    }
)


def open_connection(path: Path, *, busy_timeout_s: float = BUSY_TIMEOUT_S) -> sqlite3.Connection:
    """Return a connection set up the way every user of the file must be.

    Raises:
        StoreTooOldError: the library is.
        StoreUnavailableError: the file cannot be opened.
    """
    if sqlite3.sqlite_version_info < SQLITE_VERSION_MIN:
        needed = ".".join(map(str, SQLITE_VERSION_MIN))
        message = f"SQLite {sqlite3.sqlite_version} is too old: {needed} or newer is needed"
        raise StoreTooOldError(message)
    try:
        connection = sqlite3.connect(
            path,
            timeout=busy_timeout_s,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=_CACHED_STATEMENTS_COUNT,
        )
        connection.row_factory = sqlite3.Row
        _use_wal(connection, patience_s=busy_timeout_s)
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
    except sqlite3.Error as error:
        raise translated(error) from error
    return connection


def _use_wal(connection: sqlite3.Connection, *, patience_s: float) -> None:
    """Put the file into WAL mode, which stays with it.

    SQLite does not wait here for others who open a new file at the same moment: each holds what the
    other needs, so it answers both at once that the file is locked, and asking again is ours.

    Raises:
        sqlite3.OperationalError: the file was locked for all of the time.
    """
    give_up_at_s = time.monotonic() + patience_s
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise
            if time.monotonic() >= give_up_at_s:
                raise
            threading.Event().wait(_WAL_PAUSE_S)
        else:
            return


def translated(error: sqlite3.Error) -> Exception:
    """Return the error in the words of the port, where it has any."""
    # Extended codes (SQLITE_IOERR_WRITE ...) carry the primary code in their low byte.
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in _UNAVAILABLE_CODES:
        return StoreUnavailableError(f"SQLite cannot serve now: {error}")
    if code == sqlite3.SQLITE_CONSTRAINT:
        return ConstraintViolatedError(str(error))
    return error
