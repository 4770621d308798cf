"""Which way a message takes, by what is left of its delay."""

import pytest

from orderkeep.instant import Instant
from orderkeep.messaging import Delay, Exchange, ExchangeType, Message, Queue, Topology
from orderkeep.messaging.rabbitmq import DelayBackend, RabbitOptions
from orderkeep.messaging.rabbitmq.delays import Way, Ways

NOW = Instant(1_700_000_000_000_000)
SECOND = 1_000_000

TOPOLOGY = Topology(
    queues=(Queue(name="checks"), Queue(name="others")),
    exchanges=(Exchange(name="events", type=ExchangeType.TOPIC),),
    bindings=(),
    delays=(Delay(queue="checks", exchange="delayed", hold_queue_prefix="hold."),),
)

STRAIGHT = Way(exchange="", routing_key="checks")


def way(left: int | None, *, route: str = "checks", **options) -> Way | None:
    """Return the way of a message that has so many microseconds left."""
    message = Message(
        route=route,
        message_id="m",
        type="check",
        body=b"",
        headers={},
        published_at=NOW,
        deliver_at=None if left is None else Instant(NOW + left),
    )
    return Ways(TOPOLOGY, RabbitOptions(**({"hold_s": 1800.0} | options))).way_of(message, now=NOW)


def test_without_a_delay_it_goes_straight():
    assert way(None) == STRAIGHT
    assert way(None, route="unheard-of") == Way(exchange="", routing_key="unheard-of")


def test_an_exchange_routes_by_the_type():
    assert way(None, route="events") == Way(exchange="events", routing_key="check")


@pytest.mark.parametrize("left", [0, -1, -1800 * SECOND])
@pytest.mark.parametrize("delay", DelayBackend)
def test_what_is_due_goes_straight(left: int, delay: DelayBackend):
    assert way(left, delay=delay) == STRAIGHT


@pytest.mark.parametrize(
    ("left", "expiration_ms"),
    [
        (1620 * SECOND, 1_620_000),
        (1620 * SECOND + 1, 1_620_001),
        (1800 * SECOND - 1, 1_800_000),
        (1800 * SECOND, 1_800_000),
    ],
)
def test_what_fits_the_hold_queue_expires_when_it_is_due_rounded_up(left: int, expiration_ms: int):
    assert way(left) == Way(
        exchange="delayed", routing_key="hold.1800000", expiration_ms=expiration_ms
    )


@pytest.mark.parametrize(
    "left", [1, SECOND, 1620 * SECOND - 1000, 1800 * SECOND + 1, 3600 * SECOND]
)
def test_what_does_not_fit_the_hold_queue_waits_in_the_outbox(left: int):
    assert way(left) is None


def test_a_delay_is_rounded_up_to_the_queue_that_is_made_for_it():
    assert way(400_000, hold_s=0.4) == Way(
        exchange="delayed", routing_key="hold.400", expiration_ms=400
    )
    assert way(300, hold_s=0.0003) == Way(exchange="delayed", routing_key="hold.1", expiration_ms=1)


def test_the_plugin_holds_as_long_as_it_takes_and_returns_what_it_will_deliver():
    plugin = DelayBackend.PLUGIN

    assert way(1, delay=plugin) == Way(
        exchange="delayed", routing_key="checks", is_mandatory=False, delay_ms=1
    )
    assert way((2**32 - 1) * 1000, delay=plugin) is not None
    assert way((2**32 - 1) * 1000 + 1, delay=plugin) is None


def test_the_outbox_holds_everything():
    assert way(1800 * SECOND, delay=DelayBackend.OUTBOX) is None


@pytest.mark.parametrize("delay", DelayBackend)
def test_a_queue_without_a_delay_has_no_way_to_hold(delay: DelayBackend):
    assert way(1800 * SECOND, route="others", delay=delay) is None


@pytest.mark.parametrize("hold_s", [0, -1, 4_294_967.3])
def test_a_delay_that_the_broker_cannot_count_is_refused(hold_s: float):
    with pytest.raises(ValueError, match="hold_s"):
        RabbitOptions(hold_s=hold_s)


def test_a_duration_of_nothing_is_refused():
    with pytest.raises(ValueError, match="above 0"):
        RabbitOptions(confirm_timeout_s=0)
