"""How a command ends: its exit code, and the one message that says what is wrong.

What a person can mend (a setting, a port, a directory, a number that does not exist) is told in one
message without a traceback. Everything else is a bug: it is told shortly too, but says how to get
at the traceback, and has an exit code of its own.
"""

import sys
from enum import IntEnum

# Exit codes below 64 mean what docs and contract say; 70 is EX_SOFTWARE of sysexits.h.


class ExitCode(IntEnum):
    """What the exit code of every command means."""

    FINE = 0
    # The thing that was checked or asked for is wrong: a breach, an unknown number, a refusal.
    WRONG = 1
    # Wrong usage or settings; nothing was done.
    USAGE = 2
    BUG = 70
    # As shells have it: 128 and the number of the signal.
    INTERRUPTED = 130
    PIPE_CLOSED = 141


class WrongUsageError(Exception):
    """The command cannot be carried out as it was given; the message says why."""


class FoundWrongError(Exception):
    """What was checked or asked for is wrong; the message says what."""


# What a person can mend, and where it is defined. A module is looked up, not imported: an error
# of its can only have been raised if something else has loaded it.
WRONG_SETTINGS = (
    ("orderkeep.settings_source", "SettingsError"),
    ("orderkeep.data_directory", "DataDirectoryError"),
    ("orderkeep.database.schema_version", "SchemaTooNewError"),
    ("orderkeep.database.transaction", "StoreUnavailableError"),
    ("orderkeep.web.server", "PortInUseError"),
    ("orderkeep.messaging.broker", "BrokerRefusedError"),
    ("orderkeep.wiring.preparation", "WrongSetupError"),
    ("orderkeep.wiring.running", "UnknownLoopError"),
    (__name__, "WrongUsageError"),
)

# Refusals of how something was asked; every other refusal is about the thing itself.
_USAGE_REFUSALS = frozenset({"invalid_cursor", "invalid_request"})


def exit_code_of(error: Exception) -> ExitCode:
    """Return the exit code that the error stands for."""
    if any(_is_instance(error, module, name) for module, name in WRONG_SETTINGS):
        return ExitCode.USAGE
    if isinstance(error, FoundWrongError):
        return ExitCode.WRONG
    if _is_instance(error, "orderkeep.refusal", "Refusal"):
        code = getattr(error, "code", "")
        return ExitCode.USAGE if code in _USAGE_REFUSALS else ExitCode.WRONG
    return ExitCode.BUG


def message_of(error: Exception) -> str:
    """Return what to tell a person of the error."""
    if exit_code_of(error) is ExitCode.BUG:
        said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        return (
            f"unexpected {said}\n"
            "This is a bug. Set ORDERKEEP_LOG_LEVEL=debug to see where it happened."
        )
    # A refusal's text begins with its code, which is for programs.
    return str(getattr(error, "detail", error))


def _is_instance(error: Exception, module: str, name: str) -> bool:
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(error, getattr(loaded, name))
