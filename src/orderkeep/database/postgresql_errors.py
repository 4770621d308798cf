"""What an error of PostgreSQL, or of the way to it, means for a transaction.

Invariant: an error is taken for a broken rule of the schema, or for "not now", only by its SQLSTATE
or by the end of the connection; everything else stays what it is, a bug.
"""

import asyncpg

from orderkeep.database.transaction import (
    ConstraintViolatedError,
    StoreBusyError,
    StoreUnavailableError,
)

# What the driver raises by itself: the server said no, or the way there is gone.
DRIVER_ERRORS = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,  # ConnectionError and TimeoutError among them
)

# The database itself asks for the same transaction again: a serialization failure, a deadlock.
_TRY_AGAIN = frozenset({"40001", "40P01"})

# Integrity constraint violation.
_CONSTRAINT_CLASS = "23"

# By class: connection exceptions; rollbacks; resources (a full disk, too many connections); an
# operator's or a time limit's intervention; errors outside PostgreSQL, such as its disk.
_UNAVAILABLE_CLASSES = frozenset({"08", "40", "53", "57", "58"})
# And of other classes: the transaction is read only, as on a server that is no longer the primary;
# a lock was waited for too long; a transaction or a session was idle for too long; the credentials
# or the database do not exist, which somebody may be about to change.
_UNAVAILABLE = frozenset({"25006", "55P03", "25P03", "28000", "28P01", "3D000"})

# A lock was waited for too long, or a statement took too long: this work's, not the server's state.
_BUSY = frozenset({"55P03", "57014"})

# At these a server says that none of its connections will do: it stops, starts, or is a standby.
_SERVER_LEAVES = frozenset({"57P01", "57P02", "57P03", "25006"})


def is_asked_again(error: BaseException) -> bool:
    """Return whether the database rolled back the transaction and asks for it again."""
    return _sqlstate(error) in _TRY_AGAIN


def is_end_of_connection(error: BaseException, *, is_closed: bool) -> bool:
    """Return whether no further statement can go over the connection that raised this.

    Args:
        is_closed: The connection says that it is closed.
    """
    if isinstance(error, OSError):
        return True
    state = _sqlstate(error)
    return (
        state.startswith("08")
        or state in _SERVER_LEAVES
        or (is_closed and isinstance(error, DRIVER_ERRORS))
    )


def is_rolled_back(error: BaseException) -> bool:
    """Return whether an error at COMMIT says for certain that nothing was committed.

    Not so the class of operators' interventions: a session that ends while it waits for a replica
    has committed.
    """
    state = _sqlstate(error)
    return state in _TRY_AGAIN or state.startswith(_CONSTRAINT_CLASS)


def is_refused(error: BaseException, *, is_closed: bool) -> bool:
    """Return whether a statement that is a transaction of its own certainly changed nothing.

    So it is where the server says what is wrong with it and goes on. Its time is not counted any
    more once it commits, and who is stopped while it waits for a replica is warned, not failed.

    Args:
        is_closed: The connection says that it is closed.
    """
    return isinstance(error, asyncpg.PostgresError) and not is_end_of_connection(
        error, is_closed=is_closed
    )


def translated(error: BaseException, *, is_closed: bool = False) -> BaseException:
    """Return the error as the port knows it, or itself if it is none of the database's.

    Args:
        is_closed: The connection says that it is closed.
    """
    state = _sqlstate(error)
    if state.startswith(_CONSTRAINT_CLASS):
        return ConstraintViolatedError(said_by(error))
    if state in _BUSY:
        return StoreBusyError(f"PostgreSQL gave up waiting: {said_by(error)}")
    if (
        state[:2] in _UNAVAILABLE_CLASSES
        or state in _UNAVAILABLE
        or is_end_of_connection(error, is_closed=is_closed)
    ):
        return StoreUnavailableError(f"PostgreSQL cannot serve now: {said_by(error)}")
    return error


def said_by(error: BaseException) -> str:
    """Return the error in one line, without the values of rows that its details may hold."""
    if isinstance(error, TimeoutError) and not str(error):
        return "no answer in time"
    lines = str(error.args[0] if error.args else error).splitlines()
    words = str(error) if isinstance(error, OSError) else (lines[0] if lines else "")
    return words or type(error).__name__


def _sqlstate(error: BaseException) -> str:
    if isinstance(error, asyncpg.PostgresError):
        return error.sqlstate or ""
    return ""
