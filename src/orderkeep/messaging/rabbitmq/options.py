"""How the RabbitMQ broker is set up, and what refuses a broker that is set up in another way."""

from dataclasses import dataclass
from enum import StrEnum

from orderkeep.messaging.broker import BrokerRefusedError

# RabbitMQ keeps a time to live in 32 bits of milliseconds: 49 days.
HOLD_MS_MAX = 2**32 - 1


class QueueArguments(StrEnum):
    """What queues are declared with."""

    # Quorum queues with explicit limits, and a queue beside each for what passes its limit.
    FULL = "full"
    # Durable and nothing else, as a foreign program declares them.
    PLAIN = "plain"


class DelayBackend(StrEnum):
    """Where a message waits until its time."""

    # In a quorum queue that nobody consumes, whose messages expire into the one they are for.
    HOLD_QUEUE = "hold-queue"
    # In the delayed message plugin: one copy, confirmed before it is on the disk.
    PLUGIN = "plugin"
    # In the outbox, always.
    OUTBOX = "outbox"


@dataclass(frozen=True, slots=True, kw_only=True)
class RabbitOptions:
    """How the broker is used.

    Attributes:
        arguments: What queues are declared with.
        delay: Where a message waits until its time.
        hold_s: The delay that most messages have; up to 49 days.
        heartbeat_s: How often each side shows the other that it is alive. After two that are
            missing, the connection counts as lost.
        connect_timeout_s: How long one address has to answer.
        call_timeout_s: How long the broker has for a declaration or the like. A quorum queue that
            is made in a busy cluster takes seconds.
        confirm_timeout_s: How long the broker has to confirm what was published.
        blocked_wait_s: How long a publish waits for an alarm of the broker to end.
        connection_name: Shown beside the connections in the broker's own lists.
    """

    arguments: QueueArguments = QueueArguments.FULL
    delay: DelayBackend = DelayBackend.HOLD_QUEUE
    hold_s: float = 1800.0
    heartbeat_s: int = 10
    connect_timeout_s: float = 3.0
    call_timeout_s: float = 15.0
    confirm_timeout_s: float = 30.0
    blocked_wait_s: float = 2.0
    connection_name: str = "orderkeep"

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            ValueError: a duration is out of its range.
        """
        if not 0 < self.hold_s <= HOLD_MS_MAX / 1000:
            message = f"hold_s is {self.hold_s}, must be above 0 and at most {HOLD_MS_MAX / 1000}"
            raise ValueError(message)
        durations = (
            self.heartbeat_s,
            self.connect_timeout_s,
            self.call_timeout_s,
            self.confirm_timeout_s,
            self.blocked_wait_s,
        )
        if min(durations) <= 0:
            message = f"all durations must be above 0: {self}"
            raise ValueError(message)


class WrongTopologyError(BrokerRefusedError):
    """The broker is set up so that messages would go wrong; somebody has to mend it.

    Attributes:
        what: What is wrong, for a person.
        steps: What to do.
    """

    def __init__(self, what: str, *, steps: str) -> None:
        """Tell what is wrong, and how to mend it."""
        super().__init__(f"{what}. To mend it: {steps}")
        self.what = what
        self.steps = steps


class DelayPluginMissingError(WrongTopologyError):
    """The broker has no delayed message exchanges."""
