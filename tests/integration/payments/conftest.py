"""What tests of the payment service ask for."""

import pytest

from orderkeep.database.sqlite import SqliteDatabase
from tests.integration.payments.stage import Stage


@pytest.fixture
def stage(database: SqliteDatabase) -> Stage:
    """A payment service that has heard of nothing yet."""
    return Stage(database)
