"""Finds the RabbitMQ node that the system runs, by its Erlang cookie."""

import os
import subprocess
from pathlib import Path

from tests.servers.erlang_shell import ErlangError, ErlangShell
from tests.servers.own_process import run_to_end
from tests.servers.rabbitmq_node import clean_environment, find_program

# Where Debian's package and RabbitMQ's own keep the cookie; a node that somebody started by hand
# has theirs.
_PACKAGED_HOME = Path("/var/lib/rabbitmq")

_LOCAL_HOSTS = frozenset({"127.0.0.1", "::1", "localhost"})

_LISTENING_PORTS = "[element(6, Listener) || Listener <- rabbit_networking:active_listeners()]."


def find_installed_node(host: str, *, port: int) -> ErlangShell | None:
    """Return a shell on the node of this machine that listens there.

    None if there is no such node, or its cookie is not ours to read.
    """
    program = find_program("rabbitmqctl")
    if program is None or host not in _LOCAL_HOSTS:
        return None
    for home in (_PACKAGED_HOME, Path.home()):
        if not os.access(home / ".erlang.cookie", os.R_OK):
            continue
        environment = clean_environment(home)
        try:
            # Only the node itself, and what set it up, know what it is called.
            name = run_to_end([program, "--quiet", "eval", "node()."], environment=environment)
            shell = ErlangShell(name.strip(), environment=environment)
            # Something else may listen there, such as a node in a container.
            if str(port) in shell.evaluate(_LISTENING_PORTS).strip("[]").split(","):
                return shell
        except (subprocess.SubprocessError, ErlangError):
            continue
    return None
