"""What must be in order at the database before a process moves messages, awaited if need be.

A machine may start `orderkeep work` before its database, or while that is away: then the process
answers health, which is 503, says so, and begins once the database is there.

Invariant: no loop runs before the schema has been found current. What no waiting mends ends the
process, as it would have at its start.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import structlog

from orderkeep.database.transaction import (
    StoreTooOldError,
    StoreUnavailableError,
    TransactionPoolerError,
)
from orderkeep.messaging.signal import is_set_within
from orderkeep.wiring.parts import Run

log = structlog.get_logger()

# Between two looks: a database that is back is used within seconds, as by loops that were running.
_LOOK_AGAIN_S = 2.0

# Somebody has to change the settings, or the server.
_LASTING_ERRORS = (TransactionPoolerError, StoreTooOldError)


class WrongSetupError(Exception):
    """The process cannot run on what the settings name; the message says why and what to do."""


class Preparation:
    """Begins loops once the database is there and in order."""

    def __init__(self, prepare: Callable[[], Awaitable[None]]) -> None:
        """Take what is to be done first.

        Args:
            prepare: May be called again and again. Raises `StoreUnavailableError` while the
                database is away, and `WrongSetupError` for what no waiting mends.
        """
        self._prepare = prepare
        self._is_prepared = asyncio.Event()

    async def try_now(self) -> None:
        """Prepare if the database is there; else leave it to `run`.

        Raises:
            WrongSetupError: no waiting mends it.
        """
        try:
            await self._prepare()
        except _LASTING_ERRORS as error:
            raise WrongSetupError(str(error)) from error
        except StoreUnavailableError as error:
            log.warning("database_awaited", reason=str(error))
        else:
            self._is_prepared.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Try until the database is there, then wait for the end.

        Raises:
            WrongSetupError: no waiting mends it.
        """
        while not self._is_prepared.is_set():
            if await is_set_within(stop, timeout_s=_LOOK_AGAIN_S):
                return
            await self.try_now()
            if self._is_prepared.is_set():
                log.info("database_found")
        await stop.wait()

    def awaited_by(self, loops: Mapping[str, Run]) -> dict[str, Run]:
        """Return the loops such that each begins when all is prepared, with `run` among them."""
        return {
            "preparation": self.run,
            **{name: self._begun_after(run) for name, run in loops.items()},
        }

    def _begun_after(self, run: Run) -> Run:
        async def begin(stop: asyncio.Event) -> None:
            stopping = asyncio.ensure_future(stop.wait())
            prepared = asyncio.ensure_future(self._is_prepared.wait())
            try:
                await asyncio.wait({stopping, prepared}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                stopping.cancel()
                prepared.cancel()
            if not stop.is_set():
                await run(stop)

        return begin
