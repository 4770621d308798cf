"""Facts of a sound set-up, to be changed in one place by each test."""

from orderkeep.contracts.topology import TOPOLOGY
from orderkeep.database.postgresql_facts import PostgresqlFacts, RelationFacts
from orderkeep.messaging.rabbitmq.facts import (
    AddressFacts,
    BrokerFacts,
    ExchangeFacts,
    QueueFacts,
)
from orderkeep.messaging.rabbitmq.options import RabbitOptions
from orderkeep.messaging.rabbitmq.topology import (
    ExchangeDeclaration,
    QueueDeclaration,
    declarations_of,
)
from orderkeep.wiring.doctor.examination import Examination

POSTGRESQL = PostgresqlFacts(
    version="16.4",
    encoding="UTF8",
    fsync="on",
    full_page_writes="on",
    synchronous_commit="on",
    autovacuum="on",
    read_only=None,
    connections_max=97,
    connections_used=3,
    schema_name="public",
    role="shop",
    excess_attributes=(),
    is_encrypted=True,
    relations=(
        RelationFacts(name="orders", is_owned=False, missing_rights=()),
        RelationFacts(name="order_outbox", is_owned=False, missing_rights=()),
        RelationFacts(name="order_outbox_id_seq", is_owned=False, missing_rights=()),
        RelationFacts(name="of_another_program", is_owned=True, missing_rights=("SELECT",)),
    ),
)

ADDRESS = AddressFacts(
    address="amqps://rabbit.example:5671/shop",
    host="rabbit.example",
    is_encrypted=True,
    product="RabbitMQ",
    version="4.1.3",
    cluster="rabbit@one",
)

OPTIONS = RabbitOptions()

CONSUMED = frozenset(queue.name for queue in TOPOLOGY.queues)

BROKER = BrokerFacts(
    user="shop",
    vhost="/shop",
    queues=tuple(
        QueueFacts(name=each.name, message_count=0, consumer_count=1)
        for each in declarations_of(TOPOLOGY, OPTIONS)
        if isinstance(each, QueueDeclaration)
    ),
    exchanges=(
        ExchangeFacts(name="amq.default", wanted_type="direct", type="direct"),
        *(
            ExchangeFacts(name=each.name, wanted_type=each.type, type=each.type)
            for each in declarations_of(TOPOLOGY, OPTIONS)
            if isinstance(each, ExchangeDeclaration)
        ),
    ),
)


def verdicts(examinations: list[Examination]) -> list[tuple[str, str]]:
    """Return the names and verdicts of what is not all right."""
    return [(each.name, each.verdict.value) for each in examinations if each.verdict.value != "ok"]


def found(examinations: list[Examination], name: str) -> str:
    """Return what was found under the name."""
    return "\n".join(each.found for each in examinations if each.name == name)


def remedy(examinations: list[Examination], name: str) -> str:
    """Return what to do under the name."""
    return "\n".join(each.remedy or "" for each in examinations if each.name == name)
