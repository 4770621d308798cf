"""A disk of limited size, where the system lets us have one."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SIZE_BYTES = 600 << 20


@contextmanager
def limited_disk(folder: Path) -> Iterator[Path | None]:
    """Mount a file system of limited size at a new folder, as long as the context lasts.

    Gives the folder, or None where that is not permitted; the folder is there either way.
    """
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_BYTES},mode=0755", "tmpfs", str(folder)]
    if not hasattr(os, "geteuid") or os.geteuid() != 0 or _run(command) != 0:
        yield None
        return
    try:
        yield folder
    finally:
        # What still has a file open there keeps it until its end.
        _run(["umount", "--lazy", str(folder)])


def _run(command: list[str]) -> int:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode
    except FileNotFoundError:
        return 127
