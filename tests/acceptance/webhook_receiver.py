"""A receiver of webhooks as a customer would run one: a small HTTP server in a thread."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks import Webhook

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@dataclass(frozen=True, slots=True)
class Arrived:
    """One request, with a signature that is right."""

    message_id: str
    document: dict[str, Any]

    @property
    def order_no(self) -> str:
        """Whose event it is."""
        return self.document["data"]["order_no"]

    @property
    def type(self) -> str:
        """What happened."""
        return self.document["type"]


@dataclass
class WebhookReceiver:
    """What arrived so far.

    Attributes:
        forged_count: Whole requests whose signature was wrong, or missing.
        cut_off_count: Requests that ended before their end.
    """

    url: str
    arrived: list[Arrived] = field(default_factory=list)
    forged_count: int = 0
    cut_off_count: int = 0

    def of_order(self, order_no: str) -> list[Arrived]:
        """Return the first arrival of each event of the order, as they came."""
        first: dict[str, Arrived] = {}
        for one in list(self.arrived):
            if one.order_no == order_no:
                first.setdefault(one.message_id, one)
        return list(first.values())

    def by_order(self) -> dict[str, list[str]]:
        """Return the ids of the events of each order, as they came, copies left out."""
        ids: dict[str, dict[str, None]] = {}
        for one in list(self.arrived):
            ids.setdefault(one.order_no, {})[one.message_id] = None
        return {order_no: list(found) for order_no, found in ids.items()}

    def take(self, headers: dict[str, str], body: bytes) -> None:
        """Check the signature and keep the request."""
        try:
            Webhook(SECRET).verify(body, headers)
        except Exception:  # noqa: BLE001 (counted; a test looks at the count)
            self.forged_count += 1
            return
        self.arrived.append(Arrived(headers["webhook-id"], json.loads(body)))


class _Server(ThreadingHTTPServer):
    # A shop opens a connection for each delivery that is under way.
    request_queue_size = 128


@contextmanager
def listening() -> Iterator[WebhookReceiver]:
    """Receive, and answer 204 to everything, as long as the context lasts."""

    class Request(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers.get("content-length", "-1"))
            body = self.rfile.read(max(length, 0))
            if len(body) != length:
                receiver.cut_off_count += 1  # its sender died while it sent
                return
            receiver.take({name.lower(): text for name, text in self.headers.items()}, body)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_arguments: object) -> None:
            """Say nothing."""

    with _Server(("127.0.0.1", 0), Request) as server:
        receiver = WebhookReceiver(url=f"http://127.0.0.1:{server.server_port}/hooks")
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            yield receiver
        finally:
            server.shutdown()
            serving.join()
