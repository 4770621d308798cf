"""What a shopper is going to do, decided from drawn numbers."""

from collections import Counter

import pytest

from orderkeep.demo.shopper import (
    STORY_WEIGHTS,
    KeyKind,
    Story,
    Visit,
    WantedLine,
    choose_story,
    plan_visit,
)

SKU_IDS = ["tea", "cup", "kettle", "tray"]

HIGHEST = 1 - 2**-53


def test_a_visit_is_told_by_its_numbers() -> None:
    visit = plan_visit([0.0, 0.5, 0.5, 0.34, 0.0, 0.0, 0.75, 0.9, 0.5, 0.5], sku_ids=SKU_IDS)

    assert visit == Visit(
        story=Story.PAYS,
        key_kind=KeyKind.HEADER,
        lines=(WantedLine(sku_id="tea", quantity=1), WantedLine(sku_id="tray", quantity=3)),
        pause_s=0.025,
    )


def test_the_highest_numbers_make_a_visit_too() -> None:
    visit = plan_visit([HIGHEST] * 10, sku_ids=SKU_IDS)

    assert visit.story is Story.WANTS_TOO_MUCH
    assert visit.lines == (
        WantedLine(sku_id="tray", quantity=3),
        WantedLine(sku_id="demo-last-few", quantity=9_999),
    )


def test_the_same_sku_drawn_twice_is_one_line() -> None:
    visit = plan_visit([0.0, 0.0, 0.0, 0.9, 0.3, 0.0, 0.3, 0.9, 0.9, 0.0], sku_ids=SKU_IDS)

    assert [line.sku_id for line in visit.lines] == ["cup", "tray"]


def test_who_wants_the_unknown_asks_for_something_known_as_well() -> None:
    visit = plan_visit([0.95, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0], sku_ids=SKU_IDS)

    assert visit.story is Story.WANTS_UNKNOWN_SKU
    assert [line.sku_id for line in visit.lines] == ["tea", "demo-no-such-thing"]


def test_stories_come_up_by_their_weights() -> None:
    counts = Counter(choose_story((number + 0.5) / 1000) for number in range(1000))

    assert counts == {
        Story.PAYS: 440,
        Story.PAYS_AT_SECOND_TRY: 60,
        Story.PAYS_LATE: 80,
        Story.CANCELS: 120,
        Story.WALKS_AWAY: 100,
        Story.ORDERS_TWICE: 100,
        Story.CHANGES_ORDER_UNDER_KEY: 40,
        Story.WANTS_UNKNOWN_SKU: 30,
        Story.WANTS_TOO_MUCH: 30,
    }


def test_every_story_has_a_weight_and_they_make_a_hundred() -> None:
    assert {story for story, _ in STORY_WEIGHTS} == set(Story)
    assert sum(weight for _, weight in STORY_WEIGHTS) == 100


@pytest.mark.parametrize(("drawn", "sku_ids"), [([0.0] * 9, SKU_IDS), ([0.0] * 10, [])])
def test_too_few_numbers_or_an_empty_shop_is_refused(
    drawn: list[float], sku_ids: list[str]
) -> None:
    with pytest.raises(ValueError, match="a visit takes 10 numbers and at least one SKU"):
        plan_visit(drawn, sku_ids=sku_ids)
