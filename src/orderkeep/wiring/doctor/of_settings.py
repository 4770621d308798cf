"""What to think of settings that are allowed, and yet not right for where they are used. PURE."""

from collections.abc import Collection, Iterator
from ipaddress import ip_address
from urllib.parse import urlsplit

from orderkeep.settings import Settings
from orderkeep.settings_values import SERVICE_NAMES
from orderkeep.wiring.doctor.examination import Examination, fine, warning, wrong

# Fewer different characters than these, and a key is a word or a pattern, whatever its length.
# 32 characters drawn from 16 have fewer than 8 different ones once in many thousand times.
_DIFFERENT_CHARACTERS_MIN = 8

# What stands in examples, and what people type to get on.
_PLACEHOLDERS = ("changeme", "change-me", "secret", "password", "example", "placeholder")

# With less, an operator who looks on Monday cannot see what was sent on Friday.
_OUTBOX_RETENTION_S_MIN = 3 * 24 * 3600.0

# As many as one `orderkeep work` needs to hand out every message and be handed the next meanwhile.
_PREFETCH_MIN = 10


def examine_settings(settings: Settings, *, unread_queues: Collection[str]) -> list[Examination]:
    """Return what there is to say about the settings as a whole.

    Args:
        settings: Each of them allowed.
        unread_queues: The queues of services that do not run here and that are not named as
            unused; empty where others can read them.
    """
    examinations = [
        *_test_settings(settings),
        *_sandbox(settings),
        *_jwt_secret(settings),
        *_services(settings, unread_queues=unread_queues),
        *_webhooks(settings),
        *_times(settings),
    ]
    return examinations or [fine("settings", "nothing stands out")]


def is_local(host: str | None) -> bool:
    """Return whether nothing that goes to the host leaves this machine; None is a socket file."""
    if host is None or host == "localhost" or host.startswith("/"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _test_settings(settings: Settings) -> Iterator[Examination]:
    if settings.failure_point is not None:
        yield wrong(
            "settings.failure_point",
            f"this process would kill itself at {settings.failure_point}",
            remedy="unset ORDERKEEP_FAILURE_POINT and ORDERKEEP_TEST_MODE: they are for tests",
        )
    elif settings.test_mode == "1":
        yield warning(
            "settings.test_mode",
            "the test mode is on",
            remedy="unset ORDERKEEP_TEST_MODE: it allows what only tests need",
        )


def _sandbox(settings: Settings) -> Iterator[Examination]:
    if settings.is_sandbox_on and not settings.is_embedded:
        yield warning(
            "settings.sandbox",
            "the sandbox payment channel is on, on PostgreSQL: anybody with a token can have an"
            " order paid for nothing",
            remedy="unset ORDERKEEP_SANDBOX, or set it to `off`, before real money is near",
        )


def _jwt_secret(settings: Settings) -> Iterator[Examination]:
    if settings.jwt_secret is None:
        if not settings.is_embedded:
            yield warning(
                "settings.jwt_secret",
                "ORDERKEEP_JWT_SECRET is unset: `orderkeep work` does without, `orderkeep serve`"
                " does not start",
                remedy="give every `serve` the same secret of 32 random bytes or more, such as"
                " that of `openssl rand -base64 32`, in ORDERKEEP_JWT_SECRET_FILE",
            )
        return
    secret = settings.jwt_secret.get_secret_value()
    is_weak = len(set(secret)) < _DIFFERENT_CHARACTERS_MIN or any(
        word in secret.lower() for word in _PLACEHOLDERS
    )
    if is_weak:
        yield warning(
            "settings.jwt_secret",
            "ORDERKEEP_JWT_SECRET looks as if it could be guessed; whoever does is any user, and"
            " any operator",
            remedy="draw one at random, such as that of `openssl rand -base64 32`",
        )


def _services(settings: Settings, *, unread_queues: Collection[str]) -> Iterator[Examination]:
    missing = [name for name in SERVICE_NAMES if name not in settings.services]
    if missing and unread_queues:
        yield warning(
            "settings.services",
            f"{' and '.join(missing)} {'does' if len(missing) == 1 else 'do'} not run here, and"
            f" nobody reads {', '.join(sorted(unread_queues))}: what is sent there piles up in the"
            " database",
            remedy="name these queues in ORDERKEEP_UNUSED_QUEUES, or run the service somewhere",
        )


def _webhooks(settings: Settings) -> Iterator[Examination]:
    for url in settings.webhook_urls:
        parts = urlsplit(url)
        if parts.scheme == "http" and not is_local(parts.hostname):
            yield warning(
                "settings.webhook_urls",
                f"orders go to {parts.hostname} unencrypted",
                subject=parts.hostname,
                remedy="use its https:// address in ORDERKEEP_WEBHOOK_URLS",
            )


def _times(settings: Settings) -> Iterator[Examination]:
    if settings.outbox_retention_s < _OUTBOX_RETENTION_S_MIN:
        yield warning(
            "settings.outbox_retention",
            f"what was sent is forgotten after {settings.outbox_retention_s:g} s: a timeline"
            " that is asked for later has no messages in it",
            remedy="set ORDERKEEP_OUTBOX_RETENTION_S to three days (259200) or more",
        )
    if settings.sweep_grace_s + settings.sweep_interval_s > settings.order_timeout_s:
        yield warning(
            "settings.sweep",
            f"an order whose message is lost may stay open for"
            f" {settings.sweep_grace_s + settings.sweep_interval_s:g} s after its deadline, longer"
            f" than the {settings.order_timeout_s:g} s that it had",
            remedy="shorten ORDERKEEP_SWEEP_GRACE_S and ORDERKEEP_SWEEP_INTERVAL_S with"
            " ORDERKEEP_ORDER_TIMEOUT_S",
        )
    if settings.prefetch < _PREFETCH_MIN and not settings.has_database_queues:
        yield warning(
            "settings.prefetch",
            f"a consumer has {settings.prefetch} in hand at most: quorum queues pay a round trip"
            " of the cluster for each",
            remedy="set ORDERKEEP_PREFETCH to 50 or more",
        )
