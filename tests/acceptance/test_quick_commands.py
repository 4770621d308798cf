"""A command that looks something up loads nothing that only a service needs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

# What takes longest to load, and what it is for.
FOR_SERVICES = {"litestar", "httpx", "uvicorn", "alembic", "prometheus_client"}


@pytest.mark.parametrize(
    "command", ["status", "orders list", "outbox list", "dead-letters list", "payment-cases list"]
)
def test_what_only_a_service_needs_is_not_loaded(command: str, tmp_path: Path) -> None:
    environment = {**os.environ, "ORDERKEEP_DATA_DIR": str(tmp_path / "data")}
    subprocess.run(
        [sys.executable, "-m", "orderkeep", "migrate"],
        env=environment,
        capture_output=True,
        check=True,
    )

    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "orderkeep", *command.split()],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr[-500:]
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "sqlalchemy" in loaded  # or nothing of this is to be found here
    assert not FOR_SERVICES & loaded
