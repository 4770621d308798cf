"""A connection to PostgreSQL as every user of it here must have it: with limits on every wait.

Invariant: no statement, no wait for a lock and no pause inside a transaction is without an end, and
a peer that is gone without a word is found in seconds, on either side.
"""

import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import asyncpg

from orderkeep.database.asyncpg_arrays import ask_for_plain_types
from orderkeep.database.postgresql_errors import DRIVER_ERRORS, said_by
from orderkeep.database.transaction import StoreTooOldError, StoreUnavailableError

ask_for_plain_types()

if TYPE_CHECKING:
    # At run time the driver's class takes no type of rows.
    Connection: TypeAlias = asyncpg.Connection[asyncpg.Record]

# The oldest that is still maintained when this release comes out.
POSTGRESQL_VERSION_MIN = 15

APPLICATION_NAME = "orderkeep"

# Every distinct statement of the service, with room to spare: a miss costs a round trip.
_CACHED_STATEMENTS_COUNT = 512

# A peer that is silent for so long is asked, so often and so many times, before it is given up;
# what it does not acknowledge for so long ends the connection. Long enough for a busy network.
_KEEPALIVE_IDLE_S = 3
_KEEPALIVE_INTERVAL_S = 1
_KEEPALIVE_COUNT = 3
_UNACKNOWLEDGED_MS_MAX = 6_000

# How much longer than the server's own limit this side waits for an answer: it should hear of it.
_ANSWER_MARGIN_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresLimits:
    """How long anything may take.

    Attributes:
        connect_s: A new connection, from the first packet to the first statement.
        statement_s: A statement of a transaction that may write, or of a session.
        read_statement_s: A statement on a snapshot: `verify` reads whole tables.
        lock_s: The wait for one lock; it holds others meanwhile.
        idle_in_transaction_s: A pause between two statements: only a process that was stopped or
            cut off makes one, and it holds locks.
        idle_session_s: A pause between two uses of a session: likewise.
    """

    connect_s: float = 3.0
    statement_s: float = 5.0
    read_statement_s: float = 60.0
    lock_s: float = 2.0
    idle_in_transaction_s: float = 10.0
    idle_session_s: float = 10.0

    @property
    def answer_s(self) -> float:
        """How long this side waits for the answer to a statement of a writing transaction."""
        return self.statement_s + _ANSWER_MARGIN_S

    @property
    def read_answer_s(self) -> float:
        """How long this side waits for the answer to a statement on a snapshot."""
        return self.read_statement_s + _ANSWER_MARGIN_S


async def connect(url: str, *, limits: PostgresLimits, is_pooled: bool = False) -> "Connection":
    """Return a new connection; its limits are set by `set_limits`, or by each `begin`.

    Args:
        url: `postgresql://…` as libpq reads it, `sslmode` and all.
        limits: How long anything may take.
        is_pooled: It leads through a pooler that may give each transaction another connection to
            the server, so nothing can be set or prepared beyond one.

    Raises:
        StoreTooOldError: the server is of a version that lacks something.
        StoreUnavailableError: it is away, or lets nobody in.
    """
    try:
        connection = await asyncpg.connect(
            url,
            timeout=limits.connect_s,
            statement_cache_size=0 if is_pooled else _CACHED_STATEMENTS_COUNT,
            max_cached_statement_lifetime=0,
            server_settings={"application_name": APPLICATION_NAME},
        )
    except (*DRIVER_ERRORS, ValueError) as error:
        # A ValueError is a URL that cannot be read.
        message = f"cannot connect to PostgreSQL: {said_by(error)}"
        raise StoreUnavailableError(message) from error
    try:
        _check_version(connection)
        _keep_alive(connection)
    except BaseException:
        connection.terminate()
        raise
    return connection


async def end_connection(connection: "Connection", *, within_s: float) -> None:
    """Say goodbye to the server; one that is away needs none."""
    try:
        await connection.close(timeout=within_s)
    except DRIVER_ERRORS:
        connection.terminate()


async def set_limits(
    connection: "Connection", *, limits: PostgresLimits, is_session: bool = False
) -> None:
    """Set the limits of a connection for as long as it lives.

    Args:
        is_session: It is to be lost when its process stops using it; and it reads, over and over,
            the first few rows in the order of an index.

    Raises:
        StoreUnavailableError: the connection is lost; it is closed.
    """
    settings = _settings(limits)
    if is_session:
        settings["idle_session_timeout"] = _milliseconds(limits.idle_session_s)
        # What its statements are by themselves no BEGIN says.
        settings |= {
            "default_transaction_isolation": "read committed",
            "default_transaction_read_only": "off",
        }
        # While the server has not counted the rows (a new table, a sudden crowd) it takes them for
        # few, and sorting all of them for cheaper than an index: a hundred times slower with fifty
        # thousand, just when there is most to do.
        settings |= {"enable_sort": "off", "enable_bitmapscan": "off"}
    try:
        await connection.execute(_set(settings, only_here=False), timeout=limits.connect_s)
    except DRIVER_ERRORS as error:
        connection.terminate()
        message = f"cannot set up a connection to PostgreSQL: {said_by(error)}"
        raise StoreUnavailableError(message) from error
    except BaseException:
        connection.terminate()
        raise


def limits_of_transaction(limits: PostgresLimits) -> str:
    """Return what sets the limits for the rest of the open transaction."""
    return _set(_settings(limits), only_here=True)


def begin(limits: PostgresLimits, *, is_pooled: bool) -> str:
    """Return what begins a transaction that may write, in one round trip."""
    if not is_pooled:
        return "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"
    return (
        "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;"
        f" {_set(_settings(limits), only_here=True)}"
    )


def begin_read(limits: PostgresLimits, *, is_pooled: bool) -> str:
    """Return what begins a snapshot, in one round trip."""
    settings = _settings(limits) if is_pooled else {}
    settings["statement_timeout"] = _milliseconds(limits.read_statement_s)
    return f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {_set(settings, only_here=True)}"


def _settings(limits: PostgresLimits) -> dict[str, str]:
    return {
        "TimeZone": "UTC",
        "statement_timeout": _milliseconds(limits.statement_s),
        "lock_timeout": _milliseconds(limits.lock_s),
        "idle_in_transaction_session_timeout": _milliseconds(limits.idle_in_transaction_s),
        "tcp_keepalives_idle": f"{_KEEPALIVE_IDLE_S}",
        "tcp_keepalives_interval": f"{_KEEPALIVE_INTERVAL_S}",
        "tcp_keepalives_count": f"{_KEEPALIVE_COUNT}",
        "tcp_user_timeout": f"{_UNACKNOWLEDGED_MS_MAX}",
    }


def _set(settings: dict[str, str], *, only_here: bool) -> str:
    word = "SET LOCAL" if only_here else "SET"
    return "; ".join(f"{word} {name} = '{value}'" for name, value in settings.items())


def _milliseconds(seconds: float) -> str:
    return f"{round(seconds * 1000)}ms"


def _check_version(connection: "Connection") -> None:
    version = connection.get_server_version()
    if version.major < POSTGRESQL_VERSION_MIN:
        message = (
            f"PostgreSQL {version.major}.{version.minor} is too old:"
            f" {POSTGRESQL_VERSION_MIN} or newer is needed"
        )
        raise StoreTooOldError(message)


def _keep_alive(connection: "Connection") -> None:
    # The driver has no setting for this, and hands out no socket.
    transport = connection._transport  # type: ignore[attr-defined]  # noqa: SLF001 (see above)
    peer: socket.socket | None = transport.get_extra_info("socket")
    if peer is None or peer.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", _KEEPALIVE_IDLE_S),
        ("TCP_KEEPINTVL", _KEEPALIVE_INTERVAL_S),
        ("TCP_KEEPCNT", _KEEPALIVE_COUNT),
        ("TCP_USER_TIMEOUT", _UNACKNOWLEDGED_MS_MAX),
    ):
        # Not every system has all of them.
        option: int | None = getattr(socket, name, None)
        if option is not None:
            peer.setsockopt(socket.IPPROTO_TCP, option, value)
