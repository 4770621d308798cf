"""A database with a table of jars besides ours."""

from collections.abc import AsyncIterator

import pytest

from orderkeep.database.postgresql import PostgresDatabase
from tests.integration.database.jars import CREATE, engine
from tests.plain_sql import PostgresPlainSql, run_alone


@pytest.fixture
def url(postgresql_url: str):
    """A database with a table of jars besides ours."""
    run_alone(postgresql_url, CREATE)
    yield postgresql_url
    run_alone(postgresql_url, "DROP TABLE jars")


@pytest.fixture
def sql(url: str) -> PostgresPlainSql:
    return PostgresPlainSql(url)


@pytest.fixture
async def jars(url: str) -> AsyncIterator[PostgresDatabase]:
    """The engine on the database with the jars."""
    database = engine(url)
    yield database
    await database.close()
