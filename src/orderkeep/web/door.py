"""Who is let in while many requests are in hand, and what the others are told, at little cost.

Invariant: at most so many requests are in hand as there are places. New orders are refused first;
then whatever else; and what frees stock or brings money last, for it has places of its own beyond
the others'. Whoever watches is always let in.

A refusal is made of parts that are written beforehand: beside a flood of refusals there must be
time to serve those who are let in.
"""

import itertools
import re
from collections.abc import Callable, Iterable

from orderkeep.refusal import Refusal
from orderkeep.web.problems import MEDIA_TYPE, Problem, problem_of

Headers = Iterable[tuple[bytes, bytes]]

# A client's own id is kept, so that it finds its request in our logs; within reason.
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,64}")

# Whoever watches must hear from an overloaded process as well.
_ALWAYS_SERVED = ("/health/live", "/health/ready", "/metrics")

# Stands for the request's id in a refusal that is written beforehand; JSON leaves it as it is.
_ID_HERE = "REQUEST-ID"


class Door:
    """Lets requests in while there are places for them."""

    def __init__(
        self,
        *,
        new_request_id: Callable[[], str],
        requests_in_hand_max: int,
        goes_first: Callable[[str, str], bool] = lambda _method, _path: False,
        first_in_hand_max: int = 0,
        goes_last: Callable[[str, str], bool] = lambda _method, _path: False,
        last_in_hand_max: int | None = None,
        count_answer: Callable[[int], None] = lambda _status: None,
    ) -> None:
        """Stand open.

        Args:
            new_request_id: Draws an id for a request that brings none.
            requests_in_hand_max: One more request than that is refused as `overloaded`.
            goes_first: Returns, for a method and a path, whether the request goes before others.
            first_in_hand_max: So many requests that go first are let in beyond the bound.
            goes_last: Returns, for a method and a path, whether the request goes behind others.
            last_in_hand_max: One that goes last is refused when so many are in hand; None, or more
                than the bound, is the bound.
            count_answer: Told the status of each answer, also of those who were let in.
        """
        self._new_request_id = new_request_id
        self._requests_in_hand_max = requests_in_hand_max
        self._goes_first = goes_first
        self._first_in_hand_max = first_in_hand_max
        self._goes_last = goes_last
        self._last_in_hand_max = min(
            requests_in_hand_max,
            requests_in_hand_max if last_in_hand_max is None else last_in_hand_max,
        )
        self.count_answer = count_answer
        self._status, self._head_parts, self._body_parts = _parts_of_a_refusal()
        # Drawing an id takes as long as the rest of a refusal: the refused share one, and a count.
        self._refused_id: bytes | None = None
        self._refused_numbers = itertools.count(1)

    def request_id_of(self, headers: Headers) -> str:
        """Return the id that the request brings, or a new one."""
        found = find_request_id(headers)
        return self._new_request_id() if found is None else found.decode()

    def goes_first(self, method: str, path: str) -> bool:
        """Return whether the request goes before others."""
        return self._goes_first(method, path)

    def is_open_to_all(self, in_hand_count: int) -> bool:
        """Return whether nobody is refused while so many requests are in hand."""
        return in_hand_count < self._last_in_hand_max

    def lets_in(self, method: str, path: str, *, in_hand_count: int) -> bool:
        """Return whether there is a place for the request while so many are in hand."""
        if in_hand_count < self._last_in_hand_max or path in _ALWAYS_SERVED:
            return True
        if in_hand_count < self._requests_in_hand_max:
            return not self._goes_last(method, path)
        return in_hand_count < (
            self._requests_in_hand_max + self._first_in_hand_max
        ) and self._goes_first(method, path)

    def refuse(self, request_id: bytes | None, *, stays_open: bool) -> bytes:
        """Return what a request is answered for which there is no place, as it goes over the wire.

        Args:
            request_id: Brought by the request; one that cannot be repeated counts as none.
            stays_open: Whether the connection may be used again; if not, the answer says so.
        """
        self.count_answer(self._status)
        if request_id is None or not _REQUEST_ID.fullmatch(request_id):
            if self._refused_id is None:
                self._refused_id = self._new_request_id()[:44].encode()
            request_id = b"%b:%d" % (self._refused_id, next(self._refused_numbers))
        body = request_id.join(self._body_parts)
        return b"%bcontent-length: %d\r\n%b\r\n%b" % (
            request_id.join(self._head_parts),
            len(body),
            b"" if stays_open else b"connection: close\r\n",
            body,
        )


def overloaded() -> Refusal:
    """Return the refusal of a request for which there is no place."""
    return Refusal("overloaded", "Too many requests are in hand; try again shortly.")


def header_bytes(problem: Problem) -> list[tuple[bytes, bytes]]:
    """Return the headers that the problem itself brings; its length is not among them."""
    headers = {"content-type": MEDIA_TYPE, **problem.headers}
    return [(name.lower().encode(), text.encode()) for name, text in headers.items()]


def headers_of_all(request_id: str) -> list[tuple[bytes, bytes]]:
    """Return the headers that every answer bears."""
    return [(b"x-request-id", request_id.encode()), (b"x-content-type-options", b"nosniff")]


def find_request_id(headers: Headers) -> bytes | None:
    """Return the id that a request brings, if it is one that can be repeated."""
    for name, value in headers:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return value
    return None


def _parts_of_a_refusal() -> tuple[int, list[bytes], list[bytes]]:
    """Return the status, and head and body cut where the request's id belongs."""
    problem = problem_of(overloaded(), request_id=_ID_HERE)
    lines = [
        b"HTTP/1.1 %d Service Unavailable" % problem.status,
        *(b"%b: %b" % header for header in (*header_bytes(problem), *headers_of_all(_ID_HERE))),
    ]
    head = b"".join(line + b"\r\n" for line in lines)
    return problem.status, head.split(_ID_HERE.encode()), problem.body.split(_ID_HERE.encode())
