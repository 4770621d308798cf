"""`orderkeep` in a process that need not import it first: for tests that start it very often.

The process is forked from one that has imported everything and runs nothing. From there on it is
what `orderkeep run`, `serve` or `work` is: a process of its own, with its own environment and log,
that can be killed.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.context import ForkServerContext, ForkServerProcess
from multiprocessing.forkserver import _forkserver  # type: ignore[attr-defined]
from pathlib import Path

from tests.acceptance.running import RunningShop

# Threads may start, look at and end processes: what the module keeps of them is for one at a time.
_turn = threading.RLock()

_LOOK_S = 0.01


class ForkedRun:
    """The process, with the methods of `subprocess.Popen` that `RunningShop` uses."""

    def __init__(self, process: ForkServerProcess) -> None:
        self._process = process
        self._pause = threading.Event()
        with _turn:
            process.start()

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """How it ended; None while it runs."""
        return self.poll()

    def poll(self) -> int | None:
        """Return how it ended, or None while it runs."""
        with _turn:
            return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return how it ended.

        Raises:
            TimeoutExpired: it still runs.
        """
        give_up_at = None if timeout is None else time.monotonic() + timeout
        while (returncode := self.poll()) is None:
            if give_up_at is not None and time.monotonic() > give_up_at:
                raise subprocess.TimeoutExpired("orderkeep", timeout or 0.0)
            self._pause.wait(_LOOK_S)
        return returncode

    def kill(self) -> None:
        """End it the way a power cut would."""
        self.send_signal(signal.SIGKILL)

    def send_signal(self, number: int) -> None:
        """Send it a signal."""
        with _turn:
            if self._process.exitcode is None:
                os.kill(self.pid, number)


class ForkedShop(RunningShop):
    """A shop whose process is forked."""

    def __init__(
        self, folder: Path, environment: Mapping[str, str], *, origin: ForkServerContext
    ) -> None:
        super().__init__(folder, environment)
        self._origin = origin

    def _start_process(self) -> "subprocess.Popen[bytes]":
        return forked(self._origin, "run", environment=self.environment, log_path=self._log_path)


def forked(
    origin: ForkServerContext, *words: str, environment: Mapping[str, str], log_path: Path
) -> "subprocess.Popen[bytes]":
    """Start `orderkeep WORDS` with the environment, and all that it says in the log."""
    process = origin.Process(target=_run, args=(words, environment, str(log_path)))
    return ForkedRun(process)  # type: ignore[return-value]  # it has the methods that are used


@contextmanager
def origin_of_runs(*preloaded: str) -> Iterator[ForkServerContext]:
    """Return where runs are forked from, for as long as the context lasts.

    Args:
        preloaded: Modules that the started one imports, besides those of the service.
    """
    # A server that another test left behind has imported something else.
    _forkserver._stop()  # type: ignore[attr-defined]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        [_main_module(), __name__, *preloaded, "orderkeep.cli", "orderkeep.wiring.processes"]
    )
    try:
        yield context
    finally:
        _forkserver._stop()  # type: ignore[attr-defined]


def _main_module() -> str:
    """Return what the module that was started is of: each child runs it again, quickly then."""
    spec = sys.modules["__main__"].__spec__
    return "__main__" if spec is None else spec.name.removesuffix(".__main__")


def _run(words: Sequence[str], environment: Mapping[str, str], log_path: str) -> None:
    # multiprocessing ignores the interrupt of a terminal in its children.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for standard in (1, 2):
        os.dup2(log, standard)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["orderkeep", *words]
    from orderkeep.cli import main  # noqa: PLC0415 (the origin has imported it already)

    main()
