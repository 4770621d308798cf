"""From BEGIN to COMMIT on one connection to PostgreSQL: what is committed, and how it fails.

Invariant: COMMIT is sent once for a transaction. Up to there an error leaves nothing behind, and
the work may be run again; an error in place of the answer to COMMIT leaves open what happened, and
is said to. A statement that is a transaction of its own is its own COMMIT.

A crash before the commit leaves nothing: the server rolls back when the connection ends. One after
it, before the answer, leaves all of it: callers tell the two apart by their own keys.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, NoReturn, TypeVar

import asyncpg

from orderkeep.database.postgresql_errors import (
    DRIVER_ERRORS,
    is_asked_again,
    is_end_of_connection,
    is_refused,
    is_rolled_back,
    said_by,
    translated,
)
from orderkeep.database.postgresql_transaction import PostgresTransaction
from orderkeep.database.statement import Statement
from orderkeep.database.transaction import (
    CommitUnknownError,
    ConstraintViolatedError,
    Parameter,
    ReadTransaction,
    Row,
    StoreUnavailableError,
    Transaction,
)
from orderkeep.failure_points import reach

if TYPE_CHECKING:
    from orderkeep.database.postgresql_connection import Connection

T = TypeVar("T")

# Of transactions that stand in each other's way one always gets through, so each try has a fair
# chance; ten in a row fail only where something is wrong.
ASKED_AGAIN_TRIES_MAX = 10

# A rollback writes nothing: a server that does not answer it so soon is given up.
_ROLLBACK_S_MAX = 2.0


class AskedAgainError(StoreUnavailableError):
    """The database rolled back the transaction and asks for it again."""


class KeyTakenError(ConstraintViolatedError):
    """A row with the same unique key is there; it may have come while the work was running.

    Then the work looked before it was there, and would find it now.
    """


class ConnectionEndedError(StoreUnavailableError):
    """The connection ended before COMMIT was sent: nothing was committed."""


async def commit_work(
    connection: "Connection",
    work: Callable[[Transaction], Awaitable[T]],
    *,
    begin: str,
    answer_s: float,
) -> T:
    """Run the work in a transaction on the connection, commit it, and return its answer.

    Once this has raised, the connection is either out of the transaction or closed.

    Raises:
        AskedAgainError: nothing was committed; the database asks for the same again.
        ConnectionEndedError: nothing was committed; another connection may do.
        CommitUnknownError: the answer to COMMIT did not come.
        StoreUnavailableError: nothing was committed.
        ConstraintViolatedError: nothing was committed.
    """
    transaction = PostgresTransaction(connection, answer_s=answer_s)
    try:
        await _begin_to_write(connection, begin, answer_s=answer_s)
        answer = await work(transaction)
        await transaction.answered()
        reach("database.before_commit")
    except BaseException as error:  # noqa: BLE001 (rolled back, and raised by its right name)
        await _let_go(transaction, connection, after=error)
        await _roll_back(connection, after=error)
        _raise(error, connection)
    await _commit(connection, answer_s=answer_s)
    reach("database.after_commit")
    for callback in transaction.callbacks:
        # Called before whoever waits for the answer goes on; and what one of them raises is not
        # the transaction's, which is committed.
        asyncio.get_running_loop().call_soon(callback)
    return answer


async def read_work(
    connection: "Connection",
    work: Callable[[ReadTransaction], Awaitable[T]],
    *,
    begin: str,
    answer_s: float,
) -> T:
    """Run the work on a snapshot and return its answer.

    Once this has raised, the connection is either out of the transaction or closed.

    Raises:
        AskedAgainError: the database asks for the same again.
        ConnectionEndedError: another connection may do.
        StoreUnavailableError: the database cannot serve now.
    """
    try:
        await connection.execute(begin, timeout=answer_s)
        answer = await work(PostgresTransaction(connection, answer_s=answer_s))
    except BaseException as error:  # noqa: BLE001 (rolled back, and raised by its right name)
        await _roll_back(connection, after=error)
        _raise(error, connection)
    # The answer is read: whatever becomes of the connection takes nothing from it.
    await _roll_back(connection, after=None)
    return answer


async def commit_alone(
    connection: "Connection",
    statement: Statement,
    parameters: Mapping[str, Parameter],
    *,
    answer_s: float,
) -> int:
    """Run the statement as a transaction of its own, and return how many rows it changed.

    Once this has raised, the connection is either usable or closed.

    Raises:
        AskedAgainError: nothing was committed; the database asks for the same again.
        ConnectionEndedError: nothing was sent.
        CommitUnknownError: the answer did not come, or ended the connection.
        StoreUnavailableError: nothing was committed.
        ConstraintViolatedError: nothing was committed.
    """
    reach("database.before_commit")
    _refuse_closed(connection)
    try:
        changed_count = await _alone(connection, answer_s=answer_s).execute(statement, **parameters)
    except BaseException as error:  # noqa: BLE001 (raised by its right name)
        if is_refused(error, is_closed=connection.is_closed()):
            _raise(error, connection)
        _raise_unknown(error, connection, asked="the statement")
    reach("database.after_commit")
    return changed_count


async def read_alone(
    connection: "Connection",
    statement: Statement,
    parameters: Mapping[str, Parameter],
    *,
    answer_s: float,
) -> list[Row]:
    """Return what the statement yields on a snapshot of its own.

    Once this has raised, the connection is either usable or closed.

    Raises:
        StoreUnavailableError: the database cannot serve now.
    """
    try:
        return await _alone(connection, answer_s=answer_s).fetch_all(statement, **parameters)
    except BaseException as error:  # noqa: BLE001 (raised by its right name)
        if not is_refused(error, is_closed=connection.is_closed()):
            # Whatever is under way, or out of step, ends with it.
            connection.terminate()
        _raise(error, connection)


def _alone(connection: "Connection", *, answer_s: float) -> PostgresTransaction:
    # Where nothing was begun, each statement is a transaction of its own.
    return PostgresTransaction(connection, answer_s=answer_s)


async def _begin_to_write(connection: "Connection", begin: str, *, answer_s: float) -> None:
    try:
        await connection.execute(begin, timeout=answer_s)
    except asyncpg.FeatureNotSupportedError as error:
        # What a server says that has become a replica: another one is the primary now.
        connection.terminate()
        message = "the server is a replica, which takes no writes"
        raise ConnectionEndedError(message) from error


async def _commit(connection: "Connection", *, answer_s: float) -> None:
    _refuse_closed(connection)
    try:
        status = await connection.execute("COMMIT", timeout=answer_s)
    except BaseException as error:  # noqa: BLE001 (raised by its right name)
        if is_rolled_back(error):
            _raise(error, connection)
        _raise_unknown(error, connection, asked="COMMIT")
    if status != "COMMIT":
        message = "the work went on after one of its statements had failed; nothing is committed"
        raise RuntimeError(message)


async def _let_go(
    transaction: PostgresTransaction, connection: "Connection", *, after: BaseException
) -> None:
    """Have the connection to ourselves again, or end it."""
    if isinstance(after, asyncio.CancelledError):
        # What is under way ends with it.
        connection.terminate()
    try:
        await transaction.let_go()
    except BaseException:
        connection.terminate()
        raise


async def _roll_back(connection: "Connection", *, after: BaseException | None) -> None:
    """End the transaction, or the connection."""
    if connection.is_closed():
        return
    is_ended = after is not None and is_end_of_connection(after, is_closed=False)
    if is_ended or isinstance(after, asyncio.CancelledError):
        connection.terminate()
        return
    try:
        await connection.execute("ROLLBACK", timeout=_ROLLBACK_S_MAX)
    except DRIVER_ERRORS:
        connection.terminate()
    except BaseException:
        connection.terminate()
        raise


def _refuse_closed(connection: "Connection") -> None:
    if connection.is_closed():
        message = "the connection to PostgreSQL ended before anything was committed"
        raise ConnectionEndedError(message)


def _raise_unknown(error: BaseException, connection: "Connection", *, asked: str) -> NoReturn:
    """Raise that nobody knows what was committed, and end the connection."""
    connection.terminate()
    if not isinstance(error, DRIVER_ERRORS):
        raise error
    message = f"the answer to {asked} did not come: {said_by(error)}"
    raise CommitUnknownError(message) from error


def _raise(error: BaseException, connection: "Connection") -> NoReturn:
    """Raise the error as callers of transactions know it."""
    if not isinstance(error, DRIVER_ERRORS):
        raise error
    if is_asked_again(error):
        message = f"PostgreSQL asks for the transaction again: {said_by(error)}"
        raise AskedAgainError(message) from error
    is_closed = connection.is_closed()
    if is_end_of_connection(error, is_closed=is_closed):
        message = f"the connection to PostgreSQL ended: {said_by(error)}"
        raise ConnectionEndedError(message) from error
    named = translated(error, is_closed=is_closed)
    if named is error:
        raise error
    if isinstance(named, ConstraintViolatedError):
        # Not with its cause: the details of that are the values of a row, which no log may hold.
        if isinstance(error, asyncpg.UniqueViolationError):
            raise KeyTakenError(*named.args) from None
        raise named from None
    raise named from error
