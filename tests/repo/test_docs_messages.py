"""The reference of messages shows bodies as they are sent, and says what is needed of them."""

import json
import re
from types import ModuleType

import pytest

from orderkeep.contracts import (
    cart_sync,
    order_events,
    order_timeout_dlq,
    order_timeout_queue,
    payment_opened_notify,
    payment_refund_request,
    payment_refund_result,
    payment_success_notify,
)
from orderkeep.contracts.topology import TOPOLOGY
from orderkeep.messaging.consumer import BadMessageError
from orderkeep.messaging.rabbitmq import DelayBackend, QueueArguments, RabbitOptions
from orderkeep.messaging.rabbitmq.topology import (
    ExchangeDeclaration,
    QueueDeclaration,
    declarations_of,
)
from tests.acceptance.walks import blocks_of
from tests.repo.written_tables import REFERENCE, check_part, code, rows_of, table

PAGE = REFERENCE / "messages.md"

MODULES: dict[str, ModuleType] = {
    "order.timeout.queue": order_timeout_queue,
    "cart-sync": cart_sync,
    "payment.success.notify": payment_success_notify,
    "order.timeout.dlq": order_timeout_dlq,
    "order.events": order_events,
    "payment.refund.request": payment_refund_request,
    "payment.refund.result": payment_refund_result,
    "payment.opened.notify": payment_opened_notify,
}


def sections() -> dict[str, str]:
    """Return what the page says about each body, by the heading above it."""
    parts = re.split(r"^### (.+)$", PAGE.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def examples_of(name: str) -> list[str]:
    return [block.text for block in blocks_of(sections()[name]) if block.language == "json"]


EXAMPLES = [
    pytest.param(name, text, id=f"{name}-{number}")
    for name in MODULES
    for number, text in enumerate(examples_of(name))
]


def test_every_body_has_its_section() -> None:
    assert sections().keys() == MODULES.keys()
    assert all(examples_of(name) for name in MODULES)


def test_every_queue_stands_in_the_table() -> None:
    rows = rows_of(PAGE, heading="## Queues")

    assert sorted(row[0] for row in rows) == sorted(code(queue.name) for queue in TOPOLOGY.queues)


def queue_arguments(arguments: QueueArguments) -> dict[str, str]:
    """Return the arguments of each kind of queue at RabbitMQ, in words."""
    options = RabbitOptions(arguments=arguments, delay=DelayBackend.HOLD_QUEUE, hold_s=1800)
    own = {queue.name for queue in TOPOLOGY.queues}
    words: dict[str, set[str]] = {}
    for declaration in declarations_of(TOPOLOGY, options):
        if not isinstance(declaration, QueueDeclaration):
            continue
        name = declaration.name
        queue = name.removesuffix(".dead")
        kind = name.replace(queue, "QUEUE") if queue in own else name.replace("1800000", "MS")
        told = [
            code(f"{argument}: {value}" if value != "" else f'{argument}: ""')
            for argument, value in declaration.arguments.items()
        ]
        line = ", ".join(told).replace("1800000", "MS")
        # What a hold queue leads to is one queue; what another leads to, the one beside it.
        words.setdefault(kind, set()).add(line.replace(queue, "QUEUE") if queue in own else line)
    assert all(len(lines) == 1 for lines in words.values()), "queues of one kind differ"
    return {kind: lines.pop() or "no arguments" for kind, lines in words.items()}


def test_the_arguments_of_each_kind_of_queue_are_in_the_table() -> None:
    full, plain = (queue_arguments(arguments) for arguments in QueueArguments)

    rows = [[code(kind), full[kind], plain[kind]] for kind in sorted(full)]
    check_part(PAGE, writer=__file__, text=table(("queue", "`full`", "`plain`"), rows))


def test_the_types_of_exchanges_are_in_the_table() -> None:
    written = {row[0]: row[1] for row in rows_of(PAGE, heading="The exchanges:\n")}
    types = {
        declaration.name: declaration.type
        for declaration in declarations_of(TOPOLOGY, RabbitOptions())
        if isinstance(declaration, ExchangeDeclaration)
    }

    assert types == {"order.events": "topic", "order.timeout.delayed": "direct"}
    assert code("topic") in written[code("order.events")]
    assert code("direct") in written[code("order.timeout.delayed")]


@pytest.mark.parametrize(("name", "text"), EXAMPLES)
def test_an_example_is_sent_to_the_letter(name: str, text: str) -> None:
    module = MODULES[name]

    sent = module.encode(module.decode(text.encode()))

    # Numbers as they are written: 100.00 is not 100.0.
    assert json.loads(sent, parse_float=str) == json.loads(text, parse_float=str)
    assert list(json.loads(sent)) == list(json.loads(text))


@pytest.mark.parametrize("name", sorted(MODULES.keys() - {"cart-sync", "order.events"}))
def test_what_is_needed_is_enough_and_cannot_be_left_out(name: str) -> None:
    (sentence,) = re.findall(r"^Needed: (.+)$", sections()[name], re.MULTILINE)
    needed = re.findall(r"`([a-z_]+)`", sentence.partition("which")[0])
    whole = json.loads(examples_of(name)[0])

    MODULES[name].decode(json.dumps({member: whole[member] for member in needed}).encode())

    for missing in needed:
        rest = {member: whole[member] for member in needed if member != missing}
        with pytest.raises(BadMessageError):
            MODULES[name].decode(json.dumps(rest).encode())


def test_an_order_event_needs_all_but_what_is_named() -> None:
    (sentence,) = re.findall(
        r"^Needed: everything but (.+)\.$", sections()["order.events"], re.MULTILINE
    )
    spared = set(re.findall(r"`([a-z_]+)`", sentence))
    whole = json.loads(examples_of("order.events")[0])

    for member in whole:
        rest = json.dumps({name: value for name, value in whole.items() if name != member})
        if member in spared:
            order_events.decode(rest.encode())
        else:
            with pytest.raises(BadMessageError):
                order_events.decode(rest.encode())
