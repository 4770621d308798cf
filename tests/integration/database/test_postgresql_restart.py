"""A server that goes away under load: "not now" while it is gone, served as soon as it is back."""

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import text

from orderkeep.database.postgresql import PostgresDatabase
from orderkeep.database.statement import Statement
from orderkeep.database.transaction import (
    CommitUnknownError,
    StoreUnavailableError,
    Transaction,
)
from tests.condition import eventually
from tests.plain_sql import PostgresPlainSql, run_and_leave
from tests.servers.postgresql import PrivatePostgresServer, start_private_postgresql

pytestmark = pytest.mark.slow

_WRITE = Statement(text("INSERT INTO seen (n) VALUES (:n)"))


@pytest.fixture
def server(tmp_path: Path):
    server = start_private_postgresql(tmp_path)
    run_and_leave(server.url("postgres"), ["CREATE TABLE seen (n bigint PRIMARY KEY)"])
    yield server
    server.kill()


class Writers:
    """Many who write one number after the other, and note what they were answered."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database
        self._next = 0
        self.answered: set[int] = set()
        self.unknown: set[int] = set()
        self.refused: set[int] = set()

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            self._next += 1
            number = self._next

            async def work(transaction: Transaction, number: int = number) -> None:
                await transaction.execute(_WRITE, n=number)

            try:
                await self._database.transact(work)
            except CommitUnknownError:
                self.unknown.add(number)
            except StoreUnavailableError:
                self.refused.add(number)
                await asyncio.sleep(0.01)
            else:
                self.answered.add(number)


@pytest.mark.parametrize("way", ["restart", "kill"])
async def test_it_writes_again_once_the_server_is_back_and_keeps_what_it_answered(
    server: PrivatePostgresServer, way: str
):
    url = server.url("postgres")
    database = PostgresDatabase(url, draw_jitter=lambda: 0.5, pool_wait_s=5.0)
    writers = Writers(database)
    stop = asyncio.Event()
    lost: list[str] = []
    await database.open_session(on_lost=lambda: lost.append("session"))

    tasks = [asyncio.create_task(writers.run(stop)) for _ in range(12)]
    await eventually(lambda: len(writers.answered) > 50)
    await asyncio.to_thread(server.stop if way == "restart" else server.kill)
    await eventually(lambda: bool(writers.refused))
    await asyncio.to_thread(server.start)
    answered_count = len(writers.answered)
    await eventually(lambda: len(writers.answered) > answered_count + 50, deadline_s=5.0)
    stop.set()
    await asyncio.gather(*tasks)
    session = await database.open_session(on_lost=lambda: None)
    assert len(await session.hold_share("outbox", part_count=16)) == 16
    await database.close()

    kept = {row["n"] for row in PostgresPlainSql(url).rows("SELECT n FROM seen")}
    assert writers.answered <= kept
    assert not writers.refused & kept
    assert kept <= writers.answered | writers.unknown
    assert lost == ["session"]


async def test_a_server_that_has_become_a_replica_says_not_now(
    server: PrivatePostgresServer,
) -> None:
    """Reading goes on there, so it is the writing that must find out; no connection is kept."""
    (row,) = server.query("SHOW data_directory")
    server.stop()
    (Path(str(row["data_directory"])) / "standby.signal").touch()
    server.start()
    database = PostgresDatabase(server.url("postgres"), draw_jitter=lambda: 0.5)

    with pytest.raises(StoreUnavailableError, match="replica"):
        await database.transact(lambda transaction: transaction.execute(_WRITE, n=1))

    assert await database.read(lambda transaction: transaction.now()) > 0
    await database.close()
