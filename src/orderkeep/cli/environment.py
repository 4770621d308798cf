"""What commands take from their environment: settings, and who runs them."""

import getpass
import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orderkeep.settings import Settings

_LOG_LEVEL_VARIABLE = "ORDERKEEP_LOG_LEVEL"


def read_settings() -> "Settings":
    """Return the settings of the environment.

    Raises:
        SettingsError: one or more are wrong; each is named.
    """
    from orderkeep.contracts.topology import TOPOLOGY
    from orderkeep.settings import load_settings

    return load_settings(os.environ, queue_names=[queue.name for queue in TOPOLOGY.queues])


def read_settings_quickly() -> "Settings":
    """Return the settings for a command that touches no queue: their names are not checked.

    That saves loading them, which takes longer than such a command does.

    Raises:
        SettingsError: one or more are wrong; each is named.
    """
    from orderkeep.settings import load_settings

    return load_settings(os.environ)


def read_settings_quietly() -> "Settings":
    """Return the settings for a command that is no server: it logs warnings, or all if debugging.

    Raises:
        SettingsError: one or more are wrong; each is named.
    """
    from orderkeep.logs import configure_logging

    settings = read_settings()
    level = "debug" if settings.log_level == "debug" else "warning"
    configure_logging(level, log_format=settings.log_format)
    return settings


def is_debugging() -> bool:
    """Return whether tracebacks are wanted; also where the settings cannot be read."""
    return os.environ.get(_LOG_LEVEL_VARIABLE, "").strip() == "debug"


def operator_name() -> str:
    """Return the name under which histories and the record show what this command does."""
    try:
        login = getpass.getuser()
    except (KeyError, OSError):
        # A container may run as a user that its own files do not know.
        login = str(os.getuid())
    return "cli:" + re.sub(r"[^A-Za-z0-9._-]", "_", login)[:48]
