"""What the product logs in a simulated world: dropped or shown, and looked through for failures.

A loop that falls over stands up again, a message that fails is tried again, a batch that fails is
tried one by one: so a mistake can hide behind what mends it. But each of them is logged with its
error. An error that no fault brings is a breach (I19).
"""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from tests.simulation.expected_errors import is_expected
from tests.simulation.process import RUNNING

# Whatever the error is: a loop bears every fault by itself, and ends only when it is told to.
_NEVER_LOGGED = ("loop_failed", "loop_ended")

Fields = MutableMapping[str, Any]


def hear_logs(*, is_shown: bool) -> None:
    """Look through what the product logs from now on; show it, or drop it."""
    if is_shown:
        structlog.configure(
            processors=[_look, structlog.dev.ConsoleRenderer(colors=False)],
            wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        )
    else:
        # Errors are logged as warnings or worse; a world of faults has much to say beside them.
        structlog.configure(
            processors=[_look, _drop],
            wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
            cache_logger_on_first_use=True,
        )


def _look(_logger: object, _method: str, fields: Fields) -> Fields:
    process = RUNNING.get()
    if process is None:
        return fields
    event = str(fields["event"])
    error = fields.get("exc_info")
    if error is True:
        error = sys.exception()
    if event in _NEVER_LOGGED or (isinstance(error, Exception) and not is_expected(error)):
        process.note_failure(f"{event} {fields.get('loop') or fields.get('queue') or ''}", error)
    return fields


def _drop(_logger: object, _method: str, _fields: Fields) -> Fields:
    raise structlog.DropEvent
