"""Looking at a real PostgreSQL that nobody of ours gets into."""

import pytest

from orderkeep.database import postgresql_connection
from orderkeep.settings import load_settings
from orderkeep.wiring import chance
from orderkeep.wiring.doctor.database import examine_database


@pytest.mark.parametrize("is_pooled", [False, True])
async def test_a_server_that_is_too_old_is_told_by_its_version(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch, *, is_pooled: bool
) -> None:
    monkeypatch.setattr(postgresql_connection, "POSTGRESQL_VERSION_MIN", 99)
    environ = {"ORDERKEEP_DATABASE_URL": postgresql_url}
    if is_pooled:
        environ["ORDERKEEP_DATABASE_DIRECT_URL"] = f"{postgresql_url}?application_name=direct"

    examinations = await examine_database(load_settings(environ), now=chance.now)

    (wrong,) = [each for each in examinations if each.verdict.value == "wrong"]
    assert wrong.name == "database.version"
    assert "is too old: 99 or newer is needed" in wrong.found
    assert wrong.remedy == "upgrade the server"
