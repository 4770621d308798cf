"""What is answered to those who ask how a process is, over HTTP or on the command line."""

from enum import StrEnum

import msgspec


class Health(StrEnum):
    """The state of a check, and of all of them together."""

    OK = "ok"
    DEGRADED = "degraded"
    FAILED = "failed"
    UNAVAILABLE = "unavailable"


class CheckAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one check found."""

    status: Health
    detail: str | None = None


class ReadyAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What all checks found."""

    status: Health
    checks: dict[str, CheckAnswer]


class LiveAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The process answers."""

    status: Health
