"""The load generator that does not wait: orders over HTTP at moments set beforehand.

It runs in a process of its own. A job comes as JSON on standard input, what came of it leaves as
JSON on standard output. An arrival takes a connection that is free, else opens one: a late answer
slows no later arrival down, as strangers do not wait for each other. Where all connections that
there may be are waiting for an answer, the arrival is given up and counted as one.
"""

import json
import selectors
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from typing import TypedDict

# Arrivals that fall due between two looks are sent together, and answers are read together: by so
# much at most an answer seems later than it is.
_LOOK_AGAIN_S = 0.002

# Whoever has no answer by then has none, and is counted so.
_ANSWER_S_MAX = 30.0

_HEAD_END = b"\r\n\r\n"
_LENGTH = b"\r\ncontent-length:"
_RETRY_AFTER = b"\r\nretry-after:"
_STATUS = slice(9, 12)
# An answer is far smaller.
_READ_BYTES = 64 * 1024


class OpenJob(TypedDict):
    """What to send: `requests_per_s` for `duration_s`, with bodies and tokens in turn.

    No more than `connection_count_max` connections are open at once.
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


class _Connection:
    """One connection, with at most one request under way.

    Attributes:
        is_open: It has been connected, or has failed to be, which sending will tell.
        request: What is sent once it is open.
        tally: Where the request under way is counted; None while there is none.
        due_at_s: When that request was due.
    """

    __slots__ = ("_received", "due_at_s", "is_open", "request", "socket", "tally")

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.socket()
        self.socket.settimeout(0)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.connect_ex(address)
        self.is_open = False
        self.request = b""
        self.tally: _Tally | None = None
        self.due_at_s = 0.0
        self._received = b""

    def read(self) -> bytes | None:
        """Return the head of the answer, in lower case, once the answer is whole; else None.

        Raises:
            OSError: the connection has ended.
        """
        received = self.socket.recv(_READ_BYTES)
        if not received:
            raise ConnectionResetError
        if self._received:
            received = self._received + received
        head, separator, body = received.partition(_HEAD_END)
        head = head.lower()
        if not separator or len(body) < int(head.partition(_LENGTH)[2].partition(b"\r\n")[0]):
            self._received = received
            return None
        self._received = b""
        return head


class _Arrivals:
    """Sends what is due, on whichever connection is free.

    One loop over plain sockets: what an event loop's library takes for each of them would be taken
    from the service.
    """

    def __init__(self, job: OpenJob) -> None:
        self._job = job
        self._address = (job["host"], job["port"])
        self._selector = selectors.DefaultSelector()
        # Nobody sets it: waiting for it is a rest, in which answers gather.
        self._never = threading.Event()
        self._free: list[_Connection] = []
        self._open_count = 0
        self._under_way_count = 0
        self._heads = [_head(job, token) for token in job["tokens"]]
        self._tails = [_tail(body.encode()) for body in job["bodies"]]
        self._tallies = [_Tally() for _ in range(int(job["duration_s"]) + 1)]

    def run(self) -> list[Second]:
        begun_at_s = time.perf_counter()
        rate = self._job["requests_per_s"]
        count = int(rate * self._job["duration_s"])
        number = 0
        while number < count:
            now_s = time.perf_counter()
            due_count = min(count, int((now_s - begun_at_s) * rate) + 1)
            while number < due_count:
                self._arrive(number, begun_at_s=begun_at_s, now_s=now_s)
                number += 1
            self._read_until(now_s + _LOOK_AGAIN_S)
        give_up_at_s = time.perf_counter() + _ANSWER_S_MAX
        while self._under_way_count and (now_s := time.perf_counter()) < give_up_at_s:
            self._read_until(now_s + _LOOK_AGAIN_S)
        for key in list(self._selector.get_map().values()):
            self._end(key.data)
        return [tally.as_second() for tally in self._tallies[: int(self._job["duration_s"])]]

    def _arrive(self, number: int, *, begun_at_s: float, now_s: float) -> None:
        due_s = number / self._job["requests_per_s"]
        due_at_s = begun_at_s + due_s
        tally = self._tallies[int(due_s)]
        tally.sent_late += now_s - due_at_s > _LATE_S
        if self._free:
            connection = self._free.pop()
        elif self._open_count < self._job["connection_count_max"]:
            self._open_count += 1
            connection = _Connection(self._address)
            self._selector.register(connection.socket, selectors.EVENT_WRITE, connection)
        else:
            tally.given_up += 1
            return
        self._under_way_count += 1
        connection.tally, connection.due_at_s = tally, due_at_s
        connection.request = b"".join(
            (
                self._heads[number % len(self._heads)],
                str(number).encode(),
                self._tails[number % len(self._tails)],
            )
        )
        if connection.is_open:
            self._send(connection)

    def _send(self, connection: _Connection) -> None:
        try:
            sent_count = connection.socket.send(connection.request)
        except OSError:
            self._end(connection)
            return
        # The kernel takes far more than one request for a connection on which nothing else waits.
        assert sent_count == len(connection.request), "a request was cut in two"

    def _read_until(self, until_s: float) -> None:
        """Take what has come, and rest through the time that is left: many are read in one look."""
        for key, _ in self._selector.select(0):
            self._take(key.data)
        if (left_s := until_s - time.perf_counter()) > 0:
            self._never.wait(left_s)

    def _take(self, connection: _Connection) -> None:
        if not connection.is_open:
            connection.is_open = True
            self._selector.modify(connection.socket, selectors.EVENT_READ, connection)
            self._send(connection)
            return
        try:
            head = connection.read()
        except OSError:
            self._end(connection)
            return
        if head is None:
            return
        if connection.tally is not None:
            connection.tally.note(head, took_s=time.perf_counter() - connection.due_at_s)
            connection.tally = None
            self._under_way_count -= 1
        self._free.append(connection)

    def _end(self, connection: _Connection) -> None:
        """Close the connection; what is under way on it is never answered."""
        self._selector.unregister(connection.socket)
        connection.socket.close()
        self._open_count -= 1
        if connection in self._free:
            self._free.remove(connection)
        if connection.tally is not None:
            connection.tally.answers["none"] += 1
            connection.tally = None
            self._under_way_count -= 1


def _head(job: OpenJob, token: str) -> bytes:
    return (
        "POST /api/v1/orders HTTP/1.1\r\n"
        f"Host: {job['host']}:{job['port']}\r\n"
        f"Authorization: Bearer {token}\r\n"
        f"Idempotency-Key: {job['key_prefix']}-"
    ).encode()


def _tail(body: bytes) -> bytes:
    return (b"\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)) + body


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
    json.dump(_Arrivals(json.load(sys.stdin)).run(), sys.stdout)
