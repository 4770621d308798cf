"""Builds what operators look at and act on, for the web and the command line alike."""

from collections.abc import Mapping, Sequence

from orderkeep.contracts.readers import READERS
from orderkeep.database.transaction import Database
from orderkeep.messaging.dead_letters import DeadLetters
from orderkeep.messaging.letter_settlement import LetterSettlement
from orderkeep.messaging.outbox import Outbox
from orderkeep.messaging.outbox_rows import OutboxRows
from orderkeep.messaging.sent_replay import SentReplay
from orderkeep.settings import Settings
from orderkeep.status import StatusReader
from orderkeep.web.replays import ReplayDesk
from orderkeep.web.service_messages import ServiceMessages
from orderkeep.wiring import chance
from orderkeep.wiring.storage import used_topology


def build_messages(
    settings: Settings, outboxes: Mapping[str, Outbox], *, database: Database
) -> list[ServiceMessages]:
    """Return the messages of every service, as operators see them."""
    topology = used_topology(settings)
    return [
        ServiceMessages(
            service=outbox.tables.service,
            database=database,
            outbox_rows=OutboxRows(outbox),
            dead_letters=DeadLetters(outbox),
            letter_settlement=LetterSettlement(outbox),
            sent_replay=SentReplay(outbox, topology=topology),
        )
        for outbox in outboxes.values()
    ]


def build_replay_desk(messages: Sequence[ServiceMessages]) -> ReplayDesk:
    """Return the desk for replays."""
    return ReplayDesk(messages, readers=READERS, new_message_id=chance.new_uuid)


def build_status_reader(settings: Settings, outboxes: Mapping[str, Outbox]) -> StatusReader:
    """Return what reads the status of all services."""
    return StatusReader(
        {outbox.tables.service: outbox for outbox in outboxes.values()},
        overdue_s=settings.sweep_grace_s + settings.sweep_interval_s,
    )
