"""The limit for dispatch and consumption in C, where it can be compiled: `bare_librabbitmq.c`.

It takes a compiler and librabbitmq with its headers (`gcc` and `librabbitmq-dev` on Debian and
Ubuntu). Where one is missing the C limit is left out, and the reason is said.
"""

import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bench.bare_amqp import (
    ACKNOWLEDGED_TOGETHER,
    OUTSTANDING_COUNT_MAX,
    PREFETCH,
    BareMessage,
)
from bench.compiled import CannotCompileError, compile_c
from bench.figures import say

# The name of the row.
LIBRABBITMQ = "bare librabbitmq, in C"

_SOURCE = Path(__file__).with_suffix(".c")

_TIME_LIMIT_S = 120.0


@cache
def has_librabbitmq() -> bool:
    """Compile the program; whether it is there to be run."""
    try:
        _program()
    except CannotCompileError as error:
        say(f"  the limit in C is left out: {error}")
        return False
    return True


def publish_from_c(broker_url: str, messages: Sequence[BareMessage]) -> float:
    """Publish the messages and return how long it took until all were confirmed.

    Raises:
        RuntimeError: the broker refused or returned one.
    """
    return _run(
        ["publish", *_where(broker_url), str(OUTSTANDING_COUNT_MAX)],
        standard_input=_number(len(messages)) + b"".join(map(_encoded, messages)),
    )


def consume_from_c(broker_url: str, queue: str, *, message_count: int) -> float:
    """Receive so many messages and return how long it took until the last was acknowledged."""
    return _run(
        [
            *("consume", *_where(broker_url), queue, str(message_count)),
            *(str(PREFETCH), str(ACKNOWLEDGED_TOGETHER)),
        ]
    )


def _where(broker_url: str) -> list[str]:
    parts = urlsplit(broker_url)
    return [
        parts.hostname or "127.0.0.1",
        str(parts.port or 5672),
        unquote(parts.username or "guest"),
        unquote(parts.password or "guest"),
        unquote(parts.path.removeprefix("/")) or "/",
    ]


def _encoded(message: BareMessage) -> bytes:
    properties = message.properties
    headers = properties.headers or {}
    return b"".join(
        [
            _text(message.exchange),
            _text(message.routing_key),
            _text(message.body),
            _text(properties.message_id),
            _text(properties.type),
            _number(properties.timestamp),
            _number(int(properties.expiration or 0)),
            _number(len(headers)),
            *(
                _text(name) + (_number(1) + _number(value))
                if isinstance(value, int)
                else _text(name) + _number(0) + _text(value)
                for name, value in headers.items()
            ),
        ]
    )


def _program() -> Path:
    return compile_c(_SOURCE, "rabbitmq")


def _text(text: str | bytes) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return _number(len(raw)) + raw


def _number(number: int) -> bytes:
    return number.to_bytes(8, "big")


def _run(arguments: Sequence[str], *, standard_input: bytes = b"") -> float:
    finished = subprocess.run(  # noqa: S603 (our own program)
        [str(_program()), *arguments],
        input=standard_input,
        capture_output=True,
        timeout=_TIME_LIMIT_S,
        check=False,
    )
    if finished.returncode:
        message = f"bare_librabbitmq failed: {finished.stderr.decode()[-500:]}"
        raise RuntimeError(message)
    return float(finished.stdout)
