"""Starts again what has died, as the supervisor of a machine does, and kills it after its time.

Invariant: every process of the shop that ended is accounted for: it was killed here, it killed
itself at its failure point, or it is in `unexpected`. A process is started again at once.
"""

import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Self

from tests.acceptance.fleet import Member
from tests.acceptance.forked_run import forked
from tests.acceptance.running import START_S_MAX, command_line
from tests.faults.schedule import Life

_LOOK_S = 0.02

# How often a process that is armed is asked whether it is ready: its time counts from there.
_ASK_S = 0.2

_ANSWER_S_MAX = 0.5

# What `serve` ends with, and says, when it is started while its database is away: that is for
# whoever started it to see, and to start it again.
_REFUSED = 2
_NO_DATABASE = ("orderkeep: cannot ", "orderkeep: the session is lost: ")
_BACK_OFF_S = 1.0

# One that is not ready after so long is killed as if it were.
_START_S_MAX = 30.0

FOREVER = Life(point=None, on_reach=1, seconds=float("inf"))


class ForkedMember(Member):
    """A process of the shop that starts quickly.

    Attributes:
        preload: A library that it is to be started with; None forks it.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, str],
        *,
        command: tuple[str, ...],
        origin: ForkServerContext,
    ) -> None:
        super().__init__(folder, settings, command=command)
        self._origin = origin
        self.preload: Mapping[str, str] | None = None

    @property
    def role(self) -> str:
        """`serve` or `work`."""
        return self.command_words[0]

    def _start_process(self) -> "subprocess.Popen[bytes]":
        if self.preload is None:
            return forked(
                self._origin,
                *self.command_words,
                environment=self.environment,
                log_path=self._log_path,
            )
        with self._log_path.open("ab") as log:
            return subprocess.Popen(
                command_line(*self.command_words),
                env={**self.environment, **self.preload},
                stdout=log,
                stderr=log,
            )


class Ward:
    """A process under supervision, and what is to become of it."""

    def __init__(self, member: ForkedMember, lives: Iterator[Life]) -> None:
        """Take over a process that runs; its first life has no failure point."""
        self.member = member
        self.turn = threading.RLock()
        self.life = replace(next(lives), point=None)
        self._lives = lives
        self.lives_count = 0
        self.pauses_count = 0
        self._born_s = time.monotonic()
        self._ready_s: float | None = self._born_s
        self._asked_s = 0.0
        self._not_before_s = 0.0
        self._is_accounted = False
        self._was_killed = False
        self._plain = dict(member.environment)

    def look(self, supervisor: "Supervisor") -> None:
        """Kill it if its time is over; account for its end and start it again if it has ended."""
        with self.turn:
            if self.member.is_alive:
                if self._is_over():
                    self.kill(supervisor)
                return
            self._account(supervisor)
            if time.monotonic() >= self._not_before_s:
                self.begin(next(self._lives))

    def kill(self, supervisor: "Supervisor") -> None:
        """Kill it the way a power cut would, and count it if it was we."""
        with self.turn:
            if not self.member.is_alive:
                self._account(supervisor)
                return
            self._was_killed = True
            self.member.kill()
            supervisor.killed_counts[self.member.role] += 1

    def begin(self, life: Life) -> None:
        """Start it for a life."""
        self.life = life
        self.lives_count += 1
        self._was_killed = False
        self._is_accounted = False
        self._born_s = time.monotonic()
        self._ready_s = self._born_s if life.point is None else None
        self.member.environment = {**self._plain, **life.variables}
        self.member.start()

    def begin_unarmed(self) -> None:
        """Start it for its next life, and let it pass every failure point."""
        self.begin(replace(next(self._lives), point=None))

    def revive(self, supervisor: "Supervisor") -> None:
        """Start a life again that ended by itself, once its time has come."""
        with self.turn:
            self._account(supervisor)
            if time.monotonic() >= self._not_before_s:
                self.begin(self.life)

    def stop(self, supervisor: "Supervisor") -> int:
        """Ask it to end; return its exit code."""
        with self.turn:
            if not self.member.is_alive:
                self._account(supervisor)
                return 0
            code = self.member.stop()
            if code == -signal.SIGKILL and self.life.point is not None:
                # It came by its failure point while it ended what it had in hand.
                self._account(supervisor)
                return 0
            self._was_killed = True
            return code

    def pause(self) -> None:
        """Stop it without its knowing."""
        with self.turn:
            self.pauses_count += 1
            self.member.pause()

    def go_on(self) -> None:
        """Let it continue where it was stopped."""
        with self.turn:
            self.member.go_on()

    def settle(self, supervisor: "Supervisor") -> None:
        """Let it live from now on.

        One that would die nowhere goes on as it is: what it has lived through it must get over by
        itself, and not by being started again.
        """
        with self.turn:
            if self.life.point is None and self.member.preload is None and self.member.is_alive:
                self.life = FOREVER
                return
            self.member.preload = None
            self.kill(supervisor)
            self.begin(FOREVER)

    def _is_over(self) -> bool:
        """Whether it has lived long enough; one that is armed must have had the time to get there.

        One that is not armed may well be killed before it is ready.
        """
        now_s = time.monotonic()
        if self._ready_s is None:
            if now_s - self._born_s > _START_S_MAX:
                return True
            if now_s - self._asked_s < _ASK_S:
                return False
            self._asked_s = now_s
            if not self.member.is_ready(within_s=_ANSWER_S_MAX):
                return False
            self._ready_s = now_s
        return now_s - self._ready_s > self.life.seconds

    def _account(self, supervisor: "Supervisor") -> None:
        if self._was_killed or self._is_accounted:
            return
        self._is_accounted = True
        assert self.member.process is not None
        code = self.member.process.returncode
        if code == -signal.SIGKILL and self.life.point is not None:
            supervisor.fired_counts[self.life.point] += 1
            supervisor.fired_by_role[self.member.role] += 1
            return
        last_lines = self.member.log_text()[-1000:].splitlines()[-3:]
        is_refused = code == _REFUSED and self.member.role == "serve"
        if is_refused and last_lines and last_lines[-1].startswith(_NO_DATABASE):
            supervisor.without_database_count += 1
            self._not_before_s = time.monotonic() + _BACK_OFF_S
            return
        supervisor.unexpected.append(
            f"{self.member.name} ended by itself with {code}: {last_lines}"
        )


class Supervisor:
    """Looks after the processes of a shop in a thread.

    Attributes:
        killed_counts: How many were killed here, by role.
        fired_counts: How many died at each failure point.
        fired_by_role: The same by role.
        without_database_count: How many were started while the database was away, and said so.
        unexpected: What ended in another way.
    """

    def __init__(self, wards: Sequence[Ward]) -> None:
        self.wards = wards
        self.killed_counts: Counter[str] = Counter()
        self.fired_counts: Counter[str] = Counter()
        self.fired_by_role: Counter[str] = Counter()
        self.without_database_count = 0
        self.unexpected: list[str] = []
        self._over = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="supervisor")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        self._thread.join()

    def settle(self) -> None:
        """Kill nobody any more, and wait until all are ready.

        Raises:
            TimeoutError: one does not come back.
        """
        self._over.set()
        self._thread.join()
        if self._error is not None:
            raise self._error
        for ward in self.wards:
            ward.settle(self)
        for ward in self.wards:
            ward.member.wait_until(
                ward.member.is_ready, f"{ward.member.name} is ready", within_s=START_S_MAX
            )

    @contextmanager
    def held(self, *wards: Ward) -> Iterator[None]:
        """Leave processes to whoever does something to them, as long as the context lasts."""
        with ExitStack() as stack:
            for ward in wards:
                stack.enter_context(ward.turn)
            yield

    def ready_lives(self, role: str) -> set[tuple[int, int, int]]:
        """Return what `lives` does of those that are ready, now."""
        return {
            life
            for ward, life in zip(self.with_role(role), self._lives_of(role), strict=True)
            if ward.member.is_alive and ward.member.is_ready(within_s=_ANSWER_S_MAX)
        }

    def lives(self, role: str) -> set[tuple[int, int, int]]:
        """Return of each that runs: its number among its kind, its how-manieth life this is, and
        how often it was stopped.

        What is in it before and after something has lived through that, and was never stopped.
        """
        return {
            life
            for ward, life in zip(self.with_role(role), self._lives_of(role), strict=True)
            if ward.member.is_alive
        }

    def _lives_of(self, role: str) -> list[tuple[int, int, int]]:
        return [
            (number, ward.lives_count, ward.pauses_count)
            for number, ward in enumerate(self.with_role(role))
        ]

    def with_role(self, role: str) -> list[Ward]:
        """Return the processes of a kind."""
        return [ward for ward in self.wards if ward.member.role == role]

    def _run(self) -> None:
        try:
            while not self._over.wait(_LOOK_S):
                for ward in self.wards:
                    # One that something is being done to is left alone.
                    if ward.turn.acquire(blocking=False):
                        try:
                            ward.look(self)
                        finally:
                            ward.turn.release()
        except Exception as error:  # noqa: BLE001 (raised again by `settle`)
            self._error = error
