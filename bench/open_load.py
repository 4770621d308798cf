"""The load generator that does not wait: orders over HTTP at moments set beforehand.

It runs in a process of its own. A job comes as JSON on standard input, what came of it leaves as
JSON on standard output. An arrival takes a connection that is free, else opens one: a late answer
slows no later arrival down, as strangers do not wait for each other. Where all connections that
there may be are waiting for an answer, the arrival is given up and counted as one.
"""

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections import Counter
from typing import TypedDict

import uvloop

# Arrivals that fall due between two looks are sent together.
_LOOK_AGAIN_S = 0.002

# Whoever has no answer by then has none, and is counted so.
_ANSWER_S_MAX = 30.0

_HEAD_END = b"\r\n\r\n"
_LENGTH = b"\r\ncontent-length:"
_RETRY_AFTER = b"\r\nretry-after:"
_STATUS = slice(9, 12)


class OpenJob(TypedDict):
    """What to send: `requests_per_s` for `duration_s`, with bodies and tokens in turn.

    No more than `connection_count_max` connections are opened.
    """

    host: str
    port: int
    requests_per_s: float
    duration_s: float
    connection_count_max: int
    key_prefix: str
    tokens: list[str]
    bodies: list[str]


class Second(TypedDict):
    """What became of the arrivals that fell due within one second.

    Attributes:
        sent_late: Sent more than a tenth of a second after they were due: the generator is slow.
        given_up: Never sent, for want of a connection.
        answers: How many got each status; `none` had no answer, or their connection ended.
        without_retry_after: Answered 503 and not told when to come again.
        created_ms: Of those that got an order, from when they were due to their answer.
        refused_ms: Likewise of all who were answered something else.
    """

    sent_late: int
    given_up: int
    answers: dict[str, int]
    without_retry_after: int
    created_ms: list[float]
    refused_ms: list[float]


_LATE_S = 0.1


class _Tally:
    """What has become of the arrivals of one second so far."""

    def __init__(self) -> None:
        self.sent_late = 0
        self.given_up = 0
        self.answers: Counter[str] = Counter()
        self.without_retry_after = 0
        self.created_ms: list[float] = []
        self.refused_ms: list[float] = []

    def note(self, head: bytes, *, took_s: float) -> None:
        status = head[_STATUS]
        self.answers[status.decode()] += 1
        if status == b"201":
            self.created_ms.append(round(1000 * took_s, 2))
            return
        self.refused_ms.append(round(1000 * took_s, 2))
        if status == b"503" and _RETRY_AFTER not in head:
            self.without_retry_after += 1

    def as_second(self) -> Second:
        return {
            "sent_late": self.sent_late,
            "given_up": self.given_up,
            "answers": dict(self.answers),
            "without_retry_after": self.without_retry_after,
            "created_ms": self.created_ms,
            "refused_ms": self.refused_ms,
        }


class _Connection(asyncio.Protocol):
    """One connection, with at most one request under way."""

    def __init__(self, arrivals: "_Arrivals") -> None:
        self._arrivals = arrivals
        self._received = b""
        self._tally: _Tally | None = None
        self._due_at_s = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # a connection can be written to
        self._transport = transport

    def send(self, request: bytes, *, tally: _Tally, due_at_s: float) -> None:
        self._tally, self._due_at_s = tally, due_at_s
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, separator, body = self._received.partition(_HEAD_END)
        if not separator:
            return
        head = head.lower()
        if len(body) < int(head.partition(_LENGTH)[2].partition(b"\r\n")[0]):
            return
        self._received = b""
        if self._tally is not None:
            self._tally.note(head, took_s=time.perf_counter() - self._due_at_s)
            self._tally = None
            self._arrivals.note_end()
        self._arrivals.free.append(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (as asyncio has it)
        if self in self._arrivals.free:
            self._arrivals.free.remove(self)
        self.give_up()

    def give_up(self) -> None:
        """Count the request that is under way, if one is, as never answered."""
        if self._tally is not None:
            self._tally.answers["none"] += 1
            self._tally = None
            self._arrivals.note_end()

    def close(self) -> None:
        self._transport.abort()


class _Arrivals:
    """Sends what is due, on whichever connection is free."""

    def __init__(self, job: OpenJob) -> None:
        self._job = job
        self.free: list[_Connection] = []
        self._under_way_count = 0
        self._is_quiet = asyncio.Event()
        self._all: list[_Connection] = []
        self._opening: set[asyncio.Task[None]] = set()
        self._opening_count = 0
        self._heads = [_head(job, token) for token in job["tokens"]]
        self._tails = [_tail(body.encode()) for body in job["bodies"]]
        self.tallies = [_Tally() for _ in range(int(job["duration_s"]) + 1)]

    async def run(self) -> list[Second]:
        begun_at_s = time.perf_counter()
        count = int(self._job["requests_per_s"] * self._job["duration_s"])
        number = 0
        while number < count:
            now_s = time.perf_counter()
            due_count = min(count, int((now_s - begun_at_s) * self._job["requests_per_s"]) + 1)
            while number < due_count:
                self._arrive(number, begun_at_s=begun_at_s, now_s=now_s)
                number += 1
            await asyncio.sleep(_LOOK_AGAIN_S)
        await self._await_answers()
        return [tally.as_second() for tally in self.tallies[: int(self._job["duration_s"])]]

    def _arrive(self, number: int, *, begun_at_s: float, now_s: float) -> None:
        due_s = number / self._job["requests_per_s"]
        due_at_s = begun_at_s + due_s
        tally = self.tallies[int(due_s)]
        tally.sent_late += now_s - due_at_s > _LATE_S
        request = b"".join(
            (
                self._heads[number % len(self._heads)],
                str(number).encode(),
                self._tails[number % len(self._tails)],
            )
        )
        if self.free:
            self._under_way_count += 1
            self.free.pop().send(request, tally=tally, due_at_s=due_at_s)
            return
        if len(self._all) + self._opening_count >= self._job["connection_count_max"]:
            tally.given_up += 1
            return
        self._opening_count += 1
        self._under_way_count += 1
        task = asyncio.ensure_future(self._open(request, tally=tally, due_at_s=due_at_s))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _open(self, request: bytes, *, tally: _Tally, due_at_s: float) -> None:
        try:
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: _Connection(self), self._job["host"], self._job["port"]
            )
        except OSError:
            tally.answers["none"] += 1
            self.note_end()
            return
        finally:
            self._opening_count -= 1
        self._all.append(connection)
        connection.send(request, tally=tally, due_at_s=due_at_s)

    def note_end(self) -> None:
        """Count a request as no longer under way."""
        self._under_way_count -= 1
        if not self._under_way_count:
            self._is_quiet.set()

    async def _await_answers(self) -> None:
        self._is_quiet.clear()
        if self._under_way_count:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._is_quiet.wait(), _ANSWER_S_MAX)
        for connection in self._all:
            connection.give_up()
            connection.close()


def _head(job: OpenJob, token: str) -> bytes:
    return (
        "POST /api/v1/orders HTTP/1.1\r\n"
        f"Host: {job['host']}:{job['port']}\r\n"
        f"Authorization: Bearer {token}\r\n"
        f"Idempotency-Key: {job['key_prefix']}-"
    ).encode()


def _tail(body: bytes) -> bytes:
    return (b"\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)) + body


async def _run(job: OpenJob) -> list[Second]:
    return await _Arrivals(job).run()


def run_open_load(job: OpenJob) -> list[Second]:
    """Return what became of each second's arrivals, sent from a process of its own."""
    finished = subprocess.run(
        [sys.executable, "-m", "bench.open_load"],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        timeout=job["duration_s"] + _ANSWER_S_MAX + 60,
        check=False,
    )
    if finished.returncode:
        message = f"the load generator failed:\n{finished.stderr[-2000:]}"
        raise RuntimeError(message)
    seconds: list[Second] = json.loads(finished.stdout)
    return seconds


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        seconds = runner.run(_run(json.load(sys.stdin)))
    json.dump(seconds, sys.stdout)
