"""A command of our own that runs while something is measured: started, watched, ended by its id."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

_START_LIMIT_S = 30.0
_STOP_LIMIT_S = 40.0
_LOOK_AGAIN_S = 0.05
_SHOWN_LOG_LENGTH = 2000


@contextmanager
def running_command(
    name: str, *, port: int, environment: Mapping[str, str], log_path: Path
) -> Iterator[Callable[[], None]]:
    """Run `orderkeep NAME`, from when it is ready until the context ends.

    Give what raises if it no longer runs, to be called while something is waited for.

    Args:
        name: Of the command.
        port: Where it answers that it is ready.
        environment: Its settings, by the names of their variables.
        log_path: Where its log goes.

    Raises:
        RuntimeError: it ended by itself.
        TimeoutError: it is not ready in time.
    """
    with log_path.open("wb") as log_file:
        process = subprocess.Popen(  # noqa: S603 (our own command)
            [str(Path(sys.executable).with_name("orderkeep")), name],
            env={
                **{k: v for k, v in os.environ.items() if not k.startswith("ORDERKEEP_")},
                **environment,
            },
            stdout=log_file,
            stderr=subprocess.STDOUT,
        )

    def check() -> None:
        if process.poll() is not None:
            message = (
                f"`orderkeep {name}` ended by itself, with code {process.returncode}:\n"
                f"{log_path.read_text(encoding='utf-8')[-_SHOWN_LOG_LENGTH:]}"
            )
            raise RuntimeError(message)

    try:
        _await_ready(name, port, check=check)
        yield check
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


def _await_ready(name: str, port: int, *, check: Callable[[], None]) -> None:
    give_up_at_s = time.monotonic() + _START_LIMIT_S
    while time.monotonic() < give_up_at_s:
        check()
        try:
            if httpx.get(f"http://127.0.0.1:{port}/health/ready").status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass
        threading.Event().wait(_LOOK_AGAIN_S)
    message = f"`orderkeep {name}` is not ready after {_START_LIMIT_S:g} s"
    raise TimeoutError(message)
