"""Eighty small worlds, each at odds with everything; and that a seed is one world."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.repo.checkout import ROOT

# Forty worlds take some five to fifteen seconds of one core.
TIMEOUT_S = 300


def begin(*arguments: str, hash_seed: int = 0) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.simulation", "--json", "--minutes", "4", *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONHASHSEED": str(hash_seed)},
        stdout=subprocess.PIPE,
        text=True,
    )


def outcome(running: subprocess.Popen[str]) -> dict[str, Any]:
    text, _ = running.communicate(timeout=TIMEOUT_S)
    return json.loads(text)


@pytest.mark.slow
@pytest.mark.timeout(2 * TIMEOUT_S)
def test_no_invariant_breaks_in_eighty_worlds():
    running = [
        begin("--seeds", f"{first}..{first + 39}", "--orders-per-seed", "12", "--processes", "1")
        for first in (1, 101)
    ]

    totals = [outcome(each) for each in running]

    assert [each["breaches"] for each in totals] == [[], []]
    assert sum(each["seeds_count"] for each in totals) == 80
    # That nothing breaks would say little if little went wrong.
    for each in totals:
        assert each["faults"]["kill"] > 20
        assert each["faults"]["kill-at-point"] > 10
        assert each["faults"]["commit-unknown-and-done"] > 100
        assert each["faults"]["confirm-lost"] > 10
        assert each["asked"]["unknown"] > 100
        assert each["races"].keys() >= {
            "pay against cancel: cancelled",
            "pay against cancel: paid",
            "pay against close: closed",
            "pay against close: paid",
        }


@pytest.mark.slow
@pytest.mark.timeout(2 * TIMEOUT_S)
def test_a_seed_is_one_world_in_every_python_process():
    """Equal to the last step, whatever order the sets of this process have."""
    first, second = (
        outcome(begin("--seed", "5", "--orders-per-seed", "40", hash_seed=hash_seed))
        for hash_seed in (1, 4_242)
    )
    other = outcome(begin("--seed", "6", "--orders-per-seed", "40"))

    assert first["digest"] == second["digest"]
    assert first["commits_count"] == second["commits_count"] > 100
    assert other["digest"] != first["digest"]


@pytest.mark.slow
@pytest.mark.timeout(2 * TIMEOUT_S)
def test_several_processes_add_up_to_what_one_does():
    arguments = ("--seeds", "11..99", "--orders-per-seed", "10", "--orders", "60")
    one, two = (outcome(begin(*arguments, "--processes", count)) for count in ("1", "2"))

    durations = {"real_s", "processor_s"}
    assert two["seeds"] == [11, 16]
    assert two["commits_count"] > 100
    assert {name: two[name] for name in two.keys() - durations} == {
        name: one[name] for name in one.keys() - durations
    }
