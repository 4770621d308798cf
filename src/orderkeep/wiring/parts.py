"""What one service brings to a process."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeAlias

from litestar.types import ControllerRouterHandler

from orderkeep.messaging.consumer import Consumer
from orderkeep.messaging.outbox import Outbox
from orderkeep.messaging.signal import Signal

# A loop runs until the event is set.
Run: TypeAlias = Callable[[asyncio.Event], Awaitable[None]]

# Consumers of one service differ in the type of their bodies, which nobody outside one looks at.
AnyConsumer: TypeAlias = Consumer[Any]

# Lets the loops that wait for a signal in other processes be woken as well; by name.
Relay: TypeAlias = Callable[[str, Signal], None]


class Role(StrEnum):
    """What a process does."""

    # Answers over HTTP.
    SERVE = "serve"
    # Dispatches, consumes, sweeps.
    WORK = "work"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceParts:
    """One service, built and not yet running.

    Attributes:
        outbox: Where all of the service's events leave.
        consumers: One for each queue that it reads.
        serving_loops: What its routes need beside them, by name.
        working_loops: What else it does in the background, by name.
        route_handlers: What it answers over HTTP.
        dependencies: What its routes ask for, by name.
    """

    outbox: Outbox
    consumers: Sequence[AnyConsumer]
    serving_loops: Mapping[str, Run]
    working_loops: Mapping[str, Run]
    route_handlers: Sequence[ControllerRouterHandler]
    dependencies: Mapping[str, object]
