"""The commands of the Makefile, as far as they can be tried without installing anything."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.repo.checkout import ROOT, Finished

TARGETS = ["install", "run", "test", "check", "bench", "bench-full"]

# Old enough to be refused, whatever it is asked to do.
OLD_PYTHON = """#!/bin/sh
[ "$1" = --version ] && echo "Python 3.9.2" && exit 0
exit 1
"""


def make(*arguments: str, folder: Path = ROOT) -> Finished:
    finished = subprocess.run(
        ["make", "--no-print-directory", "-f", str(ROOT / "Makefile"), *arguments],
        check=False,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return Finished(exit_code=finished.returncode, output=finished.stdout)


def test_help_lists_every_target() -> None:
    text = (ROOT / "Makefile").read_text()
    phony = set(re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE)[0].split())

    listed = set(re.findall(r"^  make ([a-z-]+) ", make("help").output, re.MULTILINE))

    assert listed == phony
    assert set(TARGETS) <= listed


@pytest.mark.parametrize("target", TARGETS)
def test_the_target_installs_first_what_it_needs(tmp_path: Path, target: str) -> None:
    for name in ("pyproject.toml", "requirements-dev.lock", "requirements-bench.lock"):
        (tmp_path / name).touch()

    shown = make("--dry-run", target, folder=tmp_path)

    assert "--require-hashes" in shown.output, shown.output


def test_an_old_python_is_refused_with_a_way_out(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "requirements-dev.lock"):
        (tmp_path / name).touch()
    python = tmp_path / "python"
    python.write_text(OLD_PYTHON)
    python.chmod(0o755)

    finished = make("install", f"PYTHON={python}", folder=tmp_path)

    assert finished.exit_code == 2
    assert "Orderkeep needs Python 3.11 or newer" in finished.output
    assert "Python 3.9.2" in finished.output
    assert "make install PYTHON=python3.12" in finished.output
    assert not (tmp_path / ".venv").exists()


def test_what_ci_runs_is_make_test() -> None:
    script = ROOT / ".ci" / "run"

    commands = [line for line in script.read_text().splitlines() if line and line[0] != "#"]

    assert script.stat().st_mode & 0o111
    assert commands[-1] == "make test"
