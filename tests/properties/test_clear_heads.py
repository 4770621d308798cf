"""What is refused at a glance is what the parser would have read, whatever is sent."""

import httptools
from hypothesis import example, given, settings
from hypothesis import strategies as st

from orderkeep.web.connection import _CLEAR_HEAD

_NAMES = st.sampled_from(
    [
        *("Host", "Content-Length", "content-length", "CONTENT-LENGTH", "Content-Lengths"),
        *("Connection", "connection", "Proxy-Connection", "Keep-Alive", "Upgrade", "Expect"),
        *("Transfer-Encoding", "Transfer-Encoding ", "X-Request-Id", "x-request-id", "TE"),
        *("Content-Type", "Cookie", "Authorization", "X", " X", "X Y", "Trailer", ""),
    ]
)
_VALUES = st.sampled_from(
    [
        *("keep-alive", "Keep-Alive", "close", "upgrade", "keep-alive, close", "chunked", "gzip"),
        *("0", "5", "05", "+5", "5, 5", "5 ", "99", "mine", "a b", "", "\t", "\x00", "\xe9"),
        *("100-continue", "websocket", "x\ry", "x\ny"),
    ]
)
_SEPARATORS = st.sampled_from([": ", ":", ":  ", ":\t", " : ", ""])
_LINE_ENDS = st.sampled_from(["\r\n"] * 9 + ["\n", "\r", "\r\n "])
_HEADERS = st.builds("".join, st.tuples(_NAMES, _SEPARATORS, _VALUES, _LINE_ENDS))
_TARGETS = st.sampled_from(["/", "/orders", "/a?b=c", "/a#b", "*", "http://a/b", "/\xe9", "/a b"])
_LINES = st.builds(
    "{} {} {}".format,
    st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "CONNECT", "get"]),
    _TARGETS,
    st.sampled_from(["HTTP/1.1", "HTTP/1.0", "HTTP/1.2", "http/1.1"]),
)


class _Parsed:
    """What the parser calls back with, of all that is sent."""

    def __init__(self) -> None:
        self.url = b""
        self.request_ids: list[bytes] = []
        self.begun_count = self.ended_count = 0
        self.body = b""

    def on_message_begin(self) -> None:
        self.begun_count += 1

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"x-request-id":
            self.request_ids.append(value)

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.ended_count += 1


@settings(max_examples=2000)
@given(line=_LINES, headers=st.lists(_HEADERS, max_size=5), body=st.sampled_from(["", "12345"]))
@example(line="POST / HTTP/1.1", headers=["Proxy-Connection: close\r\n"], body="")
@example(line="POST / HTTP/1.1", headers=["Content-Length: 5\r\n"] * 2, body="12345")
@example(line="POST / HTTP/1.1", headers=["Content-Length: 5\r\n"], body="12345")
def test_a_clear_head_is_read_as_the_parser_reads_it(
    line: str, headers: list[str], body: str
) -> None:
    sent = "".join((line, "\r\n", *headers, "\r\n", body)).encode("latin-1")
    head = _CLEAR_HEAD.match(sent)
    if head is None or len(sent) - head.end() != int(head["length"] or 0):
        return
    parsed = _Parsed()
    parser = httptools.HttpRequestParser(parsed)

    parser.feed_data(sent)

    assert (parsed.begun_count, parsed.ended_count) == (1, 1)
    assert parsed.body == sent[head.end() :]
    assert parser.get_method() == head["method"]
    assert httptools.parse_url(parsed.url).path == head["path"]
    assert parser.should_keep_alive()
    assert not parser.should_upgrade()
    assert parsed.request_ids == [head["id"]] * (head["id"] is not None)
