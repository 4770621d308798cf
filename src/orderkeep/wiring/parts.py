"""What one service brings to a process."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from litestar.types import ControllerRouterHandler

from orderkeep.messaging.consumer import Consumer
from orderkeep.messaging.outbox import Outbox

# A loop runs until the event is set.
Run: TypeAlias = Callable[[asyncio.Event], Awaitable[None]]

# Consumers of one service differ in the type of their bodies, which nobody outside one looks at.
AnyConsumer: TypeAlias = Consumer[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceParts:
    """One service, built and not yet running.

    Attributes:
        outbox: Where all of the service's events leave.
        consumers: One for each queue that it reads.
        loops: What else it does in the background, by name.
        route_handlers: What it answers over HTTP.
        dependencies: What its routes ask for, by name.
    """

    outbox: Outbox
    consumers: Sequence[AnyConsumer]
    loops: Mapping[str, Run]
    route_handlers: Sequence[ControllerRouterHandler]
    dependencies: Mapping[str, object]
