"""What to think of what was seen at RabbitMQ. PURE."""

import json
import shlex
from collections.abc import Collection, Iterator, Sequence

from orderkeep.messaging.broker import Topology
from orderkeep.messaging.rabbitmq.delays import hold_ms, hold_queue
from orderkeep.messaging.rabbitmq.facts import (
    DEFAULT_EXCHANGE_IN_RIGHTS,
    BrokerFacts,
    ExchangeFacts,
    QueueFacts,
    Right,
)
from orderkeep.messaging.rabbitmq.options import DelayBackend, QueueArguments, RabbitOptions
from orderkeep.messaging.rabbitmq.topology import DEAD_SUFFIX, policies_of
from orderkeep.wiring.doctor.examination import (
    Examination,
    Verdict,
    counted,
    fine,
    listed,
    warning,
    wrong,
)

_RIGHTS_REMEDY = (
    "grant the user what deploy/rabbitmq/permissions.sh grants: rabbitmqctl set_permissions"
)


def examine_topology(
    facts: BrokerFacts, topology: Topology, *, options: RabbitOptions, consumed: Collection[str]
) -> Iterator[Examination]:
    """Yield what there is of queues and exchanges, and how it stands to what we would make.

    Args:
        facts: What was seen.
        topology: What we would declare.
        options: How we would.
        consumed: The queues that services here read.
    """
    if facts.lost is not None:
        yield wrong(
            "broker.look",
            f"the look at queues and exchanges ended early: {facts.lost}",
            remedy="look at the broker's log; an alarm (memory, disk) makes it hold back answers",
        )
    held_in = {hold_queue(delay, options) for delay in topology.delays}
    for queue in facts.queues:
        if queue.differences:
            yield _different_queue(queue, is_holding=queue.name in held_in, options=options)
        yield from _queue(queue, consumed=consumed)
    for exchange in facts.exchanges:
        yield from _exchange(exchange)
    yield from _rest(facts)
    yield from _rights(facts)
    yield from _delay(facts, topology, options=options)
    if options.arguments is QueueArguments.PLAIN:
        yield _policies(facts, topology)


def policy_commands(topology: Topology, *, vhost: str) -> list[str]:
    """Return the commands that give quorum queues without arguments what ours have."""
    return [
        shlex.join(
            [
                "rabbitmqctl",
                "set_policy",
                "--vhost",
                vhost,
                "--apply-to",
                "queues",
                policy.name,
                policy.pattern,
                json.dumps(policy.definition),
            ]
        )
        for policy in policies_of(topology)
    ]


def _queue(facts: QueueFacts, *, consumed: Collection[str]) -> Iterator[Examination]:
    name, subject = "broker.queue", facts.name
    if facts.unclear is not None:
        # Such as one that another connection has for itself alone.
        yield wrong(
            name,
            f"it cannot be used as it is: {facts.unclear}",
            subject=subject,
            remedy="`rabbitmqctl list_queues name type durable exclusive auto_delete arguments`"
            " shows the queue; whoever declares it must declare it durable and for everybody",
        )
    elif facts.message_count is None and Right.CONFIGURE in facts.refused:
        yield wrong(
            name,
            "it is missing, and the user may not make it",
            subject=subject,
            remedy=_RIGHTS_REMEDY,
        )
    count = facts.message_count or 0
    if not count or facts.consumer_count:
        return
    if subject.endswith(DEAD_SUFFIX):
        yield warning(
            "broker.dead_queue",
            f"{counted(count, 'message')} passed the delivery limit, and nobody reads them",
            subject=subject,
            remedy="start `orderkeep work`: it tries each once more, alone, and sets aside what"
            " fails again",
        )
    elif subject in consumed:
        yield warning(
            "broker.unread_queue",
            f"{counted(count, 'message')} wait, and nobody reads them",
            subject=subject,
            remedy="start `orderkeep work`; if it runs with --only, one must read this queue",
        )


def _rest(facts: BrokerFacts) -> Iterator[Examination]:
    """Yield how many queues and exchanges are as they should be, or will be."""
    queues = [each for each in facts.queues if each.unclear is None]
    yield from _summary(
        "broker.queues",
        "queue",
        missing=[each.name for each in queues if each.message_count is None],
        hidden=[
            each.name
            for each in queues
            if each.message_count is not None and Right.CONFIGURE in each.refused
        ],
        count=sum(
            each.message_count is not None
            and Right.CONFIGURE not in each.refused
            and not each.differences
            for each in queues
        ),
    )
    exchanges = [
        each
        for each in facts.exchanges
        if each.unclear is None and each.name != DEFAULT_EXCHANGE_IN_RIGHTS
    ]
    yield from _summary(
        "broker.exchanges",
        "exchange",
        missing=[each.name for each in exchanges if each.type is None],
        hidden=[
            each.name
            for each in exchanges
            if each.type is not None and Right.CONFIGURE in each.refused
        ],
        count=sum(
            each.type == each.wanted_type and Right.CONFIGURE not in each.refused
            for each in exchanges
        ),
    )


def _summary(
    name: str, noun: str, *, missing: Sequence[str], hidden: Sequence[str], count: int
) -> Iterator[Examination]:
    if count:
        yield fine(name, f"{counted(count, noun)} as declared")
    if missing:
        yield fine(
            name,
            f"{counted(len(missing), noun)} missing, for `work` to make when it starts:"
            f" {listed(missing)}",
        )
    if hidden:
        yield fine(
            name,
            f"{counted(len(hidden), noun)} that the user may not declare, so nobody tells with"
            f" what arguments they were: {listed(hidden)}",
        )


def _different_queue(facts: QueueFacts, *, is_holding: bool, options: RabbitOptions) -> Examination:
    name = "broker.queue"
    differing = {each.name: each for each in facts.differences}
    words = "; ".join(
        f"{each.name} is {_shown(each.theirs)}, not {_shown(each.ours)}"
        for each in facts.differences
    )
    anew = (
        f"drain it (stop what publishes to it, let `work` read it empty), delete it (rabbitmqctl"
        f" delete_queue {facts.name}) and start `work`, which makes it anew"
    )
    if "durable" in differing:
        return wrong(
            name,
            "it is not durable: when the broker restarts, its messages are gone",
            subject=facts.name,
            remedy=f"{anew}; whoever declared it must declare it durable",
        )
    if is_holding:
        loses = differing.keys() & {
            "x-message-ttl",
            "x-dead-letter-exchange",
            "x-dead-letter-routing-key",
        }
        if loses:
            return wrong(
                name,
                f"it does not hold messages as its name says: {words}",
                subject=facts.name,
                remedy=f"it is ours alone: delete it (rabbitmqctl delete_queue {facts.name}) and"
                " start `work`; the sweep closes the orders whose messages were in it",
            )
        return warning(
            name,
            f"it is used as it is, and may lose messages when the broker is killed: {words}",
            subject=facts.name,
            remedy=f"let it run empty, delete it (rabbitmqctl delete_queue {facts.name}) and"
            " start `work`; the sweep closes what it loses meanwhile",
        )
    found = f"it is used as it is: {words}"
    if options.arguments is QueueArguments.PLAIN:
        # Others decide, and are welcome to.
        return fine(name, found, subject=facts.name)
    return warning(
        name,
        found,
        subject=facts.name,
        remedy=f"if nobody else declares it, {anew}; if somebody does, leave it, or agree on"
        " arguments",
    )


def _shown(value: object) -> str:
    if value is None:
        return "unset"
    return "''" if value == "" else str(value)


def _exchange(facts: ExchangeFacts) -> Iterator[Examination]:
    name, subject = "broker.exchange", facts.name
    if facts.type is not None and facts.type != facts.wanted_type:
        yield wrong(
            name,
            f"it is of the type {facts.type}, not {facts.wanted_type}: messages would go astray,"
            " and `work` does not start",
            subject=subject,
            remedy="stop what publishes to it, delete it (rabbitmqadmin delete exchange"
            f" name={subject}) and start `work`, which makes it anew; or choose the"
            " ORDERKEEP_DELAY_BACKEND that fits it: hold-queue for direct, plugin for"
            " x-delayed-message",
        )
    elif facts.unclear is not None:
        yield warning(
            name,
            f"it is not as it would be made: {facts.unclear}",
            subject=subject,
            remedy="`rabbitmqctl list_exchanges name type durable arguments` shows it; an exchange"
            " that is not durable is gone when the broker restarts",
        )
    elif facts.type is None and Right.CONFIGURE in facts.refused:
        yield wrong(
            name,
            "it is missing, and the user may not make it",
            subject=subject,
            remedy=_RIGHTS_REMEDY,
        )


def _rights(facts: BrokerFacts) -> Iterator[Examination]:
    name = "broker.rights"
    everything: list[QueueFacts | ExchangeFacts] = [*facts.queues, *facts.exchanges]
    lacking = [
        f"{right.value} on {each.name}"
        for each in everything
        for right in sorted(each.refused)
        # What is there need not be made.
        if right is not Right.CONFIGURE
    ]
    if lacking:
        yield wrong(
            name,
            f"the user {facts.user} lacks rights in {facts.vhost}: {listed(lacking)}",
            remedy=_RIGHTS_REMEDY,
        )
    elif facts.lost is None:
        yield fine(name, f"the user {facts.user} has the rights in {facts.vhost} that are needed")


def _delay(
    facts: BrokerFacts, topology: Topology, *, options: RabbitOptions
) -> Iterator[Examination]:
    name = "broker.delay"
    if facts.plugin_error is not None:
        yield wrong(
            name,
            f"{facts.plugin_error.what}; `work` does not start",
            remedy=facts.plugin_error.steps,
        )
        return
    if facts.stray_binding is not None:
        yield wrong(name, facts.stray_binding.what, remedy=facts.stray_binding.steps)
        return
    if facts.lost is not None:
        return
    match options.delay:
        case DelayBackend.HOLD_QUEUE:
            names = ", ".join(hold_queue(delay, options) for delay in topology.delays)
            yield fine(
                name,
                f"messages are held in {names} for {hold_ms(options)} ms; queues of an earlier"
                " ORDERKEEP_ORDER_TIMEOUT_S empty by themselves, and AMQP cannot list them:"
                " `rabbitmqctl list_queues name messages` does, and empty ones may be deleted",
            )
        case DelayBackend.PLUGIN:
            yield warning(
                name,
                "messages are held by the delayed message plugin: on one node, and confirmed"
                " before they are on its disk; what it loses the sweep closes, later",
                remedy="set ORDERKEEP_DELAY_BACKEND=hold-queue",
            )
        case DelayBackend.OUTBOX:
            yield fine(name, "messages wait in the outbox until they are due")


def _policies(facts: BrokerFacts, topology: Topology) -> Examination:
    return Examination(
        name="broker.policies",
        verdict=Verdict.OK,
        found="queues are declared without arguments (ORDERKEEP_QUEUE_ARGUMENTS=plain); AMQP does"
        " not tell which policies there are",
        remedy="quorum queues need these policies in place of the arguments. No policy makes a"
        " classic queue a quorum queue: that is decided when it is declared, by its first declarer"
        " or the virtual host's default queue type; and classic queues have no delivery limit, and"
        " dead-letter at most once whatever the policy says. A queue follows one policy: add to"
        " one that is there what it lacks.\n"
        + "\n".join(policy_commands(topology, vhost=facts.vhost)),
    )
