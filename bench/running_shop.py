"""A real `orderkeep run`: started on a data directory and a port of its own, ended by its id."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from bench.stage import JWT_SECRET
from bench.watching import Watch

_START_LIMIT_S = 30.0
_STOP_LIMIT_S = 40.0
_LOOK_AGAIN_S = 0.05
_SHOWN_LOG_LENGTH = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningShop:
    """A service that answers.

    Attributes:
        watch: Looks into its database from outside.
    """

    port: int
    watch: Watch


@contextmanager
def running_shop(
    data_dir: Path, *, environment: Mapping[str, str] | None = None
) -> Iterator[RunningShop]:
    """Run the service on the directory until the context ends."""
    port = _free_port()
    log_path = data_dir.with_suffix(".log")
    with log_path.open("wb") as log_file:
        process = subprocess.Popen(  # noqa: S603 (our own command)
            [str(Path(sys.executable).with_name("orderkeep")), "run"],
            env={
                **{k: v for k, v in os.environ.items() if not k.startswith("ORDERKEEP_")},
                "ORDERKEEP_DATA_DIR": str(data_dir),
                "ORDERKEEP_HTTP_PORT": str(port),
                "ORDERKEEP_JWT_SECRET": JWT_SECRET,
                **(environment or {}),
            },
            stdout=log_file,
            stderr=subprocess.STDOUT,
        )

    def check() -> None:
        if process.poll() is not None:
            message = (
                f"`orderkeep run` ended by itself, with code {process.returncode}:\n"
                f"{log_path.read_text(encoding='utf-8')[-_SHOWN_LOG_LENGTH:]}"
            )
            raise RuntimeError(message)

    try:
        _await_ready(port, check=check)
        with closing(Watch(data_dir / "orderkeep.db", check=check)) as watch:
            yield RunningShop(port=port, watch=watch)
    except Exception:
        # If the service is gone, that is why; whatever failed for want of it says less.
        check()
        raise
    finally:
        try:
            process.terminate()
            process.wait(_STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await_ready(port: int, *, check: Callable[[], None]) -> None:
    give_up_at_s = time.monotonic() + _START_LIMIT_S
    while time.monotonic() < give_up_at_s:
        check()
        try:
            if httpx.get(f"http://127.0.0.1:{port}/health/ready").status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass
        threading.Event().wait(_LOOK_AGAIN_S)
    message = f"`orderkeep run` is not ready after {_START_LIMIT_S:g} s"
    raise TimeoutError(message)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
