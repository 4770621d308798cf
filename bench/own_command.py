"""A command that runs while something is measured: started, watched, ended by its id."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

_START_LIMIT_S = 30.0
_STOP_LIMIT_S = 40.0
_LOOK_AGAIN_S = 0.05
_SHOWN_LOG_LENGTH = 2000

_ROOT = Path(__file__).parents[1]


@contextmanager
def running_command(
    name: str, *, port: int, environment: Mapping[str, str], log_path: Path
) -> Iterator["RunningProgram"]:
    """Run `orderkeep NAME`, from when it is ready until the context ends.

    Args:
        name: Of the command.
        port: Where it answers that it is ready.
        environment: Its settings, by the names of their variables.
        log_path: Where its log goes.

    Raises:
        RuntimeError: it ended by itself.
        TimeoutError: it is not ready in time.
    """
    with running_program(
        [str(Path(sys.executable).with_name("orderkeep")), name],
        is_ready=lambda: answers_ready(port),
        environment={
            **{k: v for k, v in os.environ.items() if not k.startswith("ORDERKEEP_")},
            **environment,
        },
        log_path=log_path,
    ) as running:
        yield running


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningProgram:
    """A program that runs.

    Attributes:
        process_id: Its own; it may have children.
        check: Raises if it no longer runs; for while something is waited for.
    """

    process_id: int
    check: Callable[[], None]


@contextmanager
def running_program(
    command: Sequence[str],
    *,
    is_ready: Callable[[], bool],
    environment: Mapping[str, str],
    log_path: Path,
) -> Iterator[RunningProgram]:
    """Run a program, from when it is ready until the context ends.

    Args:
        command: What to run; its name is its first words.
        is_ready: Asked again and again until it is true.
        environment: All of it.
        log_path: Where its log goes.

    Raises:
        RuntimeError: it ended by itself.
        TimeoutError: it is not ready in time.
    """
    name = f"{Path(command[0]).name} {' '.join(command[1:])}"
    with log_path.open("wb") as log_file:
        process = subprocess.Popen(  # noqa: S603 (our own commands)
            command, cwd=_ROOT, env=environment, stdout=log_file, stderr=subprocess.STDOUT
        )

    def check() -> None:
        if process.poll() is not None:
            message = (
                f"`{name}` ended by itself, with code {process.returncode}:\n"
                f"{log_path.read_text(encoding='utf-8')[-_SHOWN_LOG_LENGTH:]}"
            )
            raise RuntimeError(message)

    try:
        _await_ready(name, is_ready, check=check)
        yield RunningProgram(process_id=process.pid, check=check)
    except Exception:
        # If the command is gone, that is why; whatever failed for want of it says less.
        check()
        raise
    finally:
        try:
            process.terminate()
            process.wait(_STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def answers_ready(port: int) -> bool:
    """Whether a service on this machine answers that it is ready."""
    try:
        answer = httpx.get(f"http://127.0.0.1:{port}/health/ready")
    except httpx.TransportError:
        return False
    return answer.status_code == httpx.codes.OK


def _await_ready(name: str, is_ready: Callable[[], bool], *, check: Callable[[], None]) -> None:
    give_up_at_s = time.monotonic() + _START_LIMIT_S
    while time.monotonic() < give_up_at_s:
        check()
        if is_ready():
            return
        threading.Event().wait(_LOOK_AGAIN_S)
    message = f"`{name}` is not ready after {_START_LIMIT_S:g} s"
    raise TimeoutError(message)
