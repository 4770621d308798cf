"""How asyncpg tells arrays, which is changed here; an asyncpg that asks otherwise shows itself."""

from typing import Any

import asyncpg
import pytest
from asyncpg.protocol import protocol

from orderkeep.database.asyncpg_arrays import ASKED_FOR, ask_for_plain_types


async def unnested(url: str, given: Any) -> list[int]:
    """Return the members of an array, as the server has read them."""
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch("SELECT unnest($1::bigint[]) AS number", given)
    finally:
        await connection.close()
    return [row["number"] for row in rows]


class Counting(type):
    """A type that counts how often somebody asks what is of it."""

    asked_count = 0

    def __instancecheck__(cls, instance: Any) -> bool:
        Counting.asked_count += 1
        return isinstance(instance, list)


class Asked(metaclass=Counting):
    """Stands where asyncpg looks."""


@pytest.mark.parametrize("name", ASKED_FOR)
async def test_asyncpg_asks_through_the_names_that_are_changed(
    name: str, monkeypatch: pytest.MonkeyPatch, postgresql_url: str
):
    ask_for_plain_types()
    monkeypatch.setattr(protocol, name, Asked)
    monkeypatch.setattr(Counting, "asked_count", 0)

    assert await unnested(postgresql_url, [1, 2, 3]) == [1, 2, 3]
    assert Counting.asked_count > 0


@pytest.mark.parametrize(
    "given",
    [[1, 2], (1, 2), {1: 0, 2: 0}.keys(), range(1, 3)],
    ids=["list", "tuple", "keys", "range"],
)
async def test_what_is_an_array_stays_one(given: Any, postgresql_url: str):
    ask_for_plain_types()

    assert await unnested(postgresql_url, given) == [1, 2]


async def test_text_is_no_array(postgresql_url: str):
    ask_for_plain_types()

    with pytest.raises(asyncpg.DataError, match="sized iterable"):
        await unnested(postgresql_url, "12")
