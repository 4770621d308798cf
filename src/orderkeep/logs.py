r"""Where log lines go and what they look like: text for a person, JSON lines for a machine.

Every line is one line, whoever's text is in it: a carriage return, a line feed or an escape
sequence in a value is written out as `\r`, `\n`, `\x1b`, so nobody can forge a line or move the
cursor. (A traceback has lines of its own; they are indented, so none passes for a log line.)
Lines of libraries that use the standard library's logging take the same way.
"""

import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TextIO

import msgspec
import structlog
from structlog.typing import EventDict, WrappedLogger

# Libraries that tell at `info` what is only of use when they misbehave.
_QUIET_LOGGERS = ("alembic", "asyncio", "httpcore", "httpx", "litestar", "uvicorn")

_INDENT = "    "
# Columns that most event names fit into, so that fields line up.
_EVENT_WIDTH = 28


def configure_logging(level: str, *, log_format: str, stream: TextIO | None = None) -> None:
    """Send every log line of this process to the stream.

    Args:
        level: The least severe level that is written: debug, info, warning or error.
        log_format: text, json, or auto: text if the stream is a terminal, else JSON lines.
        stream: None is the standard error stream.
    """
    stream = stream or sys.stderr
    is_text = log_format == "text" or (log_format == "auto" and stream.isatty())
    text_line = _COLORED if stream.isatty() else _PLAIN
    level_number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            text_line if is_text else _json_line,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level_number),
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    _route_standard_logging(level_number)


class _IntoStructlog(logging.Handler):
    """Hands each record of the standard library's logging on to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record as a line with its logger's name."""
        fields = {"exc_info": record.exc_info} if record.exc_info else {}
        structlog.get_logger().log(
            record.levelno, record.getMessage(), logger=record.name, **fields
        )


def _route_standard_logging(level_number: int) -> None:
    root = logging.getLogger()
    for present in root.handlers[:]:
        if isinstance(present, _IntoStructlog):
            root.removeHandler(present)
    root.addHandler(_IntoStructlog())
    root.setLevel(level_number)
    is_debug = level_number <= logging.DEBUG
    for name in _QUIET_LOGGERS:
        quiet = level_number if is_debug else max(level_number, logging.WARNING)
        logging.getLogger(name).setLevel(quiet)
    logging.captureWarnings(capture=True)


def _json_line(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    line = msgspec.json.encode(event, enc_hook=str).decode()
    if line.isprintable():
        return line
    # JSON has escaped the ASCII controls; what is left stands inside strings, such as U+009B,
    # which some terminals take for the start of an escape sequence.
    return "".join(
        one if one.isprintable() else f"\\u{ord(one):04x}" if ord(one) < 0x10000 else "\\ufffd"  # noqa: PLR2004 (what four hexadecimal digits hold)
        for one in line
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _TextLine:
    """Renders an event as text; every color is an escape sequence, or empty for none."""

    dim: str = ""
    bold: str = ""
    key: str = ""
    reset: str = ""
    levels: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> str:
        moment = event.pop("timestamp", "")
        level = event.pop("level", "")
        name = _printable(event.pop("event", ""))
        traceback = event.pop("exception", None)
        key_color, reset = self.key, self.reset
        fields = " ".join(
            f"{key_color}{_printable(key)}{reset}={_shown(value)}" for key, value in event.items()
        )
        line = (
            f"{self.dim}{moment}{reset} {self.levels.get(level, '')}{level:<7}{reset} "
            f"{self.bold}{name:<{_EVENT_WIDTH}}{reset} {fields}"
        ).rstrip()
        return line if traceback is None else f"{line}\n{_indented(traceback)}"


_PLAIN = _TextLine()
_COLORED = _TextLine(
    dim="\x1b[2m",
    bold="\x1b[1m",
    key="\x1b[36m",
    reset="\x1b[0m",
    levels={
        "debug": "\x1b[34m",
        "info": "\x1b[32m",
        "warning": "\x1b[33m",
        "error": "\x1b[31m",
        "critical": "\x1b[31m",
    },
)


def _shown(value: object) -> str:
    """Return the value on one line, in quotes where it would otherwise run into the next."""
    match value:
        case str():
            text = _printable(value)
            return f'"{text}"' if not text or " " in text or "=" in text else text
        case Mapping():
            return (
                "{" + " ".join(f"{_shown(key)}:{_shown(one)}" for key, one in value.items()) + "}"
            )
        case list() | tuple():
            return "[" + " ".join(_shown(one) for one in value) + "]"
        case _:
            return _printable(value)


def _printable(value: object) -> str:
    text = str(value)
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in text
    )


def _indented(traceback: object) -> str:
    return "\n".join(_INDENT + _printable(line) for line in str(traceback).split("\n"))
