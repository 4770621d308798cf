"""What a setting's text may be: one type for each kind of value, with the words for a wrong one.

Pure: text in, value out. `settings.py` says which variable holds which kind.
"""

import base64
import binascii
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

# RFC 7518 section 3.2: an HS256 key is at least as long as the hash.
JWT_SECRET_BYTES_MIN = 32

# Standard Webhooks 1.0, "Symmetric": 192 to 512 random bits after the prefix.
WEBHOOK_SECRET_PREFIX = "whsec_"  # noqa: S105 (a prefix, not a secret)
WEBHOOK_SECRET_BYTES_MIN = 24
WEBHOOK_SECRET_BYTES_MAX = 64

DATABASE_QUEUES_URL = "database://"
SERVICE_NAMES = ("orders", "cart", "payment")

# A month: far beyond any sane wait, well inside what every broker and database can count.
_SECONDS_MAX = 31 * 24 * 3600
_RETENTION_S_MAX = 10 * 365 * 24 * 3600

# A name as the contract has identifiers; queue and channel names keep to it as well.
_NAME = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_PASSWORD_MASK = "***"  # noqa: S105 (what stands in for a password)


@dataclass(frozen=True, slots=True)
class Allowed:
    """The words that tell a person what a setting may be."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelSecret:
    """A secret that one outside payment channel signs its notifications with."""

    channel: str
    secret: SecretStr


def members_of(text: object) -> object:
    """Return the members of a comma-separated list, stripped; what is no text as it is."""
    if not isinstance(text, str):
        return text
    return tuple(member.strip() for member in text.split(","))


def masked_url(url: str) -> str:
    """Return the URL with every password in it replaced."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url
    authority, slash, path = rest.partition("/")
    if "@" in rest and "@" not in authority:
        # A password with a bare slash: no telling where it ends but at the last `@`.
        authority, slash, path = rest.rpartition("@")[0] + "@", "", rest.rpartition("@")[2]
    user_info, at, host = authority.rpartition("@")
    user, colon, _password = user_info.partition(":")
    if colon:
        user_info = f"{user}:{_PASSWORD_MASK}"
    path = re.sub(r"(?i)([?&][^=&#]*pass[^=&#]*=)[^&#]*", rf"\1{_PASSWORD_MASK}", path)
    return f"{scheme}{separator}{user_info}{at}{host}{slash}{path}"


def _distinct(members: tuple[str, ...]) -> tuple[str, ...]:
    if any(not member for member in members):
        message = "a member of the list is empty"
        raise ValueError(message)
    if len(set(members)) < len(members):
        message = "a member is listed twice"
        raise ValueError(message)
    return members


def _named(members: tuple[str, ...]) -> tuple[str, ...]:
    for member in _distinct(members):
        if not _NAME.fullmatch(member):
            message = f"{member!r} is not a name"
            raise ValueError(message)
    return members


def _parsed_host(url: str) -> str:
    """Return the host of a URL that has one.

    Raises:
        ValueError: the URL cannot be split, or its port is no port.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        # The library's own words quote what it stumbled on, which may be part of a password.
        message = "cannot be split into user, host, port and path"
        raise ValueError(message) from None
    return parts.hostname or ""


def _check_database_url(url: str) -> str:
    scheme, _, rest = url.partition("://")
    match scheme:
        case "sqlite":
            path = rest.removeprefix("/")
            if not rest.startswith("/") or not path or path.startswith(":memory:"):
                message = "names no file"
                raise ValueError(message)
        case "postgresql":
            _parsed_host(url)
            if not urlsplit(url).path.strip("/"):
                message = "names no database"
                raise ValueError(message)
        case _:
            message = "has a scheme that is not known"
            raise ValueError(message)
    return url


def _check_broker_urls(urls: tuple[str, ...]) -> tuple[str, ...]:
    if urls == (DATABASE_QUEUES_URL,):
        return urls
    for url in _distinct(urls):
        if url == DATABASE_QUEUES_URL:
            message = "database:// stands alone"
            raise ValueError(message)
        if not url.startswith(("amqp://", "amqps://")) or not _parsed_host(url):
            message = f"{masked_url(url)!r} is not an AMQP URL with a host"
            raise ValueError(message)
    return urls


def _check_http_url(url: str) -> str:
    if not url.startswith(("http://", "https://")) or not _parsed_host(url):
        message = f"{masked_url(url)!r} is not an HTTP URL with a host"
        raise ValueError(message)
    return url


def _check_http_urls(urls: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(_check_http_url(url) for url in _distinct(urls))


def _check_jwt_secret(secret: SecretStr) -> SecretStr:
    length = len(secret.get_secret_value().encode())
    if length < JWT_SECRET_BYTES_MIN:
        message = f"has {length} bytes"
        raise ValueError(message)
    return secret


def _check_webhook_secret(secret: SecretStr) -> SecretStr:
    text = secret.get_secret_value()
    if not text.startswith(WEBHOOK_SECRET_PREFIX):
        message = "a secret does not begin with whsec_"
        raise ValueError(message)
    try:
        length = len(base64.b64decode(text.removeprefix(WEBHOOK_SECRET_PREFIX), validate=True))
    except (binascii.Error, ValueError):
        message = "what follows whsec_ is not base64"
        raise ValueError(message) from None
    if not WEBHOOK_SECRET_BYTES_MIN <= length <= WEBHOOK_SECRET_BYTES_MAX:
        message = f"a secret has {length} bytes after decoding"
        raise ValueError(message)
    return secret


def _check_webhook_secrets(secrets: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    _distinct(tuple(secret.get_secret_value() for secret in secrets))
    return tuple(_check_webhook_secret(secret) for secret in secrets)


def _channel_secrets(text: object) -> object:
    if not isinstance(text, str):
        return text
    secrets = []
    for member in text.split(","):
        channel, equals, secret = member.strip().partition("=")
        if not equals or not _NAME.fullmatch(channel.strip()):
            message = "a member is not NAME=SECRET with a name of letters, digits and ._:-"
            raise ValueError(message)
        checked = _check_webhook_secret(SecretStr(secret.strip()))
        secrets.append(ChannelSecret(channel=channel.strip(), secret=checked))
    return tuple(secrets)


def _check_services(services: tuple[str, ...]) -> tuple[str, ...]:
    for service in _distinct(services):
        if service not in SERVICE_NAMES:
            message = f"{service!r} is not a service"
            raise ValueError(message)
    return services


def _refuse(text: str) -> str:
    message = f"{text!r} is set, and this release cannot use it"
    raise ValueError(message)


def _number_of(minimum: int, maximum: int) -> tuple[object, Allowed]:
    return (
        Field(ge=minimum, le=maximum),
        Allowed(f"a whole number from {minimum} to {maximum}"),
    )


def _list(check: Callable[[tuple[str, ...]], tuple[str, ...]]) -> tuple[object, ...]:
    return (NoDecode, BeforeValidator(members_of), AfterValidator(check))


Seconds: TypeAlias = Annotated[
    float,
    Field(gt=0, le=_SECONDS_MAX, allow_inf_nan=False),
    Allowed(f"seconds above 0 and at most {_SECONDS_MAX}; fractions allowed"),
]
SecondsOrNone: TypeAlias = Annotated[
    float,
    Field(ge=0, le=_SECONDS_MAX, allow_inf_nan=False),
    Allowed(f"seconds from 0 to {_SECONDS_MAX}; fractions allowed"),
]
RetentionSeconds: TypeAlias = Annotated[
    float,
    Field(gt=0, le=_RETENTION_S_MAX, allow_inf_nan=False),
    Allowed(f"seconds above 0 and at most {_RETENTION_S_MAX}"),
]
Port: TypeAlias = Annotated[
    int, Field(ge=0, le=65535), Allowed("a port from 1 to 65535, or 0 for any that is free")
]
PoolSize: TypeAlias = Annotated[int, *_number_of(1, 1000)]
Prefetch: TypeAlias = Annotated[int, *_number_of(1, 10_000)]
BatchSize: TypeAlias = Annotated[int, *_number_of(1, 10_000)]
IntakeBatchSize: TypeAlias = Annotated[int, *_number_of(1, 1024)]
IntakeQueueSize: TypeAlias = Annotated[int, *_number_of(1, 1_000_000)]
DeliveryCount: TypeAlias = Annotated[int, *_number_of(1, 1000)]

Host: TypeAlias = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9._:%-]{1,253}$"),
    Allowed("a host name or address, such as 127.0.0.1, 0.0.0.0 or ::"),
]
Claim: TypeAlias = Annotated[
    str, Field(min_length=1, max_length=1024), Allowed("a text of 1 to 1024 characters")
]
OptionalClaim: TypeAlias = Annotated[Claim | None, Allowed("a text of 1 to 1024 characters")]
OptionalDatabaseUrl: TypeAlias = Annotated[
    Annotated[str, AfterValidator(_check_database_url)] | None,
    Allowed("sqlite:///PATH, or postgresql://USER:PW@HOST:PORT/DB?sslmode=..."),
]
BrokerUrls: TypeAlias = Annotated[
    tuple[str, ...],
    *_list(_check_broker_urls),
    Allowed("database://, or one or more amqp(s)://USER:PW@HOST:PORT/VHOST with commas between"),
]
WebhookUrls: TypeAlias = Annotated[
    tuple[str, ...],
    *_list(_check_http_urls),
    Allowed("http:// or https:// URLs with commas between"),
]
QueueNames: TypeAlias = Annotated[
    tuple[str, ...], *_list(_named), Allowed("queue names with commas between")
]
ServiceNames: TypeAlias = Annotated[
    tuple[str, ...],
    *_list(_check_services),
    Allowed(f"one or more of {', '.join(SERVICE_NAMES)} with commas between"),
]
OptionalJwtSecret: TypeAlias = Annotated[
    Annotated[SecretStr, AfterValidator(_check_jwt_secret)] | None,
    Allowed(f"at least {JWT_SECRET_BYTES_MIN} bytes"),
]
WebhookSecrets: TypeAlias = Annotated[
    tuple[SecretStr, ...],
    NoDecode,
    BeforeValidator(members_of),
    AfterValidator(_check_webhook_secrets),
    Allowed(
        f"whsec_ and base64 of {WEBHOOK_SECRET_BYTES_MIN} to {WEBHOOK_SECRET_BYTES_MAX} bytes; "
        "several with commas between"
    ),
]
ChannelSecrets: TypeAlias = Annotated[
    tuple[ChannelSecret, ...],
    NoDecode,
    BeforeValidator(_channel_secrets),
    Allowed(
        f"NAME=whsec_ and base64 of {WEBHOOK_SECRET_BYTES_MIN} to {WEBHOOK_SECRET_BYTES_MAX} "
        "bytes; several with commas between"
    ),
]
NotInThisRelease: TypeAlias = Annotated[
    Annotated[str, AfterValidator(_refuse)] | None, Allowed("leave it unset")
]
QueueArguments: TypeAlias = Annotated[Literal["full", "plain"], Allowed("full or plain")]
DelayBackend: TypeAlias = Annotated[
    Literal["hold-queue", "plugin", "outbox"], Allowed("hold-queue, plugin or outbox")
]
LatePaymentPolicy: TypeAlias = Annotated[
    Literal["refund", "revive", "manual"], Allowed("refund, revive or manual")
]
OptionalSwitch: TypeAlias = Annotated[Literal["on", "off"] | None, Allowed("on or off")]
LogLevel: TypeAlias = Annotated[
    Literal["debug", "info", "warning", "error"], Allowed("debug, info, warning or error")
]
LogFormat: TypeAlias = Annotated[Literal["auto", "text", "json"], Allowed("auto, text or json")]
TestMode: TypeAlias = Annotated[Literal["0", "1"], Allowed("0 or 1")]
