"""One RabbitMQ node of our own: its folder, its configuration, its process.

Everything that it reads and writes is in its folder, whatever a RabbitMQ that the system runs has
in /etc and /var. It shares nothing with that one but `epmd`, Erlang's directory of nodes, of which
a machine has one; whoever comes first starts it, and nobody here ends it.
"""

import os
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path

from tests.servers.installation import ServerMissingError
from tests.servers.own_process import OwnProcess, free_port

# Where Debian's package and RabbitMQ's own have the programs themselves. Those on the path may be
# wrappers that become another user and leave our environment behind.
_PACKAGED_PROGRAMS = Path("/usr/lib/rabbitmq/bin")

_CONNECT_S_MAX = 2.0

# What a server sends first: a frame of the type 1 (method) on the channel 0.
_FIRST_BYTES = b"\x01\x00\x00"

_PRIVATE_CONFIG = (
    "vm_memory_high_watermark.absolute = 512MB",
    "disk_free_limit.absolute = 64MB",
    "log.console = true",
    "log.console.level = info",
    "log.file = false",
)


class RabbitNode:
    """A node that may be started, and the process that it then is.

    Attributes:
        name: What Erlang calls it.
        port: Where it listens for AMQP.
        process: What starts and ends it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        port: int,
        name: str,
        config_lines: Sequence[str],
        plugins: Sequence[str],
    ) -> None:
        program = find_program("rabbitmq-server")
        if program is None:
            message = "RabbitMQ is not installed"
            raise ServerMissingError(message)
        self.name = name
        self.port = port
        self._folder = folder.resolve()
        self._write_files(config_lines, plugins)
        self.process = OwnProcess(
            [program],
            environment=self._environment(),
            log_path=self._folder / f"rabbitmq-{port}.log",
        )

    def wipe(self) -> None:
        """Remove what it stored."""
        shutil.rmtree(self._folder / "mnesia", ignore_errors=True)

    def _write_files(self, config_lines: Sequence[str], plugins: Sequence[str]) -> None:
        (self._folder / "conf.d").mkdir(parents=True, exist_ok=True)
        listener = f"listeners.tcp.local = 127.0.0.1:{self.port}"
        lines = [listener, *_PRIVATE_CONFIG, *config_lines]
        (self._folder / "rabbitmq.conf").write_text("\n".join(lines) + "\n")
        (self._folder / "rabbitmq-env.conf").touch()
        (self._folder / "enabled_plugins").write_text(f"[{','.join(plugins)}].\n")
        cookie = self._folder / ".erlang.cookie"
        if not cookie.exists():
            # Nodes of one cluster must agree, and nobody but this machine can reach them.
            cookie.write_text("orderkeep-tests")
            cookie.chmod(0o400)

    def _environment(self) -> dict[str, str]:
        folder = self._folder
        return {
            **clean_environment(folder),
            "RABBITMQ_NODENAME": self.name,
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "rabbitmq-env.conf"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_CONFIG_FILES": str(folder / "conf.d"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_PID_FILE": str(folder / "rabbitmq.pid"),
            # Nodes that are each bound to the first processor would share it.
            "RABBITMQ_SCHEDULER_BIND_TYPE": "u",
            # The script then becomes the Erlang machine instead of waiting for it, so that the
            # process that we started is the one to kill.
            "RUNNING_UNDER_SYSTEMD": "true",
        }


def clean_environment(home: Path) -> dict[str, str]:
    """Return this process's environment with another home, and without settings of RabbitMQ.

    Args:
        home: The folder with the Erlang cookie.
    """
    foreign = ("RABBITMQ_", "ERL_", "NOTIFY_SOCKET")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return {
        **kept,
        "HOME": str(home),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "ERL_FLAGS": "-kernel inet_dist_use_interface {127,0,0,1}",
    }


def find_program(name: str) -> str | None:
    """Return the path of one of RabbitMQ's programs."""
    packaged = _PACKAGED_PROGRAMS / name
    return str(packaged) if packaged.exists() else shutil.which(name)


def peer_lines(node_names: Sequence[str]) -> list[str]:
    """Return the lines of `rabbitmq.conf` by which nodes that start empty form a cluster."""
    return [
        "cluster_formation.peer_discovery_backend = classic_config",
        *(
            f"cluster_formation.classic_config.nodes.{number} = {name}"
            for number, name in enumerate(node_names, start=1)
        ),
    ]


def speaks_amqp(port: int, *, host: str = "127.0.0.1") -> bool:
    """Whether what listens there answers to AMQP 0-9-1."""
    try:
        with socket.create_connection((host, port), timeout=_CONNECT_S_MAX) as connection:
            connection.sendall(b"AMQP\x00\x00\x09\x01")
            return connection.recv(len(_FIRST_BYTES)) == _FIRST_BYTES
    except OSError:
        return False
