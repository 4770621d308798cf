"""Looks at the database that the settings name: reads facts, and has them judged."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from orderkeep.database.postgresql_facts import PostgresqlFacts, read_postgresql_facts
from orderkeep.database.postgresql_pooler import POOLER_FOUND, POOLER_REMEDY
from orderkeep.database.schema import METADATA
from orderkeep.database.schema_version import SCHEMA_WORDS, SchemaState, find_schema_state
from orderkeep.database.sqlite_facts import (
    read_sqlite_facts,
    read_synchronous,
    sqlite_library_version,
)
from orderkeep.database.transaction import (
    Database,
    ReadTransaction,
    StoreTooOldError,
    StoreUnavailableError,
    TransactionPoolerError,
)
from orderkeep.instant import MICROSECONDS_PER_SECOND, Instant
from orderkeep.settings import Settings
from orderkeep.settings_values import masked_url
from orderkeep.wiring.doctor.examination import (
    Examination,
    Verdict,
    fine,
    skipped,
    warning,
    wrong,
)
from orderkeep.wiring.doctor.of_messages import examine_messages
from orderkeep.wiring.doctor.of_postgresql import (
    ClockFacts,
    examine_clock,
    examine_connections,
    examine_old_server,
    examine_role,
    examine_server,
)
from orderkeep.wiring.doctor.of_settings import is_local
from orderkeep.wiring.doctor.of_sqlite import examine_file, examine_library
from orderkeep.wiring.operator_desks import build_status_reader
from orderkeep.wiring.readiness import OUTBOX_AGE_S_MAX
from orderkeep.wiring.storage import build_outboxes, open_database, schema_url

Now = Callable[[], Instant]

# Where migrations write down how far they have come.
_VERSION_TABLE = "alembic_version"

# The shortest of several round trips says most about two clocks.
_CLOCK_LOOKS_COUNT = 5


async def examine_database(settings: Settings, *, now: Now) -> list[Examination]:
    """Return what there is to say about the database and what waits in it.

    Args:
        settings: Name it.
        now: Reads this machine's clock.
    """
    path = settings.sqlite_path
    if path is not None:
        return await _examine_sqlite(settings, path)
    return await _examine_postgresql(settings, now=now)


async def _examine_sqlite(settings: Settings, path: Path) -> list[Examination]:
    examinations = [examine_library(sqlite_library_version())]
    if examinations[0].verdict is Verdict.WRONG:
        return examinations
    if not await asyncio.to_thread(path.exists):
        # Opening it would make it.
        found = f"there is no database at {path} yet: `orderkeep run` makes it"
        return [*examinations, skipped("database.reachable", found)]
    try:
        facts = await asyncio.to_thread(read_sqlite_facts, path)
        if facts.journal_mode != "wal":
            # A connection as the service has it would change that.
            examinations += examine_file(facts, synchronous=None)
            examinations.append(await _examine_schema(settings))
            return examinations
        database = open_database(settings)
        try:
            synchronous = await database.read(read_synchronous)
            examinations.append(fine("database.reachable", f"it is at {path}"))
            examinations += examine_file(facts, synchronous=synchronous)
            schema = await _examine_schema(settings)
            examinations.append(schema)
            if schema.verdict is Verdict.OK:
                examinations += await _examine_messages(settings, database)
        finally:
            await database.close()
    except StoreUnavailableError as error:
        examinations.append(
            wrong(
                "database.reachable",
                f"{path} cannot be used: {error}",
                remedy="look at who owns the file and its directory, and whether the disk is full",
            )
        )
    return examinations


async def _examine_postgresql(settings: Settings, *, now: Now) -> list[Examination]:
    shown = masked_url(settings.effective_database_url)
    database = open_database(settings)
    try:
        direct = await _examine_direct_url(settings, database)
        if direct.verdict is Verdict.WRONG and not _has_direct_url(settings):
            # Statements are prepared on such a connection, which a pooler would mix up.
            return [direct, skipped("database", "it is looked at once this is right")]
        try:
            facts = await database.read(read_postgresql_facts)
            clock = await database.read(lambda transaction: _read_clock(transaction, now=now))
        except StoreTooOldError as error:
            return [examine_old_server(error)]
        except StoreUnavailableError as error:
            return [_unreachable("database.reachable", shown, error), direct]
        examinations = [
            fine("database.reachable", f"{shown} answers to the role {facts.role}"),
            direct,
            *examine_server(facts, is_local=is_local(urlsplit(shown).hostname)),
            examine_clock(clock),
            examine_connections(facts, pool_size=settings.database_pool_size),
            *examine_role(facts, table_names={*METADATA.tables, _VERSION_TABLE}),
        ]
        examinations += await _examine_contents(settings, database, facts=facts)
        return examinations
    finally:
        await database.close()


async def _examine_contents(
    settings: Settings, database: Database, *, facts: PostgresqlFacts
) -> list[Examination]:
    """Return what there is to say about schema and messages, as far as the role may look."""
    unreadable = {each.name for each in facts.relations if "SELECT" in each.missing_rights}
    if facts.schema_name is None or _VERSION_TABLE in unreadable:
        return [skipped("database.schema", "the role lacks the right to look")]
    schema = await _examine_schema(settings)
    if schema.verdict is not Verdict.OK or unreadable & METADATA.tables.keys():
        return [schema, skipped("messages", "they cannot be read as things stand")]
    return [schema, *await _examine_messages(settings, database)]


async def _read_clock(transaction: ReadTransaction, *, now: Now) -> ClockFacts:
    """Return how the clocks stand, by the middle of the quickest round trip."""
    looks: list[ClockFacts] = []
    for _ in range(_CLOCK_LOOKS_COUNT):
        asked_at = now()
        there = await transaction.now()
        heard_at = now()
        looks.append(
            ClockFacts(
                ahead_s=(there - (asked_at + heard_at) / 2) / MICROSECONDS_PER_SECOND,
                uncertainty_s=(heard_at - asked_at) / 2 / MICROSECONDS_PER_SECOND,
            )
        )
    return min(looks, key=lambda look: look.uncertainty_s)


async def _examine_direct_url(settings: Settings, database: Database) -> Examination:
    """Return whether dispatchers get connections of their own."""
    name = "database.direct"
    shown = masked_url(settings.effective_database_direct_url)
    try:
        session = await database.open_session(on_lost=_ignore)
    except TransactionPoolerError:
        return wrong(name, f"{shown}: {POOLER_FOUND}", remedy=POOLER_REMEDY)
    except StoreTooOldError as error:
        return examine_old_server(error)
    except StoreUnavailableError as error:
        name = name if _has_direct_url(settings) else "database.reachable"
        return _unreachable(name, shown, error)
    await session.close()
    return fine(name, "dispatchers have a connection, and its locks, to themselves")


async def _examine_schema(settings: Settings) -> Examination:
    name = "database.schema"
    try:
        state = await asyncio.to_thread(find_schema_state, schema_url(settings))
    except StoreUnavailableError as error:
        return _unreachable(name, masked_url(settings.effective_database_direct_url), error)
    if state is SchemaState.CURRENT:
        return fine(name, "it is that of this release")
    words = SCHEMA_WORDS[state]
    if state is SchemaState.AHEAD:
        return wrong(name, words.found, remedy=words.remedy)
    if settings.is_embedded:
        remedy = f"make a backup; then {words.remedy}, or `orderkeep run`"
        return warning(name, words.found, remedy=remedy)
    return wrong(
        name,
        f"{words.found}: `serve` and `work` do not start",
        remedy=f"make a backup; then {words.remedy} as the role that owns the tables",
    )


async def _examine_messages(settings: Settings, database: Database) -> list[Examination]:
    reader = build_status_reader(settings, build_outboxes(settings))
    status = await database.read(reader.read_gauges)
    return list(
        examine_messages(
            status, outbox_age_s_max=settings.outbox_poll_interval_s + OUTBOX_AGE_S_MAX
        )
    )


def _has_direct_url(settings: Settings) -> bool:
    return settings.effective_database_direct_url != settings.effective_database_url


def _unreachable(name: str, shown_url: str, error: StoreUnavailableError) -> Examination:
    return wrong(
        name,
        f"{shown_url} cannot be used: {error}",
        remedy="is the server up, is the address right, does pg_hba.conf let this machine in, and"
        " does the role have this password?",
    )


def _ignore() -> None:
    """Need not hear that the session ended: it was opened to be closed."""
