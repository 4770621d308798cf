"""What to think of a PostgreSQL server, of our role on it and of the way there. PURE."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from orderkeep.database.postgresql_facts import PostgresqlFacts
from orderkeep.database.transaction import StoreTooOldError
from orderkeep.wiring.doctor.examination import (
    Examination,
    counted,
    fine,
    listed,
    warning,
    wrong,
)

# Beside its pool a process has a session for each dispatcher, and one that listens for wake-ups.
SESSIONS_OF_A_PROCESS_COUNT = 4

# Two that serve and two that work: the smallest set-up in which any one of them may end.
_PROCESSES_COUNT_MIN = 4

# Due times are compared with the database's clock, tokens and signatures with this machine's. A
# second is what machines that ask a time server never reach; ten is where tokens begin to fail.
_SKEW_S_WARNING = 1.0
_SKEW_S_WRONG = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockFacts:
    """How the database's clock stands to this machine's.

    Attributes:
        ahead_s: How far the database's is ahead; negative where it is behind.
        uncertainty_s: Half of the round trip in which it was asked.
    """

    ahead_s: float
    uncertainty_s: float


def examine_server(facts: PostgresqlFacts, *, is_local: bool) -> Iterator[Examination]:
    """Yield what the server is and how it is set up.

    Args:
        facts: What it says.
        is_local: Whether the way to it stays on this machine.
    """
    # One that is too old lets nobody of ours in: see `examine_old_server`.
    yield fine("database.version", f"PostgreSQL {facts.version}")
    if facts.encoding != "UTF8":
        yield wrong(
            "database.encoding",
            f"the database's encoding is {facts.encoding}: a name that it lacks letters for fails"
            " the order",
            remedy="make the database anew with ENCODING 'UTF8'",
        )
    if facts.read_only is not None:
        yield wrong(
            "database.writable",
            f"nothing can be written: {facts.read_only}",
            remedy="name the primary in ORDERKEEP_DATABASE_URL, by an address that follows it",
        )
    yield from _durability(facts)
    yield _upkeep(facts)
    if not facts.is_encrypted and not is_local:
        yield warning(
            "database.encryption",
            "the connection is not encrypted: passwords and orders cross the network in the clear",
            remedy="add `?sslmode=verify-full` to ORDERKEEP_DATABASE_URL, and turn `ssl` on at the"
            " server",
        )


def examine_old_server(refusal: StoreTooOldError) -> Examination:
    """Return what to do about a server that is too old to be used at all."""
    return wrong("database.version", str(refusal), remedy="upgrade the server")


def examine_role(facts: PostgresqlFacts, *, table_names: Collection[str]) -> Iterator[Examination]:
    """Yield whether our role may do what it has to, and no more.

    Args:
        facts: What the server says.
        table_names: Of all tables that this release has.
    """
    if facts.schema_name is None:
        yield wrong(
            "database.rights",
            f"the role {facts.role} may use no schema that it looks into",
            remedy=f"as the owner: GRANT USAGE ON SCHEMA public TO {quoted(facts.role)}",
        )
        return
    ours = [
        each
        for each in facts.relations
        # A sequence has the name of its table before that of its column.
        if each.name in table_names or each.name.removesuffix("_id_seq") in table_names
    ]
    missing = {each.name: each.missing_rights for each in ours if each.missing_rights}
    if missing:
        yield wrong(
            "database.rights",
            f"the role {facts.role} lacks rights: "
            + listed(
                [f"{', '.join(rights)} on {name}" for name, rights in missing.items()],
                separator="; ",
            ),
            remedy="as the owner of the tables run deploy/postgresql/grants.sql, which also grants"
            " what later migrations make",
        )
    elif ours:
        yield fine(
            "database.rights", f"the role {facts.role} may read and write {len(ours)} relations"
        )
    owned_count = sum(each.is_owned for each in ours)
    if facts.excess_attributes:
        yield warning(
            "database.role",
            f"the role {facts.role} may do more than it needs:"
            f" {', '.join(facts.excess_attributes)}",
            remedy="let the service have a role of its own that may only read and write"
            " (deploy/postgresql/roles.sql)",
        )
    elif owned_count:
        yield warning(
            "database.role",
            f"the role {facts.role} owns the tables: it may change and drop them",
            remedy="let another role own them and run `orderkeep migrate`, and the service have"
            " one that may only read and write (deploy/postgresql/roles.sql)",
        )


def examine_connections(facts: PostgresqlFacts, *, pool_size: int) -> Examination:
    """Return whether the server has connections for a few processes of this pool size."""
    need = pool_size + SESSIONS_OF_A_PROCESS_COUNT
    fitting = facts.connections_max // need
    found = (
        f"a process has up to {need} connections, and {facts.connections_max} are to be had"
        f" ({facts.connections_used} are in use): enough for"
        f" {counted(fitting, 'process', many='processes')}"
    )
    if fitting < _PROCESSES_COUNT_MIN:
        return warning(
            "database.connections",
            found,
            remedy="lower ORDERKEEP_DATABASE_POOL_SIZE, or raise max_connections, or the limit of"
            " the role or the database; or put a pooler before it, and name the server itself in"
            " ORDERKEEP_DATABASE_DIRECT_URL",
        )
    return fine("database.connections", found)


def examine_clock(facts: ClockFacts) -> Examination:
    """Return whether the two clocks agree."""
    name = "database.clock"
    direction = "ahead of" if facts.ahead_s >= 0 else "behind"
    found = (
        f"the database's clock is {abs(facts.ahead_s):.3f} s {direction} this machine's"
        f" (± {facts.uncertainty_s:.3f} s)"
    )
    remedy = "have both machines follow a time server, such as with chrony"
    if abs(facts.ahead_s) > _SKEW_S_WRONG:
        return wrong(
            name,
            f"{found}: tokens and signatures are judged by another time than deadlines",
            remedy=remedy,
        )
    if abs(facts.ahead_s) > _SKEW_S_WARNING:
        return warning(name, found, remedy=remedy)
    return fine(name, found)


def quoted(name: str) -> str:
    """Return a name as SQL reads it, whatever it holds."""
    return '"' + name.replace('"', '""') + '"'


def _durability(facts: PostgresqlFacts) -> Iterator[Examination]:
    for name, value, loss in (
        ("database.fsync", facts.fsync, "a power cut may leave a database that cannot be read"),
        (
            "database.full_page_writes",
            facts.full_page_writes,
            "a power cut may leave pages that are half old and half new",
        ),
        (
            "database.synchronous_commit",
            facts.synchronous_commit,
            "a crash takes orders and payments that were answered",
        ),
    ):
        setting = name.removeprefix("database.")
        if value == "off":
            yield wrong(
                name,
                f"{setting} is off: {loss}",
                remedy=f"ALTER SYSTEM SET {setting} = on, and SELECT pg_reload_conf(); look also"
                " at ALTER ROLE and ALTER DATABASE settings",
            )
        else:
            yield fine(name, f"{setting} is {value}")


def _upkeep(facts: PostgresqlFacts) -> Examination:
    name = "database.autovacuum"
    if facts.autovacuum == "on":
        return fine(name, "autovacuum is on")
    return warning(
        name,
        "autovacuum is off: what was sent and settled is never cleared out of the tables, nor are"
        " they counted, so all work takes longer from hour to hour",
        remedy="ALTER SYSTEM SET autovacuum = on, SELECT pg_reload_conf(), and once"
        " VACUUM (ANALYZE)",
    )
