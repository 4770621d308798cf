"""A busy shop that is killed at random instants, again and again, loses and doubles nothing."""

import random  # noqa: TID251 (the seed is drawn from pytest's own, and printed)
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.kill_runner import run_kills

# `make kills` does fifty.
KILL_COUNT = 6


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_a_shop_killed_under_load_loses_and_doubles_nothing(
    tmp_path: Path, stands_beside_the_verdict: Callable[[str], None]
) -> None:
    seed = random.randrange(2**32)  # noqa: S311 (for variety)

    report = await run_kills(tmp_path, kill_count=KILL_COUNT, seed=seed)

    stands_beside_the_verdict(report.table())
    assert report.lost == []
    assert report.doubled == []
    assert report.unexpected == []
    assert report.acknowledged_count > 0
    assert report.found_count == report.acknowledged_count
    assert report.verify_exit_code == 0
