"""What to think of the addresses of RabbitMQ, and of what answers there. PURE."""

import re
from collections.abc import Iterator, Sequence

from orderkeep.messaging.rabbitmq.facts import AddressFacts
from orderkeep.wiring.doctor.examination import Examination, fine, warning, wrong
from orderkeep.wiring.doctor.of_settings import is_local

# Quorum queues have times to live, and dead-letter at least once, from this version on.
_VERSION_MIN = (3, 10)


def examine_addresses(addresses: Sequence[AddressFacts]) -> Iterator[Examination]:
    """Yield what answers at each address, and whether they are one broker."""
    answering = [each for each in addresses if each.error is None]
    for each in addresses:
        yield _address(each, is_any_answering=bool(answering))
        if each.error is None:
            yield _version(each)
            if not each.is_encrypted and not is_local(each.host):
                yield warning(
                    "broker.encryption",
                    "the connection is not encrypted: passwords and orders cross the network in"
                    " the clear",
                    subject=each.address,
                    remedy="use its amqps:// address in ORDERKEEP_BROKER_URL",
                )
    clusters = sorted({each.cluster for each in answering if each.cluster})
    if len(clusters) > 1:
        yield wrong(
            "broker.cluster",
            f"the addresses are of different brokers ({', '.join(clusters)}): what one process"
            " sends to one, another waits for at the other",
            remedy="name nodes of one cluster in ORDERKEEP_BROKER_URL",
        )


def _address(facts: AddressFacts, *, is_any_answering: bool) -> Examination:
    name = "broker.reachable"
    if facts.error is None:
        return fine(name, "it answers", subject=facts.address)
    remedy = (
        "is the broker up, is the address right, does the user exist with this password, and has"
        " it rights in this virtual host?"
    )
    found = f"it does not answer: {facts.error}"
    if is_any_answering:
        return warning(name, found, subject=facts.address, remedy=remedy)
    return wrong(name, found, subject=facts.address, remedy=remedy)


def _version(facts: AddressFacts) -> Examination:
    name = "broker.version"
    found = f"{facts.product} {facts.version}"
    if facts.product != "RabbitMQ":
        return warning(
            name,
            f"{found}: only RabbitMQ has been tried",
            subject=facts.address,
            remedy="use RabbitMQ, or watch that what is promised holds: quorum queues, confirms,"
            " dead-lettering at least once",
        )
    numbers = re.match(r"(\d+)\.(\d+)", facts.version)
    if numbers and (int(numbers[1]), int(numbers[2])) < _VERSION_MIN:
        return wrong(
            name,
            f"{found} is too old: its quorum queues cannot hold a message for a time",
            subject=facts.address,
            remedy="upgrade to 3.10 or newer, or set ORDERKEEP_DELAY_BACKEND=outbox and"
            " ORDERKEEP_QUEUE_ARGUMENTS=plain",
        )
    return fine(name, found, subject=facts.address)
