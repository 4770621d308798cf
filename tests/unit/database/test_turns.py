"""Lines before one writer: who goes first, who joins, and that nobody waits for ever."""

import asyncio

from orderkeep.database.turns import TURNS_PAST_MAX, Turns, giving_way, going_first


def lines(*, front: list[str], behind: list[str], first: list[str] | None = None) -> Turns[str]:
    turns: Turns[str] = Turns()
    for name in front:
        turns.add(name)

    async def add(names: list[str]) -> None:
        for name in names:
            turns.add(name)

    asyncio.run(give_way(lambda: add(behind)))
    asyncio.run(go_first(lambda: add(first or [])))
    return turns


async def go_first(add) -> None:
    await going_first(add)()


async def give_way(add) -> None:
    await giving_way(add)()


def test_those_in_front_go_first_each_line_in_the_order_it_came():
    turns = lines(front=["a", "b"], behind=["x", "y"])

    assert [turns.begin() for _ in range(5)] == ["a", "b", "x", "y", None]


def test_a_turn_is_shared_within_one_line():
    turns = lines(front=["a", "b"], behind=["x", "y"])

    assert [turns.begin(), turns.join(), turns.join()] == ["a", "b", None]
    assert [turns.begin(), turns.join(), turns.join()] == ["x", "y", None]


def test_who_goes_first_begins_before_all_others_and_shares_with_those_in_front():
    turns = lines(front=["a", "b"], behind=["x"], first=["m", "n"])

    assert [turns.begin(), turns.begin(), turns.begin()] == ["m", "n", "a"]

    turns = lines(front=["a"], behind=["x"], first=["m"])

    assert [turns.begin(), turns.join(), turns.join()] == ["m", "a", None]


def test_those_in_front_are_not_passed_without_end_either():
    turns = lines(front=["a"], behind=["x"], first=[f"m{number}" for number in range(100)])

    begun = [turns.begin() for _ in range(2 * TURNS_PAST_MAX)]

    assert begun.index("a") == 9
    assert begun.index("x") == 10


def test_nobody_joins_those_who_give_way_once_somebody_waits_in_front():
    turns = lines(front=[], behind=["x", "y"])
    assert turns.begin() == "x"

    turns.add("a")

    assert turns.join() is None
    assert [turns.begin(), turns.begin()] == ["a", "y"]


def test_who_gives_way_is_not_passed_without_end():
    turns = lines(front=[f"a{number}" for number in range(100)], behind=["x", "y"])

    begun = [turns.begin() for _ in range(2 * TURNS_PAST_MAX + 2)]

    assert begun.index("x") == 9
    assert begun.index("y") == 19


def test_turns_that_passed_nobody_are_not_counted():
    turns = lines(front=[f"a{number}" for number in range(100)], behind=[])
    for _ in range(50):
        turns.begin()

    asyncio.run(give_way(lambda: add_later(turns)))

    assert "x" not in [turns.begin() for _ in range(TURNS_PAST_MAX)]
    assert turns.begin() == "x"


async def add_later(turns: Turns[str]) -> None:
    turns.add("x")


async def test_a_task_gives_way_with_the_loop_that_started_it_and_with_no_other():
    turns: Turns[str] = Turns()

    async def loop() -> None:
        await asyncio.create_task(add("started by who gives way"))

    async def add(name: str) -> None:
        turns.add(name)

    await asyncio.gather(giving_way(loop)(), add("in front"))

    assert [turns.begin(), turns.begin()] == ["in front", "started by who gives way"]
