"""Wake-ups between processes: quick when they come, and nothing is lost when they do not."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import asyncpg
import pytest
from structlog.testing import capture_logs

from orderkeep.database.postgresql_wake_ups import PostgresWakeUps
from tests.condition import eventually
from tests.plain_sql import PostgresPlainSql

LISTENERS = (
    "SELECT pid FROM pg_stat_activity"
    " WHERE application_name = 'orderkeep' AND datname = current_database()"
)


@asynccontextmanager
async def at_work(*all_wake_ups: PostgresWakeUps, wait: bool = True) -> AsyncIterator[None]:
    """Let each send and hear, as processes would."""
    stop = asyncio.Event()
    tasks = [asyncio.create_task(wake_ups.run(stop)) for wake_ups in all_wake_ups]
    if wait:
        for wake_ups in all_wake_ups:
            await eventually(partial(getattr, wake_ups, "_is_connected"))
    try:
        yield
    finally:
        stop.set()
        await asyncio.gather(*tasks)


def wake_ups_of(url: str) -> PostgresWakeUps:
    return PostgresWakeUps(url, draw_jitter=lambda: 0.0)


async def test_a_tell_wakes_the_loops_of_that_name_in_other_processes_alone(postgresql_url: str):
    here, there = wake_ups_of(postgresql_url), wake_ups_of(postgresql_url)
    woken: list[str] = []
    tell = here.relay("outbox", lambda: woken.append("outbox here"))
    here.relay("queue", lambda: woken.append("queue here"))
    there.relay("outbox", lambda: woken.append("outbox there"))
    there.relay("queue", lambda: woken.append("queue there"))

    async with at_work(here, there):
        woken.clear()
        tell()
        await eventually(lambda: bool(woken))

    assert woken == ["outbox there"]


async def test_many_tells_are_a_few_wake_ups(postgresql_url: str):
    here, there = wake_ups_of(postgresql_url), wake_ups_of(postgresql_url)
    woken: list[str] = []
    tells = [here.relay(name, lambda: None) for name in ("a", "b")]
    for name in ("a", "b"):
        there.relay(name, partial(woken.append, name))

    async with at_work(here, there):
        woken.clear()
        for _ in range(1000):
            for tell in tells:
                tell()
        await eventually(lambda: set(woken) == {"a", "b"})

    assert len(woken) == 2


async def test_what_every_process_tells_is_heard_by_every_other(postgresql_url: str):
    processes = [wake_ups_of(postgresql_url) for _ in range(3)]
    woken: list[int] = []
    tells = [
        process.relay("outbox", partial(woken.append, number))
        for number, process in enumerate(processes)
    ]

    async with at_work(*processes):
        woken.clear()
        tells[0]()
        await eventually(lambda: sorted(woken) == [1, 2])
        tells[2]()
        await eventually(lambda: sorted(woken) == [0, 1, 1, 2])


async def test_after_a_lost_connection_everybody_looks_once(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("orderkeep.database.postgresql_wake_ups._PAUSE_BASE_S", 0.01)
    here, there = wake_ups_of(postgresql_url), wake_ups_of(postgresql_url)
    woken: list[str] = []
    here.relay("outbox", lambda: woken.append("outbox"))
    here.relay("queue", lambda: woken.append("queue"))
    tell = there.relay("outbox", lambda: None)
    sql = PostgresPlainSql(postgresql_url)

    with capture_logs() as logs:
        async with at_work(here, there):
            woken.clear()
            for row in sql.rows(LISTENERS):
                sql.rows("SELECT pg_terminate_backend(:pid)", pid=row["pid"])
            await eventually(lambda: sorted(woken) == ["outbox", "queue"])
            await eventually(lambda: there._is_connected)
            tell()
            await eventually(lambda: sorted(woken) == ["outbox", "outbox", "queue"])

    events = sorted(line["event"] for line in logs)
    assert events == ["wake_ups_back"] * 2 + ["wake_ups_lost"] * 2


async def test_a_server_that_is_away_is_asked_again_and_told_of_once(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("orderkeep.database.postgresql_wake_ups._PAUSE_BASE_S", 0.001)
    connect_count = 0

    async def refuse(*_args, **_options):
        nonlocal connect_count
        connect_count += 1
        raise ConnectionRefusedError

    monkeypatch.setattr(asyncpg, "connect", refuse)
    wake_ups = wake_ups_of("postgresql://postgres@127.0.0.1:1/shop")
    tell = wake_ups.relay("outbox", lambda: None)

    with capture_logs() as logs:
        async with at_work(wake_ups, wait=False):
            tell()
            await eventually(lambda: connect_count >= 3)

    assert [line["event"] for line in logs] == ["wake_ups_lost"]


async def test_where_nothing_is_heard_it_says_so_once_and_polls_remain(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("orderkeep.database.postgresql_wake_ups._ECHO_S_MAX", 0.05)
    wake_ups = wake_ups_of(postgresql_url)
    monkeypatch.setattr(wake_ups, "_hear", lambda *_heard: None)
    tell = wake_ups.relay("outbox", lambda: None)

    with capture_logs() as logs:
        async with at_work(wake_ups, wait=False):
            await eventually(lambda: bool(logs))
            tell()

    assert [line["event"] for line in logs] == ["wake_ups_unheard"]
