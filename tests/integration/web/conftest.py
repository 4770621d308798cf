"""A small application for each test, and one with what operators call."""

from collections.abc import AsyncIterator

import httpx
import pytest

from orderkeep.database.transaction import Database
from orderkeep.web.admin_routes import ROUTE_HANDLERS as OPERATION_ROUTES
from orderkeep.web.audit import AuditDesk
from orderkeep.web.audit_routes import ROUTE_HANDLERS as AUDIT_ROUTES
from orderkeep.web.health import Readiness
from orderkeep.web.replay_routes import ROUTE_HANDLERS as REPLAY_ROUTES
from tests.integration.web.message_stage import Stage, read_status
from tests.unit.web.small_shop import Shop


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.fixture
def stage(database: Database) -> Stage:
    return Stage(database)


@pytest.fixture
async def client(shop: Shop, stage: Stage) -> AsyncIterator[httpx.AsyncClient]:
    """An operator, who may do everything."""
    shop.route_handlers = [*OPERATION_ROUTES, *REPLAY_ROUTES, *AUDIT_ROUTES]
    shop.dependencies = {
        "operations_desk": stage.desk(),
        "replay_desk": stage.replay_desk(),
        "audit_desk": AuditDesk(stage.database),
        "readiness": Readiness([]),
        "read_status": read_status,
    }
    async with shop.client() as client:
        client.headers.update(shop.headers("operator"))
        yield client
