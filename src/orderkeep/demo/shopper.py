"""What a shopper is going to do, decided from drawn numbers before the first request.

Pure: the same numbers make the same visit, so a surprising run can be told again from its seed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum, unique
from itertools import accumulate
from typing import TypeVar


@unique
class Story(StrEnum):
    """How a visit goes once the cart is filled."""

    PAYS = "pays"
    PAYS_AT_SECOND_TRY = "pays_at_second_try"
    PAYS_LATE = "pays_late"
    CANCELS = "cancels"
    WALKS_AWAY = "walks_away"
    ORDERS_TWICE = "orders_twice"
    CHANGES_ORDER_UNDER_KEY = "changes_order_under_key"
    WANTS_UNKNOWN_SKU = "wants_unknown_sku"
    WANTS_TOO_MUCH = "wants_too_much"


@unique
class KeyKind(StrEnum):
    """What makes an order request safe to repeat."""

    TOKEN = "token"  # noqa: S105 (the word, not a token)
    HEADER = "header"


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedLine:
    """So many of one SKU."""

    sku_id: str
    quantity: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """One visit to the shop.

    Attributes:
        lines: What goes into the cart, each SKU once.
        pause_s: How long the shopper thinks between two steps.
    """

    story: Story
    key_kind: KeyKind
    lines: tuple[WantedLine, ...]
    pause_s: float


# Of a hundred visits. Most people pay; every other story comes up within a few seconds of load.
STORY_WEIGHTS: tuple[tuple[Story, int], ...] = (
    (Story.PAYS, 44),
    (Story.PAYS_AT_SECOND_TRY, 6),
    (Story.PAYS_LATE, 8),
    (Story.CANCELS, 12),
    (Story.WALKS_AWAY, 10),
    (Story.ORDERS_TWICE, 10),
    (Story.CHANGES_ORDER_UNDER_KEY, 4),
    (Story.WANTS_UNKNOWN_SKU, 3),
    (Story.WANTS_TOO_MUCH, 3),
)

LINE_COUNT_MAX = 3
QUANTITY_MAX = 3

# Long enough to let shoppers interleave, short enough for many visits in a short demo.
PAUSE_S_MAX = 0.05

# The story, the key, the pause, the number of lines, then a SKU and a quantity for each line.
DRAWN_COUNT = 4 + 2 * LINE_COUNT_MAX

# Nobody sells this.
UNKNOWN_SKU_ID = "demo-no-such-thing"

# Of this the demo puts only a few on the shelf; who wants too much wants a line's limit of it.
SCARCE_SKU_ID = "demo-last-few"
TOO_MUCH_QUANTITY = 9_999

Choice = TypeVar("Choice")


def plan_visit(drawn: Sequence[float], *, sku_ids: Sequence[str]) -> Visit:
    """Return the visit that the drawn numbers tell of.

    Args:
        drawn: `DRAWN_COUNT` numbers, each at least 0.0 and below 1.0.
        sku_ids: What the shop sells; at least one.

    Raises:
        ValueError: there are not that many numbers, or nothing is sold.
    """
    if len(drawn) != DRAWN_COUNT or not sku_ids:
        message = f"a visit takes {DRAWN_COUNT} numbers and at least one SKU"
        raise ValueError(message)
    story = choose_story(drawn[0])
    return Visit(
        story=story,
        key_kind=_chosen(tuple(KeyKind), drawn=drawn[1]),
        lines=_lines(drawn[3:], story=story, sku_ids=sku_ids),
        pause_s=drawn[2] * PAUSE_S_MAX,
    )


def choose_story(drawn: float) -> Story:
    """Return the story that a number from 0.0 to below 1.0 falls on, by the weights."""
    total = sum(weight for _, weight in STORY_WEIGHTS)
    stories = (story for story, _ in STORY_WEIGHTS)
    bounds = accumulate(weight for _, weight in STORY_WEIGHTS)
    return next(
        story for story, bound in zip(stories, bounds, strict=True) if drawn * total < bound
    )


def _lines(
    drawn: Sequence[float], *, story: Story, sku_ids: Sequence[str]
) -> tuple[WantedLine, ...]:
    line_count = 1 + int(drawn[0] * LINE_COUNT_MAX)
    quantities: dict[str, int] = {}
    for index in range(line_count):
        sku_id = _chosen(sku_ids, drawn=drawn[1 + 2 * index])
        quantities[sku_id] = 1 + int(drawn[2 + 2 * index] * QUANTITY_MAX)
    match story:
        case Story.WANTS_UNKNOWN_SKU:
            quantities[UNKNOWN_SKU_ID] = 1
        case Story.WANTS_TOO_MUCH:
            quantities[SCARCE_SKU_ID] = TOO_MUCH_QUANTITY
        case _:
            pass
    return tuple(
        WantedLine(sku_id=sku_id, quantity=quantity) for sku_id, quantity in quantities.items()
    )


def _chosen(choices: Sequence[Choice], *, drawn: float) -> Choice:
    return choices[int(drawn * len(choices))]
