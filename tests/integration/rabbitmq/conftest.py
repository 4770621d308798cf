"""A RabbitMQ of everybody's and one of our own, our broker on it, and somebody else's program."""

import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPError

from orderkeep.messaging.rabbitmq import RabbitBroker, RabbitOptions
from tests.condition import eventually
from tests.servers.availability import fresh_vhost, rabbitmq_server
from tests.servers.own_process import free_port
from tests.servers.rabbitmq import PrivateRabbitServer, start_private_rabbitmq

DEADLINE_S = 20.0

OpenBroker = Callable[..., RabbitBroker]


class Stranger:
    """A program that knows nothing of ours and speaks AMQP with it."""

    def __init__(self, url: str) -> None:
        parameters = pika.URLParameters(url)
        self.connection = pika.BlockingConnection(parameters)
        self.channel: BlockingChannel = self.connection.channel()

    def close(self) -> None:
        with suppress(AMQPError):
            self.connection.close()

    def ready_count(self, queue: str) -> int:
        """Return how many messages wait in the queue, in nobody's hand."""
        return self.channel.queue_declare(queue, passive=True).method.message_count

    def has_queue(self, queue: str) -> bool:
        channel = self.connection.channel()
        try:
            channel.queue_declare(queue, passive=True)
        except AMQPError:
            return False
        channel.close()
        return True

    def send(self, queue: str, body: bytes = b"{}", **properties: Any) -> None:
        """Send with no more properties than are given."""
        self.channel.basic_publish("", queue, body, pika.BasicProperties(**properties))

    def take_all(self, queue: str) -> list[tuple[Any, bytes]]:
        """Take what waits in the queue, for good."""
        taken: list[tuple[Any, bytes]] = []
        while True:
            method, properties, body = self.channel.basic_get(queue, auto_ack=True)
            if method is None or properties is None or body is None:
                return taken
            # The queue's own, whatever was sent.
            properties.headers = {
                name: value
                for name, value in (properties.headers or {}).items()
                if name != "x-delivery-count"
            }
            taken.append((properties, body))


@pytest.fixture
def url() -> Iterator[str]:
    """A virtual host of its own."""
    with fresh_vhost(rabbitmq_server()) as url:
        yield url


@pytest.fixture
def stranger(url: str) -> Iterator[Stranger]:
    """A program of somebody else's in the same virtual host."""
    stranger = Stranger(url)
    yield stranger
    stranger.close()


@pytest.fixture
async def open_broker(url: str) -> AsyncIterator[OpenBroker]:
    """Makes brokers of ours in the virtual host, and closes them."""
    opened: list[RabbitBroker] = []

    def open_one(*, urls: list[str] | None = None, **options: Any) -> RabbitBroker:
        broker = RabbitBroker(
            urls or [url], options=RabbitOptions(**options), draw_jitter=lambda: 0.5
        )
        opened.append(broker)
        return broker

    yield open_one
    for broker in opened:
        await broker.close()


@dataclass(frozen=True, kw_only=True)
class OwnServer:
    """A RabbitMQ of our own.

    Attributes:
        tls_port: Where it listens with a certificate for `localhost` that vouches for itself.
        certificate: Where that certificate is.
    """

    server: PrivateRabbitServer
    tls_port: int
    certificate: Path


@pytest.fixture(scope="session")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnServer]:
    """A RabbitMQ whose settings may be turned."""
    rabbitmq_server()  # skips, or fails, where none can be had
    folder = tmp_path_factory.mktemp("rabbitmq")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    make_certificate(certificate, key)
    tls_port = free_port()
    server = start_private_rabbitmq(
        folder,
        config_lines=[
            f"listeners.ssl.local = 127.0.0.1:{tls_port}",
            f"ssl_options.cacertfile = {certificate}",
            f"ssl_options.certfile = {certificate}",
            f"ssl_options.keyfile = {key}",
        ],
    )
    yield OwnServer(server=server, tls_port=tls_port, certificate=certificate)
    server.kill()


@pytest.fixture
def private_server(own_server: OwnServer) -> PrivateRabbitServer:
    """The server of our own."""
    return own_server.server


@pytest.fixture
def private_url(private_server: PrivateRabbitServer) -> Iterator[str]:
    """A virtual host of its own on the server of our own."""
    with fresh_vhost(private_server) as url:
        yield url


def make_certificate(certificate: Path, key: Path) -> None:
    """Write a certificate for `localhost`, which vouches for itself."""
    command = [
        *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
        *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
        *("-keyout", str(key), "-out", str(certificate)),
    ]
    subprocess.run(command, check=True, capture_output=True)


async def ready_count_becomes(stranger: Stranger, queue: str, count: int) -> None:
    """Return once so many messages wait in the queue."""
    await eventually(lambda: stranger.ready_count(queue) == count, deadline_s=DEADLINE_S)
