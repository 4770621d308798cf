"""One frozen object from the environment, read once, with every wrong setting named at once.

Only `wiring` and the command line call `load_settings`; everybody else is given plain values. The
environment is an argument: nothing here reads the process's own.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pydantic import Field, SecretStr, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from orderkeep import failure_points
from orderkeep.settings_source import PREFIX, SettingsError, WrongSetting, texts_of, variable_of
from orderkeep.settings_values import (
    DATABASE_QUEUES_URL,
    SERVICE_NAMES,
    Allowed,
    BatchSize,
    BrokerUrls,
    ChannelSecrets,
    Claim,
    DelayBackend,
    DeliveryCount,
    Host,
    IntakeBatchSize,
    IntakeQueueSize,
    LatePaymentPolicy,
    LogFormat,
    LogLevel,
    NotInThisRelease,
    OptionalClaim,
    OptionalDatabaseUrl,
    OptionalJwtSecret,
    OptionalSwitch,
    PoolSize,
    Port,
    Prefetch,
    QueueArguments,
    QueueNames,
    RetentionSeconds,
    Seconds,
    SecondsOrNone,
    ServiceNames,
    TestMode,
    WebhookSecrets,
    WebhookUrls,
    masked_url,
)

__all__ = [
    "SettingDescription",
    "Settings",
    "SettingsError",
    "WrongSetting",
    "describe",
    "load_settings",
]

DATABASE_FILE_NAME = "orderkeep.db"

# What stands in for a secret wherever settings are shown.
MASK = "********"


class Settings(BaseSettings):
    """Every setting of every process, checked.

    A field `x` is the variable `ORDERKEEP_X`, or the content of the file `ORDERKEEP_X_FILE`.
    """

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="forbid", hide_input_in_errors=True
    )

    data_dir: Path = Field(
        Path("./orderkeep-data"),
        description="embedded database and generated secrets; one `run` at a time holds it",
    )
    database_url: OptionalDatabaseUrl = Field(
        None, description="SQLite file or PostgreSQL database", repr=False
    )
    database_direct_url: OptionalDatabaseUrl = Field(
        None,
        description="past a transaction pooler: for dispatchers, wake-ups and migrations",
        repr=False,
    )
    database_pool_size: PoolSize = Field(
        8, description="transactions that one process runs at once on PostgreSQL"
    )
    broker_url: BrokerUrls = Field(
        (DATABASE_QUEUES_URL,),
        description="database:// (queues in the database), or AMQP brokers, tried in turn",
        repr=False,
    )
    queue_arguments: QueueArguments = Field(
        "full", description="plain: AMQP queues are declared durable, without arguments"
    )
    prefetch: Prefetch = Field(100, description="messages one consumer has in hand at most")
    http_host: Host = Field("127.0.0.1", description="address that HTTP listens on")
    http_port: Port = Field(8080, description="port that HTTP listens on")
    work_http_port: Port = Field(8081, description="port of /health/* and /metrics of `work`")
    jwt_secret: OptionalJwtSecret = Field(None, description="HS256 key that signs bearer tokens")
    jwt_jwks_url: NotInThisRelease = Field(None, description="reserved for a later release")
    jwt_issuer: OptionalClaim = Field(None, description="`iss` that a token must carry, if set")
    jwt_audience: Claim = Field("orderkeep", description="`aud` that a token must carry")
    order_timeout_s: Seconds = Field(1800, description="payment deadline; fractions allowed")
    token_ttl_s: Seconds = Field(300, description="life of an unused one-time order token")
    outbox_poll_interval_s: Seconds = Field(
        5, description="fallback poll; a commit wakes the dispatcher at once"
    )
    outbox_batch_size: BatchSize = Field(100, description="outbox rows read at a time")
    outbox_retention_s: RetentionSeconds = Field(
        604_800, description="sent rows are purged after this"
    )
    sweep_interval_s: Seconds = Field(30, description="pause between sweeps for overdue orders")
    sweep_grace_s: SecondsOrNone = Field(
        30, description="how long after the deadline the sweep leaves an order to its message"
    )
    delay_backend: DelayBackend = Field(
        "hold-queue", description="where AMQP messages wait until they are due"
    )
    late_payment_policy: LatePaymentPolicy = Field(
        "refund", description="what a payment of a closed order does"
    )
    payment_extension_s: SecondsOrNone = Field(
        300, description="how far a payment in flight may move the deadline, once"
    )
    max_deliveries: DeliveryCount = Field(
        16, description="tries of one message before it is set aside"
    )
    retry_base_s: Seconds = Field(1, description="first pause between tries")
    retry_max_s: Seconds = Field(300, description="longest pause between tries")
    unknown_order_retry_for_s: SecondsOrNone = Field(
        3600, description="how long a payment waits for an order nobody knows yet"
    )
    webhook_retry_for_s: SecondsOrNone = Field(
        259_200, description="how long a webhook delivery is tried"
    )
    refund_retry_for_s: SecondsOrNone = Field(259_200, description="how long a refund is tried")
    webhook_urls: WebhookUrls = Field((), description="receivers of order events", repr=False)
    webhook_secrets: WebhookSecrets = Field(
        (), description="sign webhook deliveries; several for rotation"
    )
    channel_secrets: ChannelSecrets = Field((), description="outside payment channels")
    sandbox: OptionalSwitch = Field(None, description="the sandbox payment channel")
    services: ServiceNames = Field(SERVICE_NAMES, description="which services this process runs")
    unused_queues: QueueNames = Field(
        (), description="queues nobody reads: their events are recorded, not published"
    )
    shutdown_s: SecondsOrNone = Field(
        25, description="time to finish what is in hand after SIGTERM"
    )
    log_level: LogLevel = Field("info", description="least severe level that is logged")
    log_format: LogFormat = Field("auto", description="auto: text on a terminal, else JSON")
    intake_batch_size: IntakeBatchSize = Field(
        128, description="orders that share one commit at most"
    )
    intake_queue_size: IntakeQueueSize = Field(
        4096, description="orders that wait for a commit at most; 503 beyond"
    )
    test_mode: TestMode = Field("0", description="1 allows what only tests need")
    failure_point: str | None = Field(
        None, description="tests only: NAME[:COUNT], where the process kills itself"
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take values from `load_settings` alone: the environment is its argument."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)

    @property
    def is_embedded(self) -> bool:
        """Whether the database is a SQLite file."""
        return self.sqlite_path is not None

    @property
    def sqlite_path(self) -> Path | None:
        """The SQLite file, or None on PostgreSQL."""
        if self.database_url is None:
            return self.data_dir / DATABASE_FILE_NAME
        if not self.database_url.startswith("sqlite:///"):
            return None
        return Path(self.database_url.removeprefix("sqlite:///"))

    @property
    def effective_database_url(self) -> str:
        """The database's URL, also where none was given."""
        return self.database_url or f"sqlite:///{self.sqlite_path}"

    @property
    def effective_database_direct_url(self) -> str:
        """The URL that dispatchers use: the database's own unless another was given."""
        return self.database_direct_url or self.effective_database_url

    @property
    def has_database_queues(self) -> bool:
        """Whether queues live in the database, with no broker across the network."""
        return self.broker_url == (DATABASE_QUEUES_URL,)

    @property
    def is_sandbox_on(self) -> bool:
        """Whether the sandbox payment channel is open: as set, else on SQLite alone."""
        return self.is_embedded if self.sandbox is None else self.sandbox == "on"

    @property
    def secrets_by_channel(self) -> dict[str, tuple[SecretStr, ...]]:
        """The secrets of each outside payment channel; several are for rotation."""
        return {
            name: tuple(one.secret for one in self.channel_secrets if one.channel == name)
            for name in sorted({one.channel for one in self.channel_secrets})
        }

    @property
    def armed_point(self) -> failure_points.ArmedPoint | None:
        """The failure point a test armed, or None."""
        return failure_points.parse(self.failure_point) if self.failure_point else None


def load_settings(
    environ: Mapping[str, str], *, queue_names: Collection[str] | None = None
) -> Settings:
    """Return the settings that the environment holds.

    An empty variable counts as unset. Variables without the prefix are not looked at.

    Args:
        environ: Variables and their texts, such as `os.environ`.
        queue_names: The queues that exist, to refuse a wrong name in ORDERKEEP_UNUSED_QUEUES;
            None leaves names unchecked.

    Raises:
        SettingsError: one or more settings are wrong.
    """
    texts, wrong = texts_of(environ, Settings.model_fields)
    try:
        settings = Settings.model_validate(texts)
    except ValidationError as error:
        wrong += [_wrong_setting(one, texts) for one in error.errors(include_url=False)]
        # The rest is checked without the wrong ones, so that every wrong setting is named.
        names = {variable_of(str(one["loc"][0])) for one in error.errors(include_url=False)}
        rest = {name: text for name, text in texts.items() if variable_of(name) not in names}
        settings = Settings.model_validate(rest)
    named = {one.variable for one in wrong}
    wrong += [one for one in _conflicts_of(settings, queue_names) if one.variable not in named]
    if wrong:
        raise SettingsError(sorted(wrong, key=lambda one: one.variable))
    return settings


def _wrong_setting(error: ErrorDetails, texts: Mapping[str, str]) -> WrongSetting:
    name = str(error["loc"][0])
    field = Settings.model_fields[name]
    words = next((one.text for one in field.metadata if isinstance(one, Allowed)), "another value")
    is_shown = field.repr and not name.endswith(("secret", "secrets"))
    shown = f"is {texts[name]!r}" if is_shown else "is wrong"
    if error["type"] == "value_error":
        # The words of a check of ours; those of the library say less than what is allowed does.
        shown += ": " + error["msg"].removeprefix("Value error, ")
    return WrongSetting(variable=variable_of(name), wrong=shown, allowed=words)


def _conflicts_of(settings: Settings, queue_names: Collection[str] | None) -> list[WrongSetting]:
    """Return the settings that are right alone and wrong together."""
    wrong: list[tuple[str, str, str]] = []
    if settings.retry_base_s > settings.retry_max_s:
        wrong.append(
            (
                "retry_base_s",
                f"is {settings.retry_base_s:g}, above ORDERKEEP_RETRY_MAX_S",
                f"at most {settings.retry_max_s:g}",
            )
        )
    if settings.webhook_urls and not settings.webhook_secrets:
        wrong.append(
            (
                "webhook_secrets",
                "is unset while ORDERKEEP_WEBHOOK_URLS is set",
                "at least one secret, so that receivers can tell who sends",
            )
        )
    if settings.database_direct_url and settings.is_embedded:
        wrong.append(
            (
                "database_direct_url",
                "is set while the database is a SQLite file",
                "leave it unset on SQLite",
            )
        )
    if settings.intake_batch_size > settings.intake_queue_size:
        wrong.append(
            (
                "intake_queue_size",
                f"is {settings.intake_queue_size}, below ORDERKEEP_INTAKE_BATCH_SIZE",
                f"at least {settings.intake_batch_size}",
            )
        )
    unknown = sorted(set(settings.unused_queues) - set(queue_names or settings.unused_queues))
    if unknown:
        wrong.append(
            (
                "unused_queues",
                f"names {', '.join(unknown)}, which no service has",
                f"any of {', '.join(sorted(queue_names or ()))}",
            )
        )
    if settings.failure_point is not None:
        wrong.extend(_conflicts_of_failure_point(settings.failure_point, settings.test_mode))
    return [
        WrongSetting(variable=variable_of(name), wrong=text, allowed=allowed)
        for name, text, allowed in wrong
    ]


def _conflicts_of_failure_point(text: str, test_mode: TestMode) -> list[tuple[str, str, str]]:
    if test_mode != "1":
        return [("failure_point", "is set outside a test", "unset, or ORDERKEEP_TEST_MODE=1")]
    try:
        failure_points.parse(text)
    except ValueError as error:
        return [("failure_point", f"is wrong: {error}", "NAME or NAME:COUNT")]
    return []


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingDescription:
    """One setting as `orderkeep config` shows it.

    Attributes:
        value: What is in effect, with secrets and passwords masked.
    """

    variable: str
    value: str
    is_default: bool
    meaning: str


def describe(settings: Settings) -> list[SettingDescription]:
    """Return every setting as it is in effect, with secrets and passwords masked."""
    return [
        SettingDescription(
            variable=variable_of(name),
            value=_shown(name, settings),
            is_default=name not in settings.model_fields_set,
            meaning=field.description or "",
        )
        for name, field in Settings.model_fields.items()
    ]


def _shown(name: str, settings: Settings) -> str:
    shown_specially = {
        "database_url": masked_url(settings.effective_database_url),
        "database_direct_url": masked_url(settings.effective_database_direct_url),
        "broker_url": ",".join(masked_url(url) for url in settings.broker_url),
        "webhook_urls": ",".join(masked_url(url) for url in settings.webhook_urls),
        "channel_secrets": ",".join(f"{one.channel}={MASK}" for one in settings.channel_secrets),
        "sandbox": "on" if settings.is_sandbox_on else "off",
    }
    if name in shown_specially:
        return shown_specially[name]
    match getattr(settings, name):
        case None:
            return ""
        case SecretStr():
            return MASK
        case float() as seconds:
            return f"{seconds:.15g}"
        case tuple() as members:
            return ",".join(MASK if isinstance(one, SecretStr) else one for one in members)
        case value:
            return str(value)
