"""Lists that may be long: a page at a time, or all of it."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Generic, TypeVar

import typer

from orderkeep.cli.terminal import note, print_json, print_table

# As the HTTP API has them; see orderkeep.contracts.page.
LIMIT_DEFAULT = 20
LIMIT_MAX = 100

# `--all` holds so much in memory; it tells the cursor to go on from.
ALL_COUNT_MAX = 100_000

Limit = Annotated[int, typer.Option("--limit", min=1, max=LIMIT_MAX, help="How many at most.")]
Cursor = Annotated[
    str | None, typer.Option("--cursor", help="Where the page before said to go on.")
]
All = Annotated[bool, typer.Option("--all", help="Every one, page after page.")]

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[T]):
    """Some items of a list; next_cursor is None at its end."""

    items: Sequence[T]
    next_cursor: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Paging:
    """Which part of a list is asked for."""

    limit: int
    cursor: str | None
    is_whole: bool

    async def collect(self, fetch: Callable[[str | None, int], Awaitable[Page[T]]]) -> Page[T]:
        """Return the part that is asked for.

        Args:
            fetch: Returns the page at a cursor, with so many items at most.
        """
        if not self.is_whole:
            return await fetch(self.cursor, self.limit)
        items: list[T] = []
        cursor = self.cursor
        while True:
            page = await fetch(cursor, LIMIT_MAX)
            items.extend(page.items)
            cursor = page.next_cursor
            if cursor is None or len(items) >= ALL_COUNT_MAX:
                return Page(items=items, next_cursor=cursor)


def print_page(
    page: Page[T], columns: Sequence[str], row_of: Callable[[T], Sequence[object]]
) -> None:
    """Print a page for a person, and how to see the next."""
    if page.items:
        print_table(columns, [row_of(item) for item in page.items])
    else:
        note("There are none.")
    if page.next_cursor is not None:
        note(f"There are more: --cursor {page.next_cursor}")


def print_page_json(page: Page[T]) -> None:
    """Print a page as the HTTP API answers it."""
    print_json({"items": list(page.items), "next_cursor": page.next_cursor})
