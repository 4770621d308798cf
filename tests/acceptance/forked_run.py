"""`orderkeep run` in a process that need not import it first: for tests that start it very often.

The process is forked from one that has imported everything and runs nothing. From there on it is
what `orderkeep run` is: a process of its own, with its own environment and log, that can be killed.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.context import ForkServerContext, ForkServerProcess
from multiprocessing.forkserver import _forkserver  # type: ignore[attr-defined]
from pathlib import Path

from tests.acceptance.running import RunningShop


class ForkedRun:
    """The process, with the methods of `subprocess.Popen` that `RunningShop` uses."""

    def __init__(self, process: ForkServerProcess) -> None:
        self._process = process
        process.start()

    @property
    def returncode(self) -> int | None:
        """How it ended; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """Return how it ended, or None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return how it ended.

        Raises:
            TimeoutExpired: it still runs.
        """
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("run", timeout or 0.0)
        return self._process.exitcode

    def kill(self) -> None:
        """End it the way a power cut would."""
        self._process.kill()

    def send_signal(self, number: int) -> None:
        """Send it a signal."""
        assert self._process.pid is not None
        os.kill(self._process.pid, number)


class ForkedShop(RunningShop):
    """A shop whose process is forked."""

    def __init__(
        self, folder: Path, environment: Mapping[str, str], *, origin: ForkServerContext
    ) -> None:
        super().__init__(folder, environment)
        self._origin = origin

    def _start_process(self) -> "subprocess.Popen[bytes]":
        process = self._origin.Process(target=_run, args=(self.environment, str(self._log_path)))
        return ForkedRun(process)  # type: ignore[return-value]  # it has the methods that are used


@contextmanager
def origin_of_runs() -> Iterator[ForkServerContext]:
    """Return where runs are forked from, for as long as the context lasts."""
    # A server that another test left behind has imported something else.
    _forkserver._stop()  # type: ignore[attr-defined]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["__main__", __name__, "orderkeep.cli", "orderkeep.wiring.processes", "uvloop"]
    )
    try:
        yield context
    finally:
        _forkserver._stop()  # type: ignore[attr-defined]


def _run(environment: Mapping[str, str], log_path: str) -> None:
    # multiprocessing ignores the interrupt of a terminal in its children.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for standard in (1, 2):
        os.dup2(log, standard)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["orderkeep", "run"]
    from orderkeep.cli import main  # noqa: PLC0415 (the origin has imported it already)

    main()
