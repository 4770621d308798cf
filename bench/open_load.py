"""The load generator that does not wait: orders over HTTP at moments set beforehand.

It is a program in C, `open_load.c`, that takes a compiler: it shares the processors with what it
measures, and one in Python takes a sixth of them to send and to read five times what a shop can do.
An arrival takes a connection that is free, else opens one: a late answer slows no later arrival
down, as strangers do not wait for each other. Where all connections that there may be are waiting
for an answer, the arrival is given up and counted as one.
"""

import struct
import subprocess
from collections import Counter
from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path
from typing import TypedDict

from bench.compiled import CannotCompileError, compile_c
from bench.figures import say

_SOURCE = Path(__file__).with_suffix(".c")

# As `open_load.c` has them: ms to the answer, its status, whether it was sent late, and what else.
_OUTCOME = struct.Struct("=fHBB")
_GIVEN_UP = 1
_SAYS_WHEN_AGAIN = 2

# Whoever has no answer after 30 s has none; the rest is for starting and ending.
_WAITED_S_MAX = 90.0


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


def can_be_compiled() -> bool:
    """Compile the generator; whether it is there to be run."""
    try:
        compile_c(_SOURCE)
    except CannotCompileError as error:
        say(f"  no generator of a flood: {error}")
        return False
    return True


def run_open_load(job: OpenJob) -> list[Second]:
    """Return what became of each second's arrivals, sent from a process of its own.

    Raises:
        CannotCompileError: see `can_be_compiled`.
        RuntimeError: the generator failed.
    """
    heads = [_head(job, token) for token in job["tokens"]]
    tails = [_tail(body.encode()) for body in job["bodies"]]
    finished = subprocess.run(  # noqa: S603 (our own program)
        [
            str(compile_c(_SOURCE)),
            *(job["host"], str(job["port"])),
            *(repr(job["requests_per_s"]), repr(job["duration_s"])),
            str(job["connection_count_max"]),
        ],
        input=_texts(heads) + _texts(tails),
        capture_output=True,
        timeout=job["duration_s"] + _WAITED_S_MAX,
        check=False,
    )
    if finished.returncode:
        message = f"the load generator failed: {finished.stderr.decode()[-500:]}"
        raise RuntimeError(message)
    seconds: list[Second] = [_no_arrivals() for _ in range(int(job["duration_s"]) + 1)]
    answers: list[Counter[str]] = [Counter() for _ in seconds]
    for number, (took_ms, status, is_late, remark) in enumerate(
        _OUTCOME.iter_unpack(finished.stdout)
    ):
        due_s = int(number / job["requests_per_s"])
        second = seconds[due_s]
        second["sent_late"] += is_late
        if remark == _GIVEN_UP:
            second["given_up"] += 1
            continue
        answers[due_s][str(status) if status else "none"] += 1
        if status == HTTPStatus.CREATED:
            second["created_ms"].append(round(took_ms, 2))
        elif status:
            second["refused_ms"].append(round(took_ms, 2))
        if status == HTTPStatus.SERVICE_UNAVAILABLE and remark != _SAYS_WHEN_AGAIN:
            second["without_retry_after"] += 1
    for second, counted in zip(seconds, answers, strict=True):
        second["answers"] = dict(counted)
    return seconds[: int(job["duration_s"])]


def _no_arrivals() -> Second:
    return {
        "sent_late": 0,
        "given_up": 0,
        "answers": {},
        "without_retry_after": 0,
        "created_ms": [],
        "refused_ms": [],
    }


def _head(job: OpenJob, token: str) -> bytes:
    return (
        "POST /api/v1/orders HTTP/1.1\r\n"
        f"Host: {job['host']}:{job['port']}\r\n"
        f"Authorization: Bearer {token}\r\n"
        f"Idempotency-Key: {job['key_prefix']}-"
    ).encode()


def _tail(body: bytes) -> bytes:
    return (b"\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)) + body


def _texts(texts: Sequence[bytes]) -> bytes:
    return _number(len(texts)) + b"".join(_number(len(text)) + text for text in texts)


def _number(number: int) -> bytes:
    return number.to_bytes(8, "big")
