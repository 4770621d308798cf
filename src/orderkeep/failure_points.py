"""Named places where a test may kill the process, to prove that nothing is lost there.

The step boundaries of the messaging kernel and of the order service call `reach("its.name")`.
Unless armed, that is one comparison. Armed, it ends the process the way a power cut would: no
handlers, no flushes, no goodbye.
"""

import os
import signal
from collections import Counter
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmedPoint:
    """A failure point that kills the process when it is reached for the `on_reach`-th time."""

    name: str
    on_reach: int


class _Armed:
    point: ArmedPoint | None = None
    reached_count: ClassVar[Counter[str]] = Counter()


def parse(text: str) -> ArmedPoint:
    """Return the armed point that `NAME` or `NAME:ON_REACH` describes.

    Raises:
        ValueError: the text has no name, or a count that is not a whole number of at least 1.
    """
    name, _, count = text.partition(":")
    on_reach = int(count) if count else 1
    if not name or on_reach < 1:
        message = f"{text!r} is not NAME or NAME:COUNT with a count of at least 1"
        raise ValueError(message)
    return ArmedPoint(name=name, on_reach=on_reach)


def arm(point: ArmedPoint | None) -> None:
    """Arm one failure point in this process, or none."""
    _Armed.point = point
    _Armed.reached_count.clear()


def reach(name: str) -> None:
    """Pass the named step boundary; kill the process here if this is the armed one."""
    if _Armed.point is None:
        return
    _Armed.reached_count[name] += 1
    if name == _Armed.point.name and _Armed.reached_count[name] == _Armed.point.on_reach:
        os.kill(os.getpid(), signal.SIGKILL)
