"""The data directory of the embedded engine: its database, its secret, and its lock.

Invariant: two `run` never share a directory. The lock belongs to the process, so a crash frees it;
no stale file can keep a restart out.
"""

import errno
import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from typing import IO

_LOCK_FILE = "run.lock"
_SECRET_FILE = "jwt-secret"  # noqa: S105 (the name of a file, not a secret)

# HS256 wants a key as long as its hash; see RFC 7518 section 3.2.
SECRET_LENGTH_BYTES = 32


class DataDirectoryError(Exception):
    """The data directory cannot be used; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class DataDirectoryLock:
    """Held until closed, or until the process ends however it ends."""

    _file: IO[str]

    def close(self) -> None:
        """Let another `run` have the directory."""
        self._file.close()


def prepare_data_directory(path: Path) -> None:
    """Make the directory if it is missing and see that it can be written.

    Raises:
        DataDirectoryError: it is a file, or cannot be made or written.
    """
    if path.exists() and not path.is_dir():
        message = (
            f"the data directory {path} is a file, not a directory:"
            " set ORDERKEEP_DATA_DIR to a directory"
        )
        raise DataDirectoryError(message)
    probe = path / f".probe-{os.getpid()}"
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        message = (
            f"the data directory {path} cannot be written ({error.strerror}):"
            " give it to this user, or set ORDERKEEP_DATA_DIR to another"
        )
        raise DataDirectoryError(message) from error


def lock_data_directory(path: Path) -> DataDirectoryLock:
    """Take the directory for this process alone.

    Raises:
        DataDirectoryError: another `run` holds it.
    """
    try:
        file = (path / _LOCK_FILE).open("a+")
    except OSError as error:
        message = (
            f"the data directory {path} cannot be locked ({error.strerror}):"
            f" give {_LOCK_FILE} in it to this user"
        )
        raise DataDirectoryError(message) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.seek(0)
        holder = file.read().strip() or "unknown"
        file.close()
        if error.errno not in {errno.EAGAIN, errno.EACCES}:
            message = f"the data directory {path} cannot be locked ({error.strerror})"
            raise DataDirectoryError(message) from error
        message = (
            f"the data directory {path} is in use by another `orderkeep run` (process {holder}):"
            " stop that one, or set ORDERKEEP_DATA_DIR to another directory"
        )
        raise DataDirectoryError(message) from error
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return DataDirectoryLock(file)


def has_secret(path: Path) -> bool:
    """Return whether the directory has a secret already."""
    return secret_file(path).exists()


def secret_file(path: Path) -> Path:
    """Return where the directory keeps its secret."""
    return path / _SECRET_FILE


def read_or_make_secret(path: Path, *, drawn: bytes) -> str:
    """Return the directory's secret; the first call makes it from the drawn bytes.

    Args:
        drawn: `SECRET_LENGTH_BYTES` random bytes, used only if there is no secret yet.

    Raises:
        DataDirectoryError: the secret can be neither read nor written.
    """
    assert len(drawn) == SECRET_LENGTH_BYTES
    file = secret_file(path)
    try:
        # Written beside and linked into place: a crash leaves no half a secret, and of two
        # processes that make one at the same time the first wins.
        if not file.exists():
            beside = path / f"{_SECRET_FILE}.{os.getpid()}"
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w") as opened:
                opened.write(drawn.hex())
                opened.flush()
                os.fsync(descriptor)
            try:
                os.link(beside, file)
            except FileExistsError:
                pass
            finally:
                beside.unlink()
        secret = file.read_text().strip()
    except OSError as error:
        message = f"the secret {file} can be neither read nor written ({error.strerror})"
        raise DataDirectoryError(message) from error
    if len(secret.encode()) < SECRET_LENGTH_BYTES:
        message = (
            f"the secret in {file} is shorter than {SECRET_LENGTH_BYTES} bytes:"
            " put the right one back, or remove the file to have a new one made"
        )
        raise DataDirectoryError(message)
    return secret
