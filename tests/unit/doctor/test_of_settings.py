"""What the doctor thinks of settings that are allowed one by one."""

import pytest

from orderkeep.settings import load_settings
from orderkeep.wiring.doctor.of_settings import examine_settings, is_local
from tests.unit.doctor.facts import found, verdicts

SECRET = "pRbk2cJmX0qf8eZsYw4tGv6uNh1iLd9o"

PRODUCTION = {
    "ORDERKEEP_DATABASE_URL": "postgresql://shop@db/shop",
    "ORDERKEEP_BROKER_URL": "amqp://shop@rabbit/shop",
    "ORDERKEEP_JWT_SECRET": SECRET,
}


def examined(unread_queues=(), **settings: str):
    environ = {**PRODUCTION, **{f"ORDERKEEP_{name}": text for name, text in settings.items()}}
    return examine_settings(load_settings(environ), unread_queues=unread_queues)


def test_a_production_set_up_has_nothing_that_stands_out() -> None:
    assert [(each.name, each.verdict.value) for each in examined()] == [("settings", "ok")]


def test_the_defaults_have_nothing_that_stands_out() -> None:
    examinations = examine_settings(load_settings({}), unread_queues=())

    assert verdicts(examinations) == []


@pytest.mark.parametrize(
    ("settings", "name", "verdict"),
    [
        ({"SANDBOX": "on"}, "settings.sandbox", "warning"),
        ({"JWT_SECRET": ""}, "settings.jwt_secret", "warning"),
        ({"JWT_SECRET": "abababab" * 5}, "settings.jwt_secret", "warning"),
        ({"JWT_SECRET": f"change-me-{SECRET}"}, "settings.jwt_secret", "warning"),
        ({"TEST_MODE": "1"}, "settings.test_mode", "warning"),
        (
            {"TEST_MODE": "1", "FAILURE_POINT": "database.before_commit"},
            "settings.failure_point",
            "wrong",
        ),
        (
            {"WEBHOOK_URLS": "http://shop.example/", "WEBHOOK_SECRETS": "whsec_" + "A" * 32},
            "settings.webhook_urls",
            "warning",
        ),
        ({"OUTBOX_RETENTION_S": "3600"}, "settings.outbox_retention", "warning"),
        ({"ORDER_TIMEOUT_S": "20"}, "settings.sweep", "warning"),
        ({"PREFETCH": "1"}, "settings.prefetch", "warning"),
    ],
)
def test_what_stands_out_is_told(settings: dict[str, str], name: str, verdict: str) -> None:
    examinations = examined(**settings)

    assert verdicts(examinations) == [(name, verdict)]
    assert all(each.remedy for each in examinations)


def test_queues_that_nobody_reads_are_named() -> None:
    examinations = examined(["cart-sync"], SERVICES="orders,payment")

    assert verdicts(examinations) == [("settings.services", "warning")]
    assert found(examinations, "settings.services").startswith(
        "cart does not run here, and nobody reads cart-sync"
    )


def test_no_secret_is_told() -> None:
    examinations = examined(JWT_SECRET="password-password-password-password")

    assert "password-password" not in repr(examinations)


@pytest.mark.parametrize(
    ("host", "is_on_this_machine"),
    [
        (None, True),
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("/var/run/postgresql", True),
        ("10.0.0.1", False),
        ("db", False),
        ("localhost.example", False),
    ],
)
def test_what_stays_on_this_machine_is_known(host: str | None, *, is_on_this_machine: bool) -> None:
    assert is_local(host) is is_on_this_machine
