"""What `/health/ready` asks: the database, its schema, the broker, and how old the outbox is."""

from collections.abc import Awaitable, Callable, Sequence

from orderkeep.database.schema_version import (
    SchemaState,
    find_schema_version,
    newest_schema_version,
    schema_state_of,
)
from orderkeep.database.transaction import Database, ReadTransaction
from orderkeep.messaging.broker import BrokerUnavailableError
from orderkeep.messaging.outbox import Outbox
from orderkeep.messaging.outbox_rows import OutboxRows
from orderkeep.settings import Settings
from orderkeep.web.health import CheckFailedError, ReadinessCheck
from orderkeep.wiring.storage import Brokers

# A dispatcher sends within a second. A row that has been allowed to go for so much longer than the
# poll says that none is at work, or that its route is down.
OUTBOX_AGE_S_MAX = 60.0

_Check = Callable[[], Awaitable[None]]


def readiness_checks(
    settings: Settings, *, database: Database, brokers: Brokers, outboxes: Sequence[Outbox]
) -> list[ReadinessCheck]:
    """Return the checks of a process; only the database and its schema are required.

    Orders are taken while the broker is away, and what they announce waits in the outbox.
    """
    age_s_max = settings.outbox_poll_interval_s + OUTBOX_AGE_S_MAX
    checks = [
        ReadinessCheck(
            name="database",
            is_required=True,
            # On a server that has become a replica reading still goes well, and nothing else.
            run=_database_answers(database.read if settings.is_embedded else database.transact),
        ),
        ReadinessCheck(name="schema", is_required=True, run=_schema_is_current(database)),
        ReadinessCheck(
            name="outbox",
            is_required=False,
            run=_outboxes_are_young(database, outboxes, age_s_max=age_s_max),
        ),
    ]
    if brokers.connect is not None:
        run = _broker_answers(brokers.connect)
        checks.append(ReadinessCheck(name="broker", is_required=False, run=run))
    return checks


def _database_answers(
    run: Callable[[Callable[[ReadTransaction], Awaitable[None]]], Awaitable[None]],
) -> _Check:
    async def work(transaction: ReadTransaction) -> None:
        await transaction.now()

    async def check() -> None:
        await run(work)

    return check


def _schema_is_current(database: Database) -> _Check:
    async def check() -> None:
        version = await database.read(find_schema_version)
        # While an upgrade goes from process to process, this one may be the older release: a
        # version that it does not know is newer, and serves the release before it as well.
        if schema_state_of(version) is SchemaState.BEHIND:
            message = f"the schema is at version {version}, not at {newest_schema_version()}"
            raise CheckFailedError(message)

    return check


def _broker_answers(connect: _Check) -> _Check:
    async def check() -> None:
        try:
            await connect()
        except BrokerUnavailableError as error:
            # Its words may hold addresses, which are nobody's business who asks here.
            message = "the broker cannot be reached: orders are taken, messages wait"
            raise CheckFailedError(message) from error

    return check


def _outboxes_are_young(
    database: Database, outboxes: Sequence[Outbox], *, age_s_max: float
) -> _Check:
    async def check() -> None:
        for outbox in outboxes:
            counts = await database.read(OutboxRows(outbox).counts)
            if counts.oldest_pending_s > age_s_max:
                message = (
                    f"{outbox.tables.outbox.name} has waited for {counts.oldest_pending_s:.0f} s:"
                    " no `orderkeep work` sends it, or its route is down"
                )
                raise CheckFailedError(message)

    return check
