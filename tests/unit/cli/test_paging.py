"""A page at a time, or all of it."""

import pytest

from orderkeep.cli import paging
from orderkeep.cli.paging import Page, Paging, print_page

ITEMS = [f"item-{number}" for number in range(250)]


class Shelf:
    """A list of 250 items whose cursor is the index to go on from."""

    def __init__(self) -> None:
        self.asked: list[tuple[str | None, int]] = []

    async def fetch(self, cursor: str | None, count: int) -> Page[str]:
        self.asked.append((cursor, count))
        start = int(cursor or 0)
        items = ITEMS[start : start + count]
        is_last = start + count >= len(ITEMS)
        return Page(items=items, next_cursor=None if is_last else str(start + count))


async def test_one_page_is_fetched_as_asked() -> None:
    shelf = Shelf()

    page = await Paging(limit=20, cursor="40", is_whole=False).collect(shelf.fetch)

    assert page == Page(items=ITEMS[40:60], next_cursor="60")
    assert shelf.asked == [("40", 20)]


async def test_all_of_it_is_fetched_in_the_largest_pages() -> None:
    shelf = Shelf()

    page = await Paging(limit=20, cursor=None, is_whole=True).collect(shelf.fetch)

    assert page == Page(items=ITEMS, next_cursor=None)
    assert shelf.asked == [(None, 100), ("100", 100), ("200", 100)]


async def test_what_is_too_long_to_hold_tells_where_to_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(paging, "ALL_COUNT_MAX", 150)

    page = await Paging(limit=20, cursor=None, is_whole=True).collect(Shelf().fetch)

    assert page == Page(items=ITEMS[:200], next_cursor="200")


def test_the_next_page_is_told_beside_the_answer(capsys: pytest.CaptureFixture[str]) -> None:
    print_page(Page(items=["a"], next_cursor="abc"), ("name",), lambda item: (item,))

    shown = capsys.readouterr()
    assert shown.out.split() == ["name", "a"]
    assert shown.err == "There are more: --cursor abc\n"


def test_an_empty_list_is_told_beside_the_answer(capsys: pytest.CaptureFixture[str]) -> None:
    print_page(Page(items=[], next_cursor=None), ("name",), lambda item: (item,))

    assert capsys.readouterr() == ("", "There are none.\n")
