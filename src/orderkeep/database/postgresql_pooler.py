"""Finds out whether a connection is one of its own, or leads through a pooler that shares it out.

A pooler in transaction mode serves each transaction of a client by whichever process of the server
is free: a lock that outlives its transaction is then held by a stranger, and two dispatchers could
hold the same part.
"""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import asyncpg

from orderkeep.database.postgresql_errors import DRIVER_ERRORS, said_by
from orderkeep.database.transaction import StoreUnavailableError, TransactionPoolerError

if TYPE_CHECKING:
    from orderkeep.database.postgresql_connection import Connection

# A pooler is found at the first of these as a rule: it hands out the process used last. More of
# them for when others use it at the same time.
_OTHERS_COUNT = 3

_ANSWER_S = 5.0

POOLER_FOUND = (
    "this connection to PostgreSQL leads through a pooler that gives each transaction another"
    " one, so no lock can be held"
)
POOLER_REMEDY = (
    "let ORDERKEEP_DATABASE_DIRECT_URL name the server itself, or a pooler in session mode"
)
POOLER_WORDS = f"{POOLER_FOUND}: {POOLER_REMEDY}"


async def refuse_transaction_pooler(
    connection: "Connection", *, connect: Callable[[], Awaitable["Connection"]]
) -> None:
    """Raise if the connection's transactions are served by changing processes.

    A lone client of a pooler is given the same process again and again. So others are let in
    between, each in a transaction that holds a process: none of them may be served by the one that
    served this connection, and this connection is still to be served by it.

    Args:
        connection: Is in no transaction, and nothing is set on it yet: through a pooler, it would
            be set for strangers.
        connect: Opens another connection to the same place.

    Raises:
        TransactionPoolerError: they are.
        StoreUnavailableError: the database is away.
    """
    others: list[Connection] = []
    try:
        pid = await _pid(connection)
        for _ in range(_OTHERS_COUNT):
            other = await connect()
            others.append(other)
            await other.execute("BEGIN", timeout=_ANSWER_S)
            if await _pid(other) == pid:
                raise TransactionPoolerError(POOLER_WORDS)
        if await _pid(connection) != pid:
            raise TransactionPoolerError(POOLER_WORDS)
    except asyncpg.InvalidSQLStatementNameError:
        # What one process has prepared, another does not know.
        raise TransactionPoolerError(POOLER_WORDS) from None
    except DRIVER_ERRORS as error:
        message = f"cannot tell whether a pooler stands before PostgreSQL: {said_by(error)}"
        raise StoreUnavailableError(message) from error
    finally:
        for other in others:
            other.terminate()


async def _pid(connection: "Connection") -> int:
    pid: int = await connection.fetchval("SELECT pg_backend_pid()", timeout=_ANSWER_S)
    return pid
