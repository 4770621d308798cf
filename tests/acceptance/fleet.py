"""Several real processes over one database and one broker: `orderkeep serve` and `orderkeep work`.

    with Fleet(tmp_path, settings) as fleet:
        fleet.start_serve()
        worker = fleet.start_work()
        with fleet.front.client("ann") as ann: ...
        worker.kill()

Nothing here sleeps: every wait is on a condition, with a deadline.
"""

import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Self

import psutil  # type: ignore[import-untyped]  # it brings no types

from tests.acceptance.running import (
    START_S_MAX,
    RunningShop,
    clean_environment,
    command_line,
    run_command,
    variables,
)
from tests.servers.own_process import free_port

JWT_SECRET = "a-secret-that-guards-nothing-but-a-test"


class Member(RunningShop):
    """One process of a fleet; what `RunningShop` offers goes to it."""

    def __init__(
        self, folder: Path, settings: Mapping[str, str], *, command: tuple[str, ...]
    ) -> None:
        super().__init__(folder, settings)
        self.command_words = command
        self.name = f"{command[0]} at {self.port}"
        self.environment["ORDERKEEP_WORK_HTTP_PORT"] = str(self.port)

    def pause(self) -> None:
        """Stop it without its knowing, as a machine that hangs does."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it continue where it was stopped."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it the way a power cut would, also while it is stopped."""
        super().kill()

    def is_ready(self, *, within_s: float = START_S_MAX) -> bool:
        """Whether it answers that it can do its work."""
        return self._is_ready(within_s=within_s)

    def ports_to(self, server_port: int) -> list[int]:
        """Return the local ports of its connections to a server of this machine."""
        assert self.process is not None
        connections = psutil.Process(self.process.pid).net_connections(kind="tcp")
        return [it.laddr.port for it in connections if it.raddr and it.raddr.port == server_port]

    def metrics(self) -> str:
        """Return its numbers as Prometheus reads them."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=START_S_MAX)
        try:
            connection.request("GET", "/metrics")
            return connection.getresponse().read().decode()
        except (OSError, HTTPException):
            return ""
        finally:
            connection.close()

    def _start_process(self) -> "subprocess.Popen[bytes]":
        with self._log_path.open("ab") as log:
            return subprocess.Popen(
                command_line(*self.command_words), env=self.environment, stdout=log, stderr=log
            )


class Fleet:
    """The processes of one service.

    Attributes:
        members: All that were started, also those that have ended.
        settings: What they share.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, str],
        *,
        make_member: Callable[..., Member] = Member,
    ) -> None:
        self._make_member = make_member
        self.folder = folder
        self.settings = {**clean_environment(), **settings}
        self.members: list[Member] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        for member in self.members:
            member.kill()

    @property
    def front(self) -> RunningShop:
        """The first process that serves."""
        return next(member for member in self.members if member.command_words[0] == "serve")

    @property
    def fronts(self) -> list[Member]:
        """Every process that serves."""
        return [member for member in self.members if member.command_words[0] == "serve"]

    @property
    def workers(self) -> list[Member]:
        """Every process that works."""
        return [member for member in self.members if member.command_words[0] == "work"]

    def start_serve(self) -> Member:
        """Start one more `orderkeep serve` and wait until it is ready."""
        return self._start("serve")

    def start_work(self, *arguments: str) -> Member:
        """Start one more `orderkeep work` and wait until it is ready."""
        return self._start("work", *arguments)

    def start_together(self, *, serve_count: int, work_count: int) -> None:
        """Start so many at once, and wait until all of them are ready."""
        commands = ["serve"] * serve_count + ["work"] * work_count
        members = [self._add(command) for command in commands]
        for member in members:
            member.start()
        for member in members:
            member.wait_until(member.is_ready, "it is ready", within_s=START_S_MAX)

    def ended_names(self) -> list[str]:
        """Return the processes that do not run."""
        return [member.name for member in self.members if not member.is_alive]

    def error_counts(self) -> Counter[str]:
        """Return how often each event was logged that says that something is broken."""
        return Counter(str(event["event"]) for event in self.errors())

    def errors(self) -> list[dict[str, Any]]:
        """Return the log lines that say that something is broken."""
        return [
            event
            for member in self.members
            for event in member.log_events()
            if event["level"] in {"error", "critical"}
        ]

    def _start(self, *command: str) -> Member:
        member = self._add(*command)
        member.restart()
        return member

    def _add(self, *command: str) -> Member:
        member = self._make_member(
            self.folder,
            {**self.settings, "ORDERKEEP_HTTP_PORT": str(free_port())},
            command=command,
        )
        self.members.append(member)
        return member


def fleet_settings(
    *, database_url: str, broker_urls: Sequence[str], **more: object
) -> dict[str, str]:
    """Return what all processes of a fleet are given; the database has its tables afterwards.

    Args:
        database_url: An empty database.
        broker_urls: One virtual host, by each address it has.
        more: Settings besides; `order_timeout_s=2` is ORDERKEEP_ORDER_TIMEOUT_S=2.
    """
    settings = variables(
        database_url=database_url,
        broker_url=",".join(broker_urls),
        jwt_secret=JWT_SECRET,
        sandbox="on",
        # Or an order whose payment was opened would stay open for five minutes.
        **{"payment_extension_s": 0, **more},
    )
    migrated = run_command("migrate", environment=settings)
    assert migrated.returncode == 0, migrated.stderr
    return settings
