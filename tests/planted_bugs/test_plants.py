"""Each planted mistake breaks the invariant that it should, and the world without it is whole."""

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest

from tests.planted_bugs.catalogue import PLANTS
from tests.repo.checkout import ROOT

# A change of the product makes another world of each seed; most plants are found by the first few.
SEEDS_MAX = 200

TIMEOUT_S = 400


@pytest.fixture(scope="module")
def searches() -> Mapping[str, Mapping[str, Any]]:
    """What became of the search for each plant, in a Python process of its own."""
    finished = subprocess.run(
        [sys.executable, "-m", "tests.planted_bugs", "--seeds-max", str(SEEDS_MAX)],
        check=False,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        timeout=TIMEOUT_S,
    )
    found = [json.loads(line) for line in finished.stdout.splitlines()]
    return {each["name"]: each for each in found}


@pytest.mark.slow
@pytest.mark.timeout(TIMEOUT_S + 60)
@pytest.mark.parametrize("name", PLANTS)
def test_the_plant_is_found_by_its_invariant_and_the_same_world_is_whole_without_it(
    name: str, searches: Mapping[str, Mapping[str, Any]]
):
    search = searches[name]

    assert search["seed"] is not None
    assert PLANTS[name].is_shown_by(invariant=search["invariant"], detail=search["detail"]), search
    assert search["is_whole_without"]


def test_at_least_twelve_mistakes_are_planted():
    assert len(PLANTS) >= 12
