"""Whether this process lives, whether it can serve, and its numbers: all public, all cheap.

Ready is 503 only when the process cannot do its work at all (a required check fails, or it is
shutting down): traffic goes elsewhere. A broker that is away is `degraded`, and 200: orders are
taken all the same, and what they announce waits in the outbox.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from litestar import Response, get
from litestar.handlers import HTTPRouteHandler
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from orderkeep.database.transaction import StoreOverloadedError, StoreUnavailableError
from orderkeep.web.health_bodies import CheckAnswer, Health, LiveAnswer, ReadyAnswer

log = structlog.get_logger()

# An answer later than this is no answer to whoever decides where traffic goes.
CHECK_TIMEOUT_S = 2.0

# The checks, and then the numbers; Prometheus itself gives up after ten seconds.
_REFRESH_S_MAX = 2 * CHECK_TIMEOUT_S

_PUBLIC = {"access": "public"}


class CheckFailedError(Exception):
    """A readiness check found something amiss; its text is shown to anybody who asks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadinessCheck:
    """One thing that must be in order.

    Attributes:
        is_required: Nothing can be served without it; else it is `degraded`.
        run: Returns if it is in order. Raises `CheckFailedError` with words for anybody to read;
            of any other error nothing is shown.
    """

    name: str
    is_required: bool
    run: Callable[[], Awaitable[None]]


class Readiness:
    """Whether traffic should come here."""

    def __init__(self, checks: Sequence[ReadinessCheck]) -> None:
        """Ask the given checks, all at once, each time."""
        self._checks = tuple(checks)
        self._is_shutting_down = False

    def begin_shutdown(self) -> None:
        """Answer from now on that traffic should go elsewhere."""
        self._is_shutting_down = True

    async def ask(self) -> ReadyAnswer:
        """Return what every check finds now."""
        found = await asyncio.gather(*(_run(check) for check in self._checks))
        answers = {check.name: answer for check, answer in zip(self._checks, found, strict=True)}
        if self._is_shutting_down:
            answers["shutdown"] = CheckAnswer(status=Health.FAILED, detail="shutting down")
        amiss = [check for check in self._checks if answers[check.name].status is not Health.OK]
        failed = [check for check in amiss if answers[check.name].status is Health.FAILED]
        if self._is_shutting_down or any(check.is_required for check in failed):
            status = Health.UNAVAILABLE
        else:
            status = Health.DEGRADED if amiss else Health.OK
        return ReadyAnswer(status=status, checks=answers)


async def _run(check: ReadinessCheck) -> CheckAnswer:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            await check.run()
    except CheckFailedError as error:
        return CheckAnswer(status=Health.FAILED, detail=str(error))
    except TimeoutError:
        return CheckAnswer(status=Health.FAILED, detail=f"no answer in {CHECK_TIMEOUT_S:g} s")
    except StoreOverloadedError:
        # It serves as many as it can; sent elsewhere, all who come here would overload the others.
        return CheckAnswer(status=Health.DEGRADED, detail="all connections are in use")
    except StoreUnavailableError:
        return CheckAnswer(status=Health.FAILED, detail="the database cannot serve now")
    except Exception:
        # A check that breaks is a check that failed; the health page itself must answer.
        log.exception("readiness_check_broken", check=check.name)
        return CheckAnswer(status=Health.FAILED, detail="the check itself failed")
    return CheckAnswer(status=Health.OK)


def health_handlers(
    readiness: Readiness,
    *,
    registry: CollectorRegistry,
    refresh_metrics: Callable[[], Awaitable[None]],
) -> list[HTTPRouteHandler]:
    """Return the handlers of `/health/*` and `/metrics`.

    Args:
        readiness: What `/health/ready` asks.
        registry: Holds the numbers.
        refresh_metrics: Brings the gauges that are read from the database up to date, just before
            they are shown.
    """

    @get("/health/live", opt=_PUBLIC, tags=["Health"], summary="Whether the process answers")
    async def live() -> LiveAnswer:
        return LiveAnswer(status=Health.OK)

    @get("/health/ready", opt=_PUBLIC, tags=["Health"], summary="Whether the process can serve")
    async def ready() -> Response[ReadyAnswer]:
        answer = await readiness.ask()
        return Response(answer, status_code=503 if answer.status is Health.UNAVAILABLE else 200)

    @get(
        "/metrics",
        opt=_PUBLIC,
        tags=["Health"],
        summary="Numbers for Prometheus",
        media_type="text/plain",
    )
    async def metrics() -> Response[bytes]:
        try:
            async with asyncio.timeout(_REFRESH_S_MAX):
                await refresh_metrics()
        except (StoreUnavailableError, TimeoutError):
            # What this process counts by itself is worth most when the database is away.
            log.warning("metrics_not_refreshed")
        return Response(generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    handlers: list[Any] = [live, ready, metrics]  # Litestar's decorators return handlers
    return handlers
