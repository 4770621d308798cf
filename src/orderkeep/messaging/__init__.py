"""The messaging kernel: what a service commits reaches the others, and takes effect once.

It knows no order. A service brings a database, the kernel's tables under its own prefix, and
consumers; a broker carries the messages. Any service can stand on it.

What it guarantees
    1. *An event leaves if and only if the transaction that appended it commits* (`Outbox`).
    2. *A committed event reaches every queue bound to its route at least once*, whatever is killed
       when (`Dispatcher`): a row is `sent` only after the broker has confirmed it.
    3. *Ordered events of one aggregate leave in order on each route*, by whichever dispatcher holds
       their partition. One that cannot leave holds back those behind it, and nobody else's.
    4. *A message takes effect once for each consumer* (`Subscription`): its identity is written in
       the transaction of its effect.
    5. *No message is lost, and none loops for ever.* What fails comes again with growing pauses;
       what can never be handled, or fails too often, or kills its consumer, is set aside with its
       reason, exactly as it came, and can be replayed (`DeadLetters`).
    6. *An outage costs no message a try*: while database or broker is away, everything waits.

What it does not
    A copy may come late: after a retry or a replay a message is younger than its neighbours, so an
    effect that depends on order is guarded by a version. A message that took effect is recognised
    for as long as its inbox row is kept (90 days), not longer.

An outbox row

                                     confirmed
        append ──▶ pending ────────────────────────────────────▶ sent ──▶ (purged)
                    │  ▲ ▲ refused alone: waits, tries + 1
                    │  │ └─────┐
                    │  │       │ route down: as it was
                    │  │       │ the broker cannot hold it so long: waits here until it is due
                    │  └───────┘
                    │ refused 16 times              discard
                    ├──────────────▶ failed ───────────────────▶ discarded ──▶ (purged)
                    │     retry        │                           ▲
                    │ ◀────────────────┘                           │
                    └──────────────────────────────────────────────┘
                                         discard

What a crash does, step by step
    ======================================  ======================================================
    before the commit that appends          no row, no event: the change it tells of is not either
    after it                                the row is pending; the dispatcher finds it
    after the dispatcher has read           nothing happened
    after the publish, before the settling  sent again; the copy meets its inbox row
    after the settling                      nothing is left to do
    when a dispatcher loses its session     it stops publishing; whoever holds its partitions next
                                            sends what was not settled again
    after a consumer has taken              the message comes again, marked as redelivered
    in the handler, before the commit       rolled back; it comes again
    after the commit, before the ack        the copy meets its inbox row, or there is none to come:
                                            a queue in the database acknowledges in the commit
    after a dead letter, likewise           the copy writes the same letter again
    after a next try, likewise              the copy finds it waiting; or, where it has left, writes
                                            another, and the two become one where they meet
    again and again in one message          counted before each try; set aside after the limit
    ======================================  ======================================================

Each of these steps carries a failure point, named `dispatcher.…` and `delivery.…`, where tests kill
the process; see `orderkeep.failure_points`.
"""

from orderkeep.messaging.broker import (
    Binding,
    Broker,
    BrokerUnavailableError,
    Consumption,
    Delay,
    Exchange,
    ExchangeType,
    LeaseLostError,
    Queue,
    Topology,
)
from orderkeep.messaging.consumer import (
    HANDLED,
    BadMessageError,
    Consumer,
    Handled,
    Outcome,
    Received,
    SetAside,
    TryLater,
)
from orderkeep.messaging.dead_letter import (
    DeadLetter,
    DeadLetterFilter,
    DeadLetterState,
    DeadLetterSummary,
    LetterBatch,
    LetterEvent,
    LetterHistoryEntry,
    SettledLetter,
    SettleResult,
)
from orderkeep.messaging.dead_letters import DeadLetters
from orderkeep.messaging.delivery import DeliveryPolicy, Subscription
from orderkeep.messaging.dispatcher import Dispatcher, DispatchRound
from orderkeep.messaging.identity import message_identity
from orderkeep.messaging.inbox import Inbox
from orderkeep.messaging.kept_loop import keep_running
from orderkeep.messaging.letter_settlement import Edit, LetterSettlement
from orderkeep.messaging.message import (
    Delivery,
    Event,
    Message,
    PublishOutcome,
    PublishResult,
)
from orderkeep.messaging.outbox import Outbox
from orderkeep.messaging.outbox_rows import (
    ChangedRow,
    ChangeResult,
    OutboxCounts,
    OutboxFilter,
    OutboxRow,
    OutboxRows,
    OutboxState,
    WholeOutboxRow,
)
from orderkeep.messaging.outbox_settling import DispatchPolicy
from orderkeep.messaging.reconciliation import Reconciliation, ReconciliationPolicy
from orderkeep.messaging.replay_rules import ReplayRules
from orderkeep.messaging.retention import Purged, Retention, RetentionPolicy
from orderkeep.messaging.retry_schedule import pause_before_attempt
from orderkeep.messaging.sent_events import Receiver
from orderkeep.messaging.sent_replay import (
    Destination,
    ReplayedEvent,
    SentBatch,
    SentFilter,
    SentReplay,
    SentReplayResult,
)
from orderkeep.messaging.settling import MessageOutcome, RetryPolicy
from orderkeep.messaging.signal import Signal
from orderkeep.messaging.tables import ServiceTables, service_tables

__all__ = [
    "HANDLED",
    "BadMessageError",
    "Binding",
    "Broker",
    "BrokerUnavailableError",
    "ChangeResult",
    "ChangedRow",
    "Consumer",
    "Consumption",
    "DeadLetter",
    "DeadLetterFilter",
    "DeadLetterState",
    "DeadLetterSummary",
    "DeadLetters",
    "Delay",
    "Delivery",
    "DeliveryPolicy",
    "Destination",
    "DispatchPolicy",
    "DispatchRound",
    "Dispatcher",
    "Edit",
    "Event",
    "Exchange",
    "ExchangeType",
    "Handled",
    "Inbox",
    "LeaseLostError",
    "LetterBatch",
    "LetterEvent",
    "LetterHistoryEntry",
    "LetterSettlement",
    "Message",
    "MessageOutcome",
    "Outbox",
    "OutboxCounts",
    "OutboxFilter",
    "OutboxRow",
    "OutboxRows",
    "OutboxState",
    "Outcome",
    "PublishOutcome",
    "PublishResult",
    "Purged",
    "Queue",
    "Received",
    "Receiver",
    "Reconciliation",
    "ReconciliationPolicy",
    "ReplayRules",
    "ReplayedEvent",
    "Retention",
    "RetentionPolicy",
    "RetryPolicy",
    "SentBatch",
    "SentFilter",
    "SentReplay",
    "SentReplayResult",
    "ServiceTables",
    "SetAside",
    "SettleResult",
    "SettledLetter",
    "Signal",
    "Subscription",
    "Topology",
    "TryLater",
    "WholeOutboxRow",
    "keep_running",
    "message_identity",
    "pause_before_attempt",
    "service_tables",
]
