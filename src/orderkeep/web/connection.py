"""A connection to a client: uvicorn's, with bounds, and refusals that cost little.

A client that sends endless headers, or too slowly, or that asks ever more and does not take what it
is answered, is cut off: it may not hold memory or a place for ever. For whom the door has no place,
the answer is written as soon as that is known, without a task and, where the whole request is there
already, without parsing it: what a flood of refusals takes is taken from those who are served.

Invariant: answers leave in the order of their requests. A request that follows another whose answer
is still to come is never refused here; it waits for its turn, and the application decides.
"""

import asyncio
import re

import httptools
import structlog
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from orderkeep.web.door import Door, find_request_id

log = structlog.get_logger()

# Longer than load balancers keep an idle connection, which must not reuse one that is closing.
KEEP_ALIVE_S = 75

# Of an answer that waits to be taken, so much must be taken in each such while: a quarter of what a
# request must bring.
ANSWER_TAKEN_S = 30.0
ANSWER_TAKEN_BYTES_MIN = 16 * 1024

# Ten times what a browser sends; llhttp itself has no limit.
HEAD_BYTES_MAX = 64 * 1024

# From the first byte to the last of a request: 64 KiB take half that at 4 KiB/s.
REQUEST_ARRIVAL_S = 30.0

# Requests that wait behind one whose answer is still to come. All that are in one read are parsed
# at once, and none of them is counted by the door; browsers have given up asking ahead.
PIPELINED_COUNT_MAX = 16

# All of a head, if nothing in it is unclear: its method, path, length and request id. Headers that
# decide where the request ends, or what becomes of the connection, are taken in one spelling each,
# and those two that are read once at most: `(?(3)(?!))` fails if group 3 has matched before. What a
# header holds is never given back, so that whatever is sent is read once.
_CLEAR_HEAD = re.compile(
    rb"""
    (?P<method>GET|POST|PUT|PATCH|DELETE)[ ]
    (?P<path>/[A-Za-z0-9/._~-]*+)(?:[?][!-~]*+)?[ ]HTTP/1[.]1
    (?:\r\n(?:
        (?(3)(?!))(?i:content-length):[ ]?(?P<length>[0-9]{1,9})(?=\r\n)
        | (?(4)(?!))(?i:x-request-id):[ ]?(?P<id>[!-~]*+)(?=\r\n)
        | (?i:connection:[ ]keep-alive)(?=\r\n)
        | # any other one, but none whose name begins like those that decide
          (?![CEPTUXceptux]
             (?i:onnection|ontent-length|xpect|roxy-connection|ransfer-encoding|pgrade|-request-id))
          [!#-'*+.0-9A-Z^-z|~-]++:[\t -~\x80-\xff]*+
    ))*
    \r\n\r\n
    """,
    re.VERBOSE,
)


# What goes before an answer, to a client that asked whether it may send its body.
_INTERIM = b"HTTP/1.1 100 "


class _JoiningTransport:
    """The transport as one answer sees it: its head leaves together with what follows first.

    uvicorn writes a head at once, though nothing here starts an answer before it has all of it:
    each would be two calls of the system, and two reads of its client.
    """

    __slots__ = ("_head", "_is_head_written", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head = b""
        self._is_head_written = False

    def write(self, data: bytes) -> None:
        if not self._is_head_written and not data.startswith(_INTERIM):
            self._is_head_written = True
            self._head = data
            return
        head, self._head = self._head, b""
        self._transport.write(head + data)

    def close(self) -> None:
        head, self._head = self._head, b""
        if head:
            self._transport.write(head)
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()


class BoundedConnection(HttpToolsProtocol):
    """One connection.

    Attributes:
        door: Says who is let in; None lets everybody in. The same for all connections of a server.
    """

    door: Door | None = None

    # The connection is closed then, unless something else happens before.
    _closes_at_s: float | None = None
    _closing: asyncio.TimerHandle | None = None
    _is_in_message = False
    _is_refused = False
    _is_in_head = False
    _head_bytes_count = 0
    # How many requests began in what has just been read.
    _begun_count = 0
    # Looks then whether the client has taken enough of what was unsent before.
    _taking: asyncio.TimerHandle | None = None
    _unsent_bytes_count = 0
    # Nothing more is read of this client, who is still to be answered.
    _ends_when_answered = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # reason: as uvicorn has it
        super().connection_made(transport)
        self._close_within(REQUEST_ARRIVAL_S)

    def connection_lost(self, exc: Exception | None) -> None:
        self._closes_at_s = None
        if self._closing is not None:
            self._closing.cancel()
            self._closing = None
        if self._taking is not None:
            self._taking.cancel()
            self._taking = None
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._bound_taking()

    def resume_writing(self) -> None:
        if self._taking is not None and not self.transport.is_closing():
            self._taking.cancel()
            self._taking = None
        super().resume_writing()

    def eof_received(self) -> bool:  # type: ignore[override]  # reason: uvicorn lets go of whoever has said all
        """Keep the connection of a client that has asked all that it will, until it is answered."""
        self._ends_when_answered = not self._is_in_message and not self._is_idle()
        return self._ends_when_answered

    def data_received(self, data: bytes) -> None:
        if self._ends_when_answered:
            return
        if not self._is_in_message and self._refuse_at_a_glance(data):
            return
        was_in_message = self._is_in_message
        self._begun_count = 0
        super().data_received(data)
        if not self._is_in_message and self._closes_at_s is None and self._is_idle():
            # The end of a request that is answered already, or a line between two: no request, for
            # which uvicorn has stopped its timer.
            self._close_within(KEEP_ALIVE_S)
        self._bound_head(data, is_all_head=self._begun_count == (0 if was_in_message else 1))

    def _bound_head(self, data: bytes, *, is_all_head: bool) -> None:
        """Cut off the client whose head does not come to its end.

        Args:
            is_all_head: Nothing else was read, if a head was.
        """
        if not self._is_in_head or not is_all_head:
            self._head_bytes_count = 0
            return
        self._head_bytes_count += len(data)
        if self._head_bytes_count > HEAD_BYTES_MAX and not self.transport.is_closing():
            log.warning("request_head_too_large")
            self.send_400_response("The headers are too large.")

    def send_400_response(self, msg: str) -> None:
        if self._is_idle() or self._is_in_body_of_unanswered():
            super().send_400_response(msg)
        else:
            # It would pass for the answer to an earlier request, or stand in the middle of one.
            # What was asked between the two has not begun, and never will.
            self._ends_when_answered = True
            self.pipeline.clear()
            self.transport.pause_reading()
        self._bound_taking()

    def on_message_begin(self) -> None:
        self._is_in_message = self._is_in_head = True
        self._begun_count += 1
        self._is_refused = False
        self._close_within(REQUEST_ARRIVAL_S)
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        # Blanks around a value are no part of it (RFC 9110, section 5.5); the parser leaves the
        # ones behind it.
        super().on_header(name, value.rstrip(b" \t"))

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        if len(self.pipeline) >= PIPELINED_COUNT_MAX:
            # What a callback raises ends the parsing.
            message = "too many requests ahead of their answers"
            raise ValueError(message)
        if not self._is_shut_out():
            super().on_headers_complete()
            if self.scope["method"] != "HEAD":  # behind whose head nothing is written
                self.cycle.transport = _JoiningTransport(self.transport)  # type: ignore[assignment]  # reason: all of it that a cycle uses
            return
        self._is_refused = True
        # Whoever asked before sending the body need not send it now: what comes next is unclear.
        stays_open = (
            self.parser.get_http_version() == "1.1"
            and self.parser.should_keep_alive()
            and not self.expect_100_continue
        )
        self._refuse(find_request_id(self.headers), stays_open=stays_open)

    def on_body(self, body: bytes) -> None:
        if not self._is_refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._is_in_message = False
        if self._is_refused:
            self._close_within(KEEP_ALIVE_S)
            return
        self._closes_at_s = None
        super().on_message_complete()

    def on_response_complete(self) -> None:
        is_last = self._ends_when_answered and not self.pipeline
        super().on_response_complete()
        if not self._is_in_message and not self.pipeline and self.cycle.response_complete:
            # Nobody asks for it again, and a crowd that waits to ask would hold all of theirs.
            self.cycle = None  # type: ignore[assignment]  # reason: uvicorn has None at first
            self.scope = None  # type: ignore[assignment]  # reason: as above
            self.headers = []
        if is_last:
            self.transport.close()
        if self.transport.is_closing():
            self._bound_taking()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._bound_taking()

    def _is_shut_out(self) -> bool:
        """Return whether the request, whose headers are known, is answered at the door."""
        door = self.door
        if door is None or door.is_open_to_all(len(self.tasks)) or not self._may_answer():
            return False
        method = self.parser.get_method().decode("ascii")
        path = httptools.parse_url(self.url).path.decode("ascii")
        # Whoever asks with HEAD must not be sent a body: that is rare, and the application can.
        return method != "HEAD" and not door.lets_in(method, path, in_hand_count=len(self.tasks))

    def _refuse_at_a_glance(self, data: bytes) -> bool:
        """Refuse the request if all of it, and nothing else, is there, and the door is shut to it.

        What is unclear in any way is left to the parser: nothing here is laxer than that.
        """
        door = self.door
        if door is None or door.is_open_to_all(len(self.tasks)) or not self._may_answer():
            return False
        head = _CLEAR_HEAD.match(data) if len(data) <= HEAD_BYTES_MAX else None
        if head is None:
            return False
        method, path, length, request_id = head.group("method", "path", "length", "id")
        if len(data) - head.end() != int(length or 0) or door.lets_in(
            method.decode(), path.decode(), in_hand_count=len(self.tasks)
        ):
            return False
        self._unset_keepalive_if_required()
        self._refuse(request_id, stays_open=True)
        self._close_within(KEEP_ALIVE_S)
        return True

    def _refuse(self, request_id: bytes | None, *, stays_open: bool) -> None:
        assert self.door is not None, "nobody is refused without a door"
        self.transport.write(self.door.refuse(request_id, stays_open=stays_open))
        if not stays_open:
            self.transport.close()
            self._bound_taking()

    def _may_answer(self) -> bool:
        """Return whether it is this request's turn, and the client reads what it is answered."""
        return self._is_idle() and not self.flow.write_paused

    def _is_idle(self) -> bool:
        """Return whether whatever was asked is answered; whether the client has it is not known."""
        is_answered = self.cycle is None or self.cycle.response_complete  # type: ignore[redundant-expr]  # reason: uvicorn has None at first
        return is_answered and not self.pipeline

    def _is_in_body_of_unanswered(self) -> bool:
        """Return whether the body is read of the only request in hand, before its answer."""
        is_in_body = self._is_in_message and not self._is_in_head
        return is_in_body and not self.pipeline and not self.cycle.response_started

    def _close_within(self, limit_s: float) -> None:
        """Close the connection after so long, unless this, or the end of a request, comes before.

        A timer is moved only where it would come too late: one for each request is dear.
        """
        self._closes_at_s = closes_at_s = self.loop.time() + limit_s
        if self._closing is not None:
            if self._closing.when() <= closes_at_s:
                return
            self._closing.cancel()
        self._closing = self.loop.call_at(closes_at_s, self._close_if_due)

    def _close_if_due(self) -> None:
        self._closing = None
        if self._closes_at_s is None:
            return
        if self.loop.time() >= self._closes_at_s:
            self.transport.close()
            self._bound_taking()
            return
        self._closing = self.loop.call_at(self._closes_at_s, self._close_if_due)

    def _bound_taking(self) -> None:
        """Cut the client off unless it goes on taking what it is answered.

        A closed connection, too, waits for that, and an answer that waits keeps its place.
        """
        if self._taking is None:
            self._unsent_bytes_count = self.transport.get_write_buffer_size()
            self._taking = self.loop.call_later(ANSWER_TAKEN_S, self._cut_off_if_not_taken)

    def _cut_off_if_not_taken(self) -> None:
        self._taking = None
        taken_count = self._unsent_bytes_count - self.transport.get_write_buffer_size()
        if taken_count >= ANSWER_TAKEN_BYTES_MIN:
            self._bound_taking()
            return
        log.warning("answer_not_taken")
        self.transport.abort()
