"""Which routes are paused, and until when: kept in memory, for one dispatcher. PURE.

Invariant: a route that is down is tried again and again, with growing pauses, and costs its rows
nothing. A restart forgets the pauses, and tries every route at once.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from orderkeep.messaging.retry_schedule import pause_before_attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pause:
    failures_count: int
    ends_at_s: float


class RoutePauses:
    """The routes of one dispatcher that are down."""

    def __init__(self, *, base_s: float, max_s: float) -> None:
        """Let the pauses grow from `base_s` to `max_s`."""
        self._base_s = base_s
        self._max_s = max_s
        self._pauses: dict[str, _Pause] = {}

    def pause(self, route: str, *, at_s: float, jitter: float) -> bool:
        """Pause the route, longer each time; return whether it was up until now.

        Args:
            route: Where messages could not go.
            at_s: A monotonic clock.
            jitter: 0.0 to 1.0, drawn by the caller.
        """
        earlier = self._pauses.get(route)
        failures_count = 1 if earlier is None else earlier.failures_count + 1
        pause_s = pause_before_attempt(
            failures_count, jitter=jitter, base_s=self._base_s, max_s=self._max_s
        )
        self._pauses[route] = _Pause(failures_count=failures_count, ends_at_s=at_s + pause_s)
        return earlier is None

    def resume(self, route: str) -> bool:
        """Note that a message went through; return whether the route was down until now."""
        return self._pauses.pop(route, None) is not None

    def paused_routes(self, *, at_s: float) -> list[str]:
        """Return the routes whose pause lasts."""
        return sorted(route for route, pause in self._pauses.items() if pause.ends_at_s > at_s)

    def next_end_s(self, *, at_s: float) -> float | None:
        """Return when the next of the pauses that last ends, or None if none lasts."""
        return min(self._lasting(at_s), default=None)

    def _lasting(self, at_s: float) -> Iterable[float]:
        return (pause.ends_at_s for pause in self._pauses.values() if pause.ends_at_s > at_s)
