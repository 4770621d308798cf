"""What tests of commands ask for: a way to run one in this process, on a folder of its own."""

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog
from typer.testing import CliRunner, Result

from orderkeep.cli import app

Invoke = Callable[..., Result]


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("ORDERKEEP_") or name in {"FORCE_COLOR", "GITHUB_ACTIONS"}:
            monkeypatch.delenv(name)
    monkeypatch.setenv("ORDERKEEP_DATA_DIR", str(tmp_path / "data"))


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """Leave no log line for the closed streams of a test that is over."""
    root = logging.getLogger()
    handlers, level, configuration = root.handlers[:], root.level, structlog.get_config()
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.configure(**configuration)


@pytest.fixture
def invoke() -> Invoke:
    """Return what runs `orderkeep ARGUMENTS` and returns its exit code and what it printed."""
    runner = CliRunner()

    def run(*arguments: str, stdin: str | None = None) -> Result:
        return runner.invoke(app, arguments, input=stdin, catch_exceptions=False)

    return run
