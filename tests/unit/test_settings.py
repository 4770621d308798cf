"""Settings: defaults, every kind of wrong value, files, secrets that never show."""

import base64
import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from orderkeep.settings import Settings, SettingsError, describe, load_settings

SECRET_TEXT = "whsec_" + base64.b64encode(b"0123456789abcdef01234567").decode()
OTHER_SECRET_TEXT = "whsec_" + base64.b64encode(b"abcdef0123456789abcdef01").decode()
JWT_SECRET = "k" * 32
MASKED = "*" * 8


def wrong_variables(environ: dict[str, str]) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load_settings(environ)
    return [one.variable for one in caught.value.wrong]


def shown(settings: Settings) -> dict[str, str]:
    return {one.variable: one.value for one in describe(settings)}


def test_an_empty_environment_gives_the_defaults_of_the_contract() -> None:
    settings = load_settings({})

    assert settings.data_dir == Path("orderkeep-data")
    assert settings.sqlite_path == Path("orderkeep-data/orderkeep.db")
    assert settings.is_embedded
    assert settings.is_sandbox_on
    assert settings.has_database_queues
    assert settings.effective_database_direct_url == "sqlite:///orderkeep-data/orderkeep.db"
    assert settings.database_pool_size == 8
    assert settings.queue_arguments == "full"
    assert settings.prefetch == 100
    assert (settings.http_host, settings.http_port) == ("127.0.0.1", 8080)
    assert settings.work_http_port == 8081
    assert settings.jwt_secret is None
    assert (settings.jwt_issuer, settings.jwt_audience) == (None, "orderkeep")
    assert settings.order_timeout_s == 1800
    assert settings.token_ttl_s == 300
    assert settings.outbox_poll_interval_s == 5
    assert settings.outbox_batch_size == 100
    assert settings.outbox_retention_s == 604800
    assert (settings.sweep_interval_s, settings.sweep_grace_s) == (30, 30)
    assert settings.delay_backend == "hold-queue"
    assert settings.late_payment_policy == "refund"
    assert settings.payment_extension_s == 300
    assert settings.max_deliveries == 16
    assert (settings.retry_base_s, settings.retry_max_s) == (1, 300)
    assert settings.unknown_order_retry_for_s == 3600
    assert settings.webhook_retry_for_s == 259200
    assert settings.refund_retry_for_s == 259200
    assert settings.webhook_urls == ()
    assert settings.webhook_secrets == ()
    assert settings.secrets_by_channel == {}
    assert settings.services == ("orders", "cart", "payment")
    assert settings.unused_queues == ()
    assert settings.shutdown_s == 25
    assert (settings.log_level, settings.log_format) == ("info", "auto")
    assert (settings.intake_batch_size, settings.intake_queue_size) == (128, 4096)
    assert settings.armed_point is None


def test_every_variable_of_the_contract_is_known() -> None:
    known = {one.variable for one in describe(load_settings({}))}

    assert known == {
        "ORDERKEEP_DATA_DIR",
        "ORDERKEEP_DATABASE_URL",
        "ORDERKEEP_DATABASE_DIRECT_URL",
        "ORDERKEEP_DATABASE_POOL_SIZE",
        "ORDERKEEP_BROKER_URL",
        "ORDERKEEP_QUEUE_ARGUMENTS",
        "ORDERKEEP_PREFETCH",
        "ORDERKEEP_HTTP_HOST",
        "ORDERKEEP_HTTP_PORT",
        "ORDERKEEP_WORK_HTTP_PORT",
        "ORDERKEEP_JWT_SECRET",
        "ORDERKEEP_JWT_JWKS_URL",
        "ORDERKEEP_JWT_ISSUER",
        "ORDERKEEP_JWT_AUDIENCE",
        "ORDERKEEP_ORDER_TIMEOUT_S",
        "ORDERKEEP_TOKEN_TTL_S",
        "ORDERKEEP_OUTBOX_POLL_INTERVAL_S",
        "ORDERKEEP_OUTBOX_BATCH_SIZE",
        "ORDERKEEP_OUTBOX_RETENTION_S",
        "ORDERKEEP_SWEEP_INTERVAL_S",
        "ORDERKEEP_SWEEP_GRACE_S",
        "ORDERKEEP_DELAY_BACKEND",
        "ORDERKEEP_LATE_PAYMENT_POLICY",
        "ORDERKEEP_PAYMENT_EXTENSION_S",
        "ORDERKEEP_MAX_DELIVERIES",
        "ORDERKEEP_RETRY_BASE_S",
        "ORDERKEEP_RETRY_MAX_S",
        "ORDERKEEP_UNKNOWN_ORDER_RETRY_FOR_S",
        "ORDERKEEP_WEBHOOK_RETRY_FOR_S",
        "ORDERKEEP_REFUND_RETRY_FOR_S",
        "ORDERKEEP_WEBHOOK_URLS",
        "ORDERKEEP_WEBHOOK_SECRETS",
        "ORDERKEEP_CHANNEL_SECRETS",
        "ORDERKEEP_SANDBOX",
        "ORDERKEEP_SERVICES",
        "ORDERKEEP_UNUSED_QUEUES",
        "ORDERKEEP_SHUTDOWN_S",
        "ORDERKEEP_LOG_LEVEL",
        "ORDERKEEP_LOG_FORMAT",
        # Beyond the contract.
        "ORDERKEEP_INTAKE_BATCH_SIZE",
        "ORDERKEEP_INTAKE_QUEUE_SIZE",
        "ORDERKEEP_TEST_MODE",
        "ORDERKEEP_FAILURE_POINT",
    }


def test_values_are_read_as_their_kinds() -> None:
    settings = load_settings(
        {
            "ORDERKEEP_DATABASE_URL": "postgresql://shop:pw@db.example:5432/shop?sslmode=require",
            "ORDERKEEP_DATABASE_DIRECT_URL": "postgresql://shop:pw@direct.example:5432/shop",
            "ORDERKEEP_BROKER_URL": "amqp://a:b@one:5672/v, amqps://a:b@two/v",
            "ORDERKEEP_ORDER_TIMEOUT_S": "0.25",
            "ORDERKEEP_HTTP_PORT": " 0 ",
            "ORDERKEEP_SERVICES": "orders, payment",
            "ORDERKEEP_UNUSED_QUEUES": "cart-sync,order.timeout.dlq",
            "ORDERKEEP_WEBHOOK_URLS": "https://one.example/hook,http://two.example:8000/",
            "ORDERKEEP_WEBHOOK_SECRETS": f"{SECRET_TEXT},{OTHER_SECRET_TEXT}",
            "ORDERKEEP_CHANNEL_SECRETS": (
                f"alipay={SECRET_TEXT}, alipay={OTHER_SECRET_TEXT},wechat={SECRET_TEXT}"
            ),
            "ORDERKEEP_JWT_SECRET": JWT_SECRET,
        }
    )

    assert not settings.is_embedded
    assert settings.sqlite_path is None
    assert not settings.is_sandbox_on
    assert not settings.has_database_queues
    assert settings.broker_url == ("amqp://a:b@one:5672/v", "amqps://a:b@two/v")
    assert settings.order_timeout_s == 0.25
    assert settings.http_port == 0
    assert settings.services == ("orders", "payment")
    assert settings.unused_queues == ("cart-sync", "order.timeout.dlq")
    assert settings.webhook_urls == ("https://one.example/hook", "http://two.example:8000/")
    assert [one.get_secret_value() for one in settings.webhook_secrets] == [
        SECRET_TEXT,
        OTHER_SECRET_TEXT,
    ]
    assert {
        channel: [one.get_secret_value() for one in secrets]
        for channel, secrets in settings.secrets_by_channel.items()
    } == {"alipay": [SECRET_TEXT, OTHER_SECRET_TEXT], "wechat": [SECRET_TEXT]}
    assert settings.jwt_secret is not None
    assert settings.jwt_secret.get_secret_value() == JWT_SECRET


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///shop.db", Path("shop.db")),
        ("sqlite:////var/lib/shop.db", Path("/var/lib/shop.db")),
    ],
)
def test_a_sqlite_url_names_its_file(url: str, path: Path) -> None:
    settings = load_settings({"ORDERKEEP_DATABASE_URL": url})

    assert settings.sqlite_path == path


def test_settings_are_frozen() -> None:
    settings = load_settings({})

    with pytest.raises(ValidationError):
        settings.http_port = 1


def test_an_empty_variable_counts_as_unset() -> None:
    settings = load_settings({"ORDERKEEP_SERVICES": "", "ORDERKEEP_HTTP_PORT": "  "})

    assert settings.services == ("orders", "cart", "payment")
    assert settings.http_port == 8080


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("ORDERKEEP_HTTP_PORT", "65536"),
        ("ORDERKEEP_HTTP_PORT", "-1"),
        ("ORDERKEEP_HTTP_PORT", "http"),
        ("ORDERKEEP_HTTP_HOST", "not a host"),
        ("ORDERKEEP_DATABASE_POOL_SIZE", "0"),
        ("ORDERKEEP_PREFETCH", "1.5"),
        ("ORDERKEEP_OUTBOX_BATCH_SIZE", "0"),
        ("ORDERKEEP_INTAKE_BATCH_SIZE", "1025"),
        ("ORDERKEEP_INTAKE_QUEUE_SIZE", "0"),
        ("ORDERKEEP_ORDER_TIMEOUT_S", "0"),
        ("ORDERKEEP_ORDER_TIMEOUT_S", "nan"),
        ("ORDERKEEP_ORDER_TIMEOUT_S", "inf"),
        ("ORDERKEEP_SWEEP_INTERVAL_S", "0"),
        ("ORDERKEEP_SWEEP_GRACE_S", "-1"),
        ("ORDERKEEP_MAX_DELIVERIES", "0"),
        ("ORDERKEEP_RETRY_BASE_S", "301"),
        ("ORDERKEEP_DATABASE_URL", "mysql://u:p@h/db"),
        ("ORDERKEEP_DATABASE_URL", "sqlite://"),
        ("ORDERKEEP_DATABASE_URL", "sqlite:///:memory:"),
        ("ORDERKEEP_DATABASE_URL", "postgresql://u:p@h:port/db"),
        ("ORDERKEEP_DATABASE_URL", "postgresql://u:p@h"),
        ("ORDERKEEP_DATABASE_DIRECT_URL", "postgresql://u:p@h/db"),
        ("ORDERKEEP_BROKER_URL", "kafka://h"),
        ("ORDERKEEP_BROKER_URL", "amqp://"),
        ("ORDERKEEP_BROKER_URL", "database://,amqp://h"),
        ("ORDERKEEP_BROKER_URL", "amqp://h,amqp://h"),
        ("ORDERKEEP_QUEUE_ARGUMENTS", "none"),
        ("ORDERKEEP_DELAY_BACKEND", "cron"),
        ("ORDERKEEP_LATE_PAYMENT_POLICY", "keep"),
        ("ORDERKEEP_JWT_SECRET", "short"),
        ("ORDERKEEP_JWT_JWKS_URL", "https://issuer.example/keys"),
        ("ORDERKEEP_WEBHOOK_URLS", "ftp://h/"),
        ("ORDERKEEP_WEBHOOK_SECRETS", "secret"),
        ("ORDERKEEP_WEBHOOK_SECRETS", "whsec_***"),
        ("ORDERKEEP_WEBHOOK_SECRETS", "whsec_c2hvcnQ="),
        ("ORDERKEEP_CHANNEL_SECRETS", SECRET_TEXT),
        ("ORDERKEEP_CHANNEL_SECRETS", f"ali pay={SECRET_TEXT}"),
        ("ORDERKEEP_CHANNEL_SECRETS", "alipay=whsec_c2hvcnQ="),
        ("ORDERKEEP_SANDBOX", "yes"),
        ("ORDERKEEP_SERVICES", "orders,shipping"),
        ("ORDERKEEP_SERVICES", "orders,orders"),
        ("ORDERKEEP_SERVICES", "orders,"),
        ("ORDERKEEP_UNUSED_QUEUES", "cart sync"),
        ("ORDERKEEP_LOG_LEVEL", "loud"),
        ("ORDERKEEP_LOG_FORMAT", "xml"),
        ("ORDERKEEP_SHUTDOWN_S", "-1"),
    ],
)
def test_a_wrong_value_is_refused_by_its_variable(variable: str, text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings({variable: text})

    assert [one.variable for one in caught.value.wrong] == [variable]
    # The words of a library are for programmers.
    assert not re.search("[Ii]nput|string|integer|valid", str(caught.value))


def test_every_wrong_setting_is_named_in_one_message() -> None:
    environ = {
        "ORDERKEEP_HTTP_PORT": "99999",
        "ORDERKEEP_LOG_LEVEL": "loud",
        "ORDERKEEP_RETRY_BASE_S": "20",
        "ORDERKEEP_RETRY_MAX_S": "10",
        "ORDERKEEP_HTTP_PROT": "80",
        "ORDERKEEP_WEBHOOK_URLS": "https://one.example/",
    }

    with pytest.raises(SettingsError) as caught:
        load_settings(environ)

    assert str(caught.value) == (
        "5 settings are wrong:\n"
        "  ORDERKEEP_HTTP_PORT is '99999'; "
        "allowed: a port from 1 to 65535, or 0 for any that is free\n"
        "  ORDERKEEP_HTTP_PROT is not a setting; allowed: did you mean ORDERKEEP_HTTP_PORT?\n"
        "  ORDERKEEP_LOG_LEVEL is 'loud'; "
        "allowed: debug, info, warning or error\n"
        "  ORDERKEEP_RETRY_BASE_S is 20, above ORDERKEEP_RETRY_MAX_S; allowed: at most 10\n"
        "  ORDERKEEP_WEBHOOK_SECRETS is unset while ORDERKEEP_WEBHOOK_URLS is set; "
        "allowed: at least one secret, so that receivers can tell who sends"
    )


def test_a_variable_nobody_knows_is_wrong_and_others_are_none_of_ours() -> None:
    assert wrong_variables({"ORDERKEEP_ZZZ": "1", "PATH": "/bin"}) == ["ORDERKEEP_ZZZ"]


def test_a_value_is_read_from_a_file_and_stripped(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(f"{JWT_SECRET}\n")

    settings = load_settings({"ORDERKEEP_JWT_SECRET_FILE": str(file)})

    assert settings.jwt_secret is not None
    assert settings.jwt_secret.get_secret_value() == JWT_SECRET


def test_a_value_given_twice_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "port"
    file.write_text("8000")

    variables = wrong_variables(
        {"ORDERKEEP_HTTP_PORT": "8000", "ORDERKEEP_HTTP_PORT_FILE": str(file)}
    )

    assert variables == ["ORDERKEEP_HTTP_PORT"]


def test_a_missing_or_empty_file_is_wrong(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_text("\n")

    variables = wrong_variables(
        {
            "ORDERKEEP_HTTP_PORT_FILE": str(tmp_path / "missing"),
            "ORDERKEEP_LOG_LEVEL_FILE": str(empty),
        }
    )

    assert variables == ["ORDERKEEP_HTTP_PORT_FILE", "ORDERKEEP_LOG_LEVEL_FILE"]


def test_a_queue_nobody_has_cannot_be_unused() -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings({"ORDERKEEP_UNUSED_QUEUES": "cart-sync,cart-snyc"}, queue_names={"cart-sync"})

    assert caught.value.wrong[0].wrong == "names cart-snyc, which no service has"


def test_a_failure_point_is_for_tests_alone() -> None:
    assert wrong_variables({"ORDERKEEP_FAILURE_POINT": "a.b:2"}) == ["ORDERKEEP_FAILURE_POINT"]
    assert wrong_variables({"ORDERKEEP_FAILURE_POINT": "a.b:0", "ORDERKEEP_TEST_MODE": "1"}) == [
        "ORDERKEEP_FAILURE_POINT"
    ]

    settings = load_settings({"ORDERKEEP_FAILURE_POINT": "a.b:2", "ORDERKEEP_TEST_MODE": "1"})

    assert settings.armed_point is not None
    assert (settings.armed_point.name, settings.armed_point.on_reach) == ("a.b", 2)


SECRET_ENVIRON = {
    "ORDERKEEP_DATABASE_URL": "postgresql://shop:hush1@db/shop?password=hush2&sslmode=require",
    "ORDERKEEP_DATABASE_DIRECT_URL": "postgresql://shop:hush3@db/shop",
    "ORDERKEEP_BROKER_URL": "amqp://shop:hush4@mq/v",
    "ORDERKEEP_JWT_SECRET": "hush5" * 10,
    "ORDERKEEP_WEBHOOK_URLS": "https://shop:hush6@one.example/",
    "ORDERKEEP_WEBHOOK_SECRETS": SECRET_TEXT,
    "ORDERKEEP_CHANNEL_SECRETS": f"alipay={OTHER_SECRET_TEXT}",
}


def test_no_secret_shows_in_the_settings_themselves() -> None:
    text = repr(load_settings(SECRET_ENVIRON)) + str(load_settings(SECRET_ENVIRON))

    assert "hush" not in text
    assert SECRET_TEXT not in text
    assert OTHER_SECRET_TEXT not in text


def test_the_description_masks_secrets_and_passwords() -> None:
    values = shown(load_settings(SECRET_ENVIRON))

    assert values["ORDERKEEP_DATABASE_URL"] == (
        "postgresql://shop:***@db/shop?password=***&sslmode=require"
    )
    assert values["ORDERKEEP_DATABASE_DIRECT_URL"] == "postgresql://shop:***@db/shop"
    assert values["ORDERKEEP_BROKER_URL"] == "amqp://shop:***@mq/v"
    assert values["ORDERKEEP_JWT_SECRET"] == MASKED
    assert values["ORDERKEEP_WEBHOOK_URLS"] == "https://shop:***@one.example/"
    assert values["ORDERKEEP_WEBHOOK_SECRETS"] == MASKED
    assert values["ORDERKEEP_CHANNEL_SECRETS"] == "alipay=********"


def test_a_wrong_secret_does_not_show_in_the_refusal() -> None:
    environ = {
        "ORDERKEEP_JWT_SECRET": "hush-short",
        "ORDERKEEP_WEBHOOK_SECRETS": "hush",
        "ORDERKEEP_CHANNEL_SECRETS": "alipay=hush",
        "ORDERKEEP_DATABASE_URL": "postgresql://shop:hush/hush@db/shop",
        "ORDERKEEP_DATABASE_DIRECT_URL": "other://shop:hush@db",
        "ORDERKEEP_BROKER_URL": "amqp://shop:hush@",
        "ORDERKEEP_WEBHOOK_URLS": "https://shop:hush@,ftp://a:hush@b",
    }

    with pytest.raises(SettingsError) as caught:
        load_settings(environ)

    assert len(caught.value.wrong) == 7
    assert "hush" not in str(caught.value)


def test_the_description_tells_what_is_in_effect_and_what_was_set() -> None:
    by_variable = {
        one.variable: one for one in describe(load_settings({"ORDERKEEP_SWEEP_GRACE_S": "0.5"}))
    }

    assert by_variable["ORDERKEEP_SWEEP_GRACE_S"].value == "0.5"
    assert not by_variable["ORDERKEEP_SWEEP_GRACE_S"].is_default
    assert by_variable["ORDERKEEP_OUTBOX_RETENTION_S"].value == "604800"
    assert by_variable["ORDERKEEP_OUTBOX_RETENTION_S"].is_default
    assert by_variable["ORDERKEEP_SANDBOX"].value == "on"
    assert by_variable["ORDERKEEP_DATABASE_URL"].value == "sqlite:///orderkeep-data/orderkeep.db"
    assert all(one.meaning for one in by_variable.values())
