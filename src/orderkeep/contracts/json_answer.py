"""An answer in JSON with headers of its own, sent past the framework's general way.

For that way there are cookies, background tasks, media types and headers of many kinds. An order
has none of these, and on it its answer would take as long as deciding it.
"""

from collections.abc import Mapping
from typing import Generic, TypeVar

import msgspec
from litestar import Response
from litestar.types import ASGIApp, Receive, Scope, Send

T = TypeVar("T")

_ENCODER = msgspec.json.Encoder()


class JsonAnswer(Response[T], Generic[T]):
    """Only content, headers and status are set: reading anything else of `Response` fails."""

    __slots__ = ()

    def __init__(
        self,
        content: T,
        *,
        headers: Mapping[str, str] | None = None,
        status_code: int | None = None,
    ) -> None:
        """Answer with the content.

        Args:
            content: What JSON can say; None is no body.
            headers: Beside the type and length of the body, and those of every answer; in ASCII.
            status_code: None is the handler's own.
        """
        self.content = content
        self.headers = dict(headers or {})
        self.status_code = status_code

    def to_asgi_response(  # type: ignore[override]  # reason: the rest of what Litestar hands over concerns what an answer has not
        self, *_: object, status_code: int, **__: object
    ) -> ASGIApp:
        """Return the ASGI application that sends it."""
        body = b"" if self.content is None else _ENCODER.encode(self.content)
        headers = [
            (name.lower().encode("ascii"), value.encode("ascii"))
            for name, value in self.headers.items()
        ]
        if body:
            headers.append((b"content-type", b"application/json"))
            headers.append((b"content-length", b"%d" % len(body)))
        status = self.status_code or status_code

        async def send_answer(_scope: Scope, _receive: Receive, send: Send) -> None:
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": body, "more_body": False})

        return send_answer
