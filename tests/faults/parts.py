"""The parts of the programme: who lives how long, and what is done in which lane."""

from collections.abc import Callable, Mapping

from tests.faults import hardships, injuries
from tests.faults.schedule import LifeSpan
from tests.faults.shop import Part, Shop

# Each is given the shop, and from 0.0 to 1.0 how strong it is.
FAULTS: Mapping[str, Callable[[Shop, float], None]] = {
    "kill_postgresql": injuries.kill_postgresql,
    "stop_postgresql": injuries.stop_postgresql,
    "kill_rabbitmq": injuries.kill_rabbitmq,
    "wipe_rabbitmq": injuries.wipe_rabbitmq,
    "cut_database": injuries.cut_database,
    "cut_commits": injuries.cut_commits,
    "swallow_database": injuries.swallow_database,
    "delay_database": injuries.delay_database,
    "fill_disk": injuries.fill_disk,
    "cut_broker": injuries.cut_broker,
    "cut_confirms": injuries.cut_confirms,
    "swallow_broker": injuries.swallow_broker,
    "delay_broker": injuries.delay_broker,
    "alarm_memory": injuries.alarm_memory,
    "alarm_disk": injuries.alarm_disk,
    "poison": injuries.poison,
    "stop_worker": hardships.stop_worker,
    "stop_front": hardships.stop_front,
    "step_clock_of_worker": hardships.step_clock_of_worker,
    "step_clock_of_front": hardships.step_clock_of_front,
    "roll": hardships.roll,
}

_NETWORK = {
    "database": {
        "cut_database": 2,
        "cut_commits": 4,
        "swallow_database": 1,
        "delay_database": 1,
    },
    "broker": {"cut_broker": 2, "cut_confirms": 3, "swallow_broker": 1, "delay_broker": 1},
}

# With these a late payment may take its order back, and a payment under way moves the deadline.
_REVIVE = {"late_payment_policy": "revive", "payment_extension_s": 4}

PARTS: Mapping[str, Part] = {
    part.name: part
    for part in (
        Part(
            name="points",
            minutes=10.0,
            says="every process dies at one failure point after the other",
            span=LifeSpan(is_armed=True, at_least_s=2.0, at_most_s=6.0),
            shoppers_count=16,
            order_timeout_s=5.0,
            # The sweep finds something to close only where it is quicker than the message.
            settings={"sweep_grace_s": 0},
        ),
        Part(
            name="servers",
            minutes=9.0,
            says="processes, PostgreSQL and RabbitMQ are killed, and cut off from each other",
            span=LifeSpan(is_armed=True, at_least_s=0.1, at_most_s=4.0),
            spared_serve_count=1,
            serve_count=3,
            shoppers_count=20,
            order_timeout_s=8.0,
            settings={"sweep_grace_s": 0},
            lanes={
                "database": {
                    "kill_postgresql": 6,
                    "stop_postgresql": 1,
                    "cut_commits": 3,
                    "cut_database": 1,
                },
                "broker": {"kill_rabbitmq": 3, "cut_confirms": 1},
            },
            pauses={"database": 8.0, "broker": 8.0},
        ),
        Part(
            name="network",
            minutes=5.0,
            says="connections are cut, at the worst moment too, and slow, and silent",
            lanes=_NETWORK,
            pauses={"database": 2.0, "broker": 2.0},
            settings=_REVIVE,
        ),
        Part(
            name="hardships",
            minutes=6.0,
            says="processes hang, clocks jump, disks fill, the broker is wiped and alarmed",
            lanes={
                "database": {"fill_disk": 1},
                "broker": {"wipe_rabbitmq": 1, "alarm_memory": 2, "alarm_disk": 1, "poison": 3},
                "processes": {
                    "stop_worker": 3,
                    "stop_front": 2,
                    "step_clock_of_worker": 2,
                    "step_clock_of_front": 2,
                    "roll": 2,
                },
            },
            pauses={"database": 60.0, "broker": 8.0, "processes": 3.0},
        ),
        Part(
            name="everything",
            minutes=5.0,
            says="all of it at once",
            span=LifeSpan(is_armed=True, at_least_s=2.0, at_most_s=8.0),
            spared_serve_count=1,
            serve_count=3,
            shoppers_count=20,
            order_timeout_s=5.0,
            lanes={
                "database": {**_NETWORK["database"], "kill_postgresql": 4, "stop_postgresql": 1},
                "broker": {
                    **_NETWORK["broker"],
                    "kill_rabbitmq": 3,
                    "wipe_rabbitmq": 1,
                    "alarm_memory": 1,
                    "poison": 2,
                },
                "processes": {
                    "stop_worker": 2,
                    "stop_front": 1,
                    "step_clock_of_worker": 1,
                    "step_clock_of_front": 1,
                    "roll": 1,
                },
            },
            pauses={"database": 6.0, "broker": 8.0, "processes": 10.0},
            settings=_REVIVE,
        ),
    )
}
