"""What a PostgreSQL server says of itself, of our role and of our tables; for `orderkeep doctor`.

Invariant: everything here is read, in the transaction that is handed over, and nothing is judged.
A crash leaves nothing behind.
"""

from dataclasses import dataclass

from sqlalchemy import text

from orderkeep.database.statement import Statement
from orderkeep.database.transaction import ReadTransaction, Row

# Far above the number of our tables and sequences: a database that others use as well may hold more
# than we want to read.
_RELATIONS_COUNT_MAX = 2000

# `true` as second argument: a setting that this version does not have is NULL, not an error.
_SERVER = Statement(
    text("""
SELECT
  current_setting('server_version') AS version,
  current_setting('server_encoding') AS encoding,
  current_setting('fsync') AS fsync,
  current_setting('full_page_writes') AS full_page_writes,
  current_setting('synchronous_commit') AS synchronous_commit,
  current_setting('autovacuum') AS autovacuum,
  current_setting('default_transaction_read_only') AS read_only_by_default,
  pg_is_in_recovery() AS is_replica,
  current_setting('max_connections')::int AS connections_max,
  current_setting('superuser_reserved_connections')::int
    + coalesce(current_setting('reserved_connections', true)::int, 0) AS connections_reserved,
  (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')
    AS connections_used,
  (SELECT datconnlimit FROM pg_database WHERE datname = current_database())
    AS connections_of_database_max,
  current_schema() AS schema_name,
  (SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()) AS is_encrypted
""")
)

_ROLE = Statement(
    text("""
SELECT rolname AS name, rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls,
  rolconnlimit
FROM pg_roles WHERE rolname = current_user LIMIT 1
""")
)

_RELATIONS = Statement(
    text(f"""
SELECT c.relname AS name, c.relkind = 'S' AS is_sequence,
  pg_has_role(c.relowner, 'USAGE') AS is_owned,
  has_table_privilege(c.oid, 'SELECT') AS may_select,
  has_table_privilege(c.oid, 'INSERT') AS may_insert,
  has_table_privilege(c.oid, 'UPDATE') AS may_update,
  has_table_privilege(c.oid, 'DELETE') AS may_delete,
  CASE WHEN c.relkind = 'S' THEN has_sequence_privilege(c.oid, 'USAGE') ELSE false END AS may_usage
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = current_schema() AND c.relkind IN ('r', 'p', 'S')
ORDER BY c.relname LIMIT {_RELATIONS_COUNT_MAX}
""")  # noqa: S608 (a constant of this module)
)

# Which attributes of a role are more than an application needs, and what each of them allows.
_EXCESS = {
    "rolsuper": "SUPERUSER",
    "rolcreatedb": "CREATEDB",
    "rolcreaterole": "CREATEROLE",
    "rolreplication": "REPLICATION",
    "rolbypassrls": "BYPASSRLS",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RelationFacts:
    """A table or a sequence, and what our role may do with it.

    Attributes:
        is_owned: Whether the role may also change its definition, or drop it.
        missing_rights: In SQL's words, such as `INSERT`; empty where nothing is missing.
    """

    name: str
    is_owned: bool
    missing_rights: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresqlFacts:
    """What the server says.

    Attributes:
        read_only: Why nothing can be written, or None where it can.
        connections_max: How many the role may have in this database, whichever limit comes first.
        connections_used: How many clients the server has now, of all roles and databases.
        schema_name: Where our tables are looked for; None where the role may use no schema.
        excess_attributes: Of the role, in SQL's words, such as `SUPERUSER`.
        is_encrypted: Whether this connection is.
    """

    version: str
    encoding: str
    fsync: str
    full_page_writes: str
    synchronous_commit: str
    autovacuum: str
    read_only: str | None
    connections_max: int
    connections_used: int
    schema_name: str | None
    role: str
    excess_attributes: tuple[str, ...]
    is_encrypted: bool
    relations: tuple[RelationFacts, ...]


async def read_postgresql_facts(transaction: ReadTransaction) -> PostgresqlFacts:
    """Return what the server says to our role."""
    server = await transaction.fetch_one(_SERVER)
    role = await transaction.fetch_one(_ROLE)
    assert server is not None, "a query without FROM yields a row"
    assert role is not None, "the current role exists"
    relations = await transaction.fetch_all(_RELATIONS)
    return PostgresqlFacts(
        version=server["version"],
        encoding=server["encoding"],
        fsync=server["fsync"],
        full_page_writes=server["full_page_writes"],
        synchronous_commit=server["synchronous_commit"],
        autovacuum=server["autovacuum"],
        read_only=_read_only(server),
        connections_max=_connections_max(server, role),
        connections_used=server["connections_used"],
        schema_name=server["schema_name"],
        role=role["name"],
        excess_attributes=tuple(word for name, word in _EXCESS.items() if role[name]),
        is_encrypted=bool(server["is_encrypted"]),
        relations=tuple(_relation(row) for row in relations),
    )


def _connections_max(server: Row, role: Row) -> int:
    limits: list[int] = [server["connections_max"] - server["connections_reserved"]]
    # -1 is no limit.
    limits += [
        limit
        for limit in (server["connections_of_database_max"], role["rolconnlimit"])
        if limit >= 0
    ]
    return min(limits)


def _read_only(server: Row) -> str | None:
    if server["is_replica"]:
        return "it is a replica, which only repeats what its primary does"
    if server["read_only_by_default"] == "on":
        return "default_transaction_read_only is on"
    return None


def _relation(row: Row) -> RelationFacts:
    needed = ("USAGE",) if row["is_sequence"] else ("SELECT", "INSERT", "UPDATE", "DELETE")
    return RelationFacts(
        name=row["name"],
        is_owned=row["is_owned"],
        missing_rights=tuple(right for right in needed if not row[f"may_{right.lower()}"]),
    )
