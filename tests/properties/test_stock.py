"""Admission to stock: never more than there is, in order of arrival, all or nothing."""

from hypothesis import given
from hypothesis import strategies as st

from orderkeep.orders.stock import (
    Accepted,
    MovementKind,
    Short,
    StockCounts,
    admit,
    counts_from,
)

SKUS = st.sampled_from(["tea", "pot", "mug"])
AVAILABLE = st.dictionaries(SKUS, st.integers(min_value=0, max_value=20))
DEMANDS = st.lists(
    st.dictionaries(SKUS, st.integers(min_value=1, max_value=12), min_size=1), max_size=12
)


@given(DEMANDS, AVAILABLE)
def test_nothing_is_oversold_and_nothing_is_lost(
    demands: list[dict[str, int]], available: dict[str, int]
) -> None:
    admission = admit(demands, available=available)

    assert len(admission.verdicts) == len(demands)
    assert set(admission.remaining) == set(available)
    for sku_id, there_was in available.items():
        assert admission.remaining[sku_id] >= 0
        assert admission.remaining[sku_id] + admission.taken.get(sku_id, 0) == there_was
    for sku_id, quantity in admission.taken.items():
        assert quantity == sum(
            demand.get(sku_id, 0)
            for demand, verdict in zip(demands, admission.verdicts, strict=True)
            if isinstance(verdict, Accepted)
        )


@given(DEMANDS, AVAILABLE)
def test_each_is_decided_as_if_alone_with_what_those_before_it_left(
    demands: list[dict[str, int]], available: dict[str, int]
) -> None:
    left = dict(available)
    one_by_one = []
    for demand in demands:
        alone = admit([demand], available=left)
        one_by_one.append(alone.verdicts[0])
        left = dict(alone.remaining)

    together = admit(demands, available=available)

    assert together.verdicts == tuple(one_by_one)
    assert together.remaining == left


@given(DEMANDS, AVAILABLE)
def test_a_demand_is_refused_only_for_what_is_truly_short(
    demands: list[dict[str, int]], available: dict[str, int]
) -> None:
    left = dict(available)
    for demand, verdict in zip(demands, admit(demands, available=available).verdicts, strict=True):
        short = {sku_id for sku_id, quantity in demand.items() if quantity > left.get(sku_id, 0)}

        assert isinstance(verdict, Short) == bool(short)
        if isinstance(verdict, Short):
            assert {it.sku_id for it in verdict.shortages} == short
            assert all(it.available == left.get(it.sku_id, 0) for it in verdict.shortages)
            assert all(it.requested == demand[it.sku_id] for it in verdict.shortages)
        else:
            left = {sku_id: there - demand.get(sku_id, 0) for sku_id, there in left.items()}


@given(
    st.lists(st.tuples(st.sampled_from(list(MovementKind)), st.integers(min_value=1, max_value=50)))
)
def test_only_adjustments_change_how_much_there_is(
    movements: list[tuple[MovementKind, int]],
) -> None:
    counts = counts_from(movements)

    assert counts.total == sum(
        quantity for kind, quantity in movements if kind is MovementKind.ADJUST
    )
    assert counts_from(movements[::-1]) == counts
    assert counts.plus(StockCounts()) == counts
