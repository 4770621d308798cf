"""Something that runs an event loop in a thread until it is told to stop."""

import asyncio
import threading
from abc import ABC, abstractmethod
from typing import Self

_STOP_S_MAX = 180.0


class Crowd(ABC):
    """People who are there as long as a context lasts."""

    def __init__(self, name: str) -> None:
        self._thread = threading.Thread(target=self._run, name=name)
        self._error: BaseException | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Let everybody finish what they are doing, and wait for them.

        Raises:
            BaseException: what ended the crowd before.
        """
        self._end()
        self._thread.join(_STOP_S_MAX)
        assert not self._thread.is_alive(), "the shoppers do not go home"
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _run(self) -> None:
        try:
            asyncio.run(self._live())
        except BaseException as error:  # noqa: BLE001 (raised again by `stop`)
            self._error = error

    @abstractmethod
    async def _live(self) -> None:
        """Do what they do, until told to end."""

    @abstractmethod
    def _end(self) -> None:
        """Tell them to end, from another thread."""
