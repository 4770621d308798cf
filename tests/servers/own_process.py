"""A server process that belongs to this one: started here, ended by its pid, never outliving us.

Ended in three ways: by a test, at the exit of this process, and, should this process be killed, by
a watcher. The watcher is a shell that reads from a pipe we hold open: the end of that pipe is our
end, whatever ended us.
"""

import atexit
import itertools
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # it brings no types

# Generous: a machine that runs several test runs at once starts servers slowly.
START_S_MAX = 90.0
STOP_S_MAX = 60.0

_LOOK_S = 0.02

# Below the ports that systems give to outgoing connections (from 32768 on Linux). A client that
# tries to reach a stopped server on one of those may be given that very port, and connect to
# itself; and then the server cannot have its port back.
_PORTS = range(20_000, 32_000)

_given_ports: set[int] = set()


class ServerNotStartedError(Exception):
    """A server ended, or took too long, before it answered; the text holds its log."""


class OwnProcess:
    """A program that may be started, stopped and killed, again and again.

    Attributes:
        environment: All of it; what is changed here counts from the next start on.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        log_path: Path,
        user: str | None = None,
    ) -> None:
        """Start nothing yet.

        Args:
            command: The program must stay the process that it is started as.
            environment: All of it.
            log_path: Where it writes what it has to say, over all starts.
            user: Whom it runs as; None is the user of this process.
        """
        self._command = list(command)
        self.environment = dict(environment)
        self._log_path = log_path
        self._user = user
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher: subprocess.Popen[bytes] | None = None
        self._owner_pid = os.getpid()
        atexit.register(self._end_with_owner)

    @property
    def is_alive(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process id of the latest start."""
        assert self._process is not None, "it was never started"
        return self._process.pid

    def start(self) -> None:
        """Start it, and do not wait for it."""
        assert not self.is_alive, "it runs already"
        self._dismiss_watcher()
        with self._log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the tests, which then end it
                cwd="/",
                **_run_as(self._user),
            )
        self._watcher = subprocess.Popen(
            ["/bin/sh", "-c", 'read -r _; kill -9 "$0"', str(self._process.pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def stop(self, signal_no: int = signal.SIGTERM) -> None:
        """Ask it to end and wait until it has; kill it if it does not.

        Raises:
            subprocess.TimeoutExpired: it did not end by itself.
        """
        if self._process is not None and self.is_alive:
            self._process.send_signal(signal_no)
            try:
                self._process.wait(STOP_S_MAX)
            except subprocess.TimeoutExpired:
                self.kill()
                raise
        self._dismiss_watcher()

    def kill(self) -> None:
        """End it and all its children the way a power cut would, if it runs."""
        if self._process is not None and self.is_alive:
            family = psutil.Process(self._process.pid)
            # It must not have another child between being asked for them and its end.
            family.suspend()
            children = family.children(recursive=True)
            self._process.kill()
            for child in children:
                _kill(child)
            self._process.wait(STOP_S_MAX)
            wait_until(
                lambda: not any(_is_running(child) for child in children),
                "the children of a killed process are gone",
                within_s=STOP_S_MAX,
            )
        self._dismiss_watcher()

    def log_text(self) -> str:
        """Return what it has said so far, over all starts."""
        return self._log_path.read_text(errors="replace") if self._log_path.exists() else ""

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until the condition holds.

        Raises:
            ServerNotStartedError: the process ended meanwhile, or it took too long.
        """

        def holds_or_ended() -> bool:
            return condition() or not self.is_alive

        try:
            wait_until(holds_or_ended, what, within_s=START_S_MAX)
        except TimeoutError as error:
            message = f"{error}\n{self.log_text()[-4000:]}"
            raise ServerNotStartedError(message) from error
        if not self.is_alive:
            message = f"it ended before {what}:\n{self.log_text()[-4000:]}"
            raise ServerNotStartedError(message)

    def _end_with_owner(self) -> None:
        # A forked child ends too, and it is not the one that this server belongs to.
        if os.getpid() == self._owner_pid:
            self.kill()

    def _dismiss_watcher(self) -> None:
        if self._watcher is not None:
            # Before its pipe is closed: it must not take this for our end.
            self._watcher.kill()
            self._watcher.wait()
            assert self._watcher.stdin is not None
            self._watcher.stdin.close()
            self._watcher = None


def run_to_end(
    command: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    user: str | None = None,
    timeout_s: float = START_S_MAX,
) -> str:
    """Run a program to its end and return what it wrote to its standard output.

    Args:
        command: The program and its arguments.
        environment: All of it; None is that of this process.
        user: Whom it runs as; None is the user of this process.
        timeout_s: It is killed when it takes longer.

    Raises:
        subprocess.CalledProcessError: it failed; what it wrote is in the notes.
    """
    done = subprocess.run(
        command,
        env=environment,
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        **_run_as(user),
    )
    try:
        done.check_returncode()
    except subprocess.CalledProcessError as error:
        error.add_note(f"{done.stdout}\n{done.stderr}"[-4000:])
        raise
    return done.stdout


def wait_until(condition: Callable[[], bool], what: str, *, within_s: float) -> None:
    """Return once the condition holds.

    Raises:
        TimeoutError: it took too long.
    """
    give_up_at = time.monotonic() + within_s
    pause = threading.Event()
    while not condition():
        if time.monotonic() > give_up_at:
            message = f"not within {within_s} s: {what}"
            raise TimeoutError(message)
        pause.wait(_LOOK_S)


def free_port() -> int:
    """Return a port that nothing listens on, and that this process was not given before."""
    # Processes that look at the same time begin at different places.
    offset = os.getpid() * 101
    for index in itertools.islice(itertools.count(offset), len(_PORTS)):
        port = _PORTS[index % len(_PORTS)]
        if port not in _given_ports and _is_free(port):
            _given_ports.add(port)
            return port
    message = f"no port from {_PORTS.start} to {_PORTS.stop} is free"
    raise OSError(message)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _run_as(user: str | None) -> dict:
    if user is None:
        return {}
    return {"user": user, "group": user, "extra_groups": []}


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return


def _is_running(process: psutil.Process) -> bool:
    try:
        # Some containers have a first process that buries nobody.
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
