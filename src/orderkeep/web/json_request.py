"""How a body comes in: bounded while it is read, then decoded strictly and once.

Litestar would accept "1" for a number, NaN, two equal keys and any media type, and would take the
whole body before it looks at the size of what came in chunks.
"""

import re

from litestar import Request
from litestar.connection.base import empty_receive, empty_send
from litestar.datastructures import State
from litestar.exceptions.http_exceptions import RequestEntityTooLarge
from litestar.types import Receive, Scope, Send

from orderkeep.contracts import strict_json
from orderkeep.contracts.caller import Caller
from orderkeep.refusal import Refusal
from orderkeep.web.problems import ClientGoneError
from orderkeep.web.route_rules import rules_of

# The contract's limit for every body.
BODY_BYTES_MAX = 64 * 1024

# application/json, with no charset but the one that JSON has.
_JSON = re.compile(rb"(?i)\s*application/json\s*(;\s*charset\s*=\s*\"?utf-8\"?\s*)?")


class JsonRequest(Request[Caller, object, State]):
    """A request whose body is JSON of the type that its handler's `data` has."""

    __slots__ = ("_received",)

    def __init__(
        self, scope: Scope, receive: Receive = empty_receive, send: Send = empty_send
    ) -> None:
        """Take the parts of an ASGI call."""
        super().__init__(scope, receive, send)
        self._received: bytes | None = None

    async def body(self) -> bytes:
        """Return the whole body.

        Raises:
            RequestEntityTooLarge: it has more bytes than the contract allows, announced or not.
            ClientGoneError: the client went away before it was whole.
        """
        if self._received is None:
            self._received = await self._receive_body()
        return self._received

    async def json(self) -> object:
        """Return the body as the type of the handler's `data`.

        Raises:
            Refusal: `unsupported_media_type`, `malformed_json` or `invalid_request`.
        """
        self._check_media_type()
        decoded: object = strict_json.decode(await self.body(), rules_of(self).body_type)
        return decoded

    async def _receive_body(self) -> bytes:
        announced = self._header(b"content-length")
        if announced is not None and announced.isdigit() and int(announced) > BODY_BYTES_MAX:
            raise RequestEntityTooLarge
        chunks: list[bytes] = []
        length = 0
        while True:
            event = await self.receive()
            if event["type"] != "http.request":
                raise ClientGoneError
            chunk = event.get("body", b"")
            length += len(chunk)
            if length > BODY_BYTES_MAX:
                raise RequestEntityTooLarge
            if not event.get("more_body", False):
                return b"".join([*chunks, chunk]) if chunks else chunk
            chunks.append(chunk)

    def _check_media_type(self) -> None:
        # A body without any media type is taken for what is expected, as RFC 9110 allows.
        media_type = self._header(b"content-type")
        if media_type in {None, b"application/json"}:
            return
        if _JSON.fullmatch(media_type) is None:
            raise Refusal("unsupported_media_type", "Send the body as application/json, in UTF-8.")

    def _header(self, name: bytes) -> bytes | None:
        for given, value in self.scope["headers"]:
            if given == name:
                return value
        return None
