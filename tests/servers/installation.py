"""Installs servers that a machine lacks, where that is allowed and usual: as root on Debian."""

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.servers.own_process import run_to_end

# A slow mirror, not a fast one.
_INSTALL_S_MAX = 600.0


class ServerMissingError(Exception):
    """No server answers, none can be started, none can be installed; the text says why."""


def install_debian_package(name: str) -> None:
    """Install a package of Debian or Ubuntu, with the lists renewed if it is not in them.

    Raises:
        ServerMissingError: this is another system, or another user, or it failed.
    """
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        message = f"{name} is not installed, and only root may install it"
        raise ServerMissingError(message)
    if shutil.which("apt-get") is None:
        message = f"{name} is not installed, and this is neither Debian nor Ubuntu"
        raise ServerMissingError(message)
    with _one_at_a_time():
        try:
            _apt_get("install", "--no-install-recommends", name)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
            _renew_lists_and_install(name)


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Let no other test run install anything meanwhile: of two at once apt refuses the second.

    Whoever comes second finds the package there, and apt has nothing to do.
    """
    with (Path(tempfile.gettempdir()) / "orderkeep-tests-install.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _renew_lists_and_install(name: str) -> None:
    try:
        _apt_get("update")
        _apt_get("install", "--no-install-recommends", name)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        notes = " ".join(getattr(error, "__notes__", ()))
        message = f"{name} is not installed, and installing it failed: {error} {notes}"
        raise ServerMissingError(message) from error


def _apt_get(*arguments: str) -> None:
    run_to_end(
        ["apt-get", "--yes", "--quiet", *arguments],
        environment={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        timeout_s=_INSTALL_S_MAX,
    )
