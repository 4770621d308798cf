"""Watches from outside how much memory a process has."""

import threading
from typing import Self

import psutil  # type: ignore[import-untyped]  # it brings no types

_LOOK_AGAIN_S = 0.25


class MemoryWatch:
    """Watches how much memory a process has, while its context is open.

    Attributes:
        bytes_max: The most that was seen.
    """

    def __init__(self, process: psutil.Process) -> None:
        """Watch the process."""
        self.bytes_max = 0
        self._process = process
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        """Look no more."""
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.is_set():
            self.bytes_max = max(self.bytes_max, self._process.memory_info().rss)
            self._stop.wait(_LOOK_AGAIN_S)
