"""The RabbitMQ that tests use: a private one survives a power cut, and virtual hosts are cheap."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pika
import pytest
from pika.exceptions import AMQPError

from tests.condition import eventually
from tests.servers.availability import fresh_vhost, rabbitmq_server
from tests.servers.erlang_shell import ErlangError
from tests.servers.own_process import free_port
from tests.servers.rabbitmq import (
    PrivateRabbitServer,
    RabbitServer,
    find_rabbitmq,
    start_private_rabbitmq,
)

pytestmark = pytest.mark.slow


@pytest.fixture
def private(tmp_path: Path) -> Iterator[PrivateRabbitServer]:
    server = start_private_rabbitmq(tmp_path)
    yield server
    server.kill()


def test_a_confirmed_message_survives_a_power_cut(private: PrivateRabbitServer):
    private.create_vhost("shop")
    _send(private.url("shop"), b"keep me")
    # The message is on the disk; RabbitMQ writes the declaration of its queue a moment later.
    private.evaluate("mnesia:sync_log().")

    private.kill()
    was_ready = private.is_ready()
    private.start()

    assert not was_ready
    assert _receive_soon(private.url("shop")) == b"keep me"


def test_a_wiped_server_has_forgotten_everything(private: PrivateRabbitServer):
    private.create_vhost("shop")

    private.stop()
    private.wipe()
    private.start()

    assert private.vhost_names() == ["/"]


def test_a_private_server_is_reached_by_its_own_command_line(private: PrivateRabbitServer):
    assert private.ctl("eval", "node().").strip() == private.node_name
    assert private.evaluate("1 + 1.") == "2"
    assert "started TCP listener" in private.log_text()


def test_a_question_to_a_stopped_server_is_an_error_and_not_for_ever(private: PrivateRabbitServer):
    private.kill()

    with pytest.raises(ErlangError, match="nodedown"):
        private.evaluate("node().")
    private.start()
    answer = private.evaluate("node().")

    assert answer == private.node_name


def test_a_fresh_vhost_is_empty_and_gone_afterwards():
    server = rabbitmq_server()

    with fresh_vhost(server) as first, fresh_vhost(server) as second:
        _send(first, b"only in the first")
        in_second = _receive(second)

    assert in_second is None
    with pytest.raises(AMQPError):
        _receive(first)
    assert not {_name_in(first), _name_in(second)} & set(server.vhost_names())


def test_a_vhost_is_deleted_twice_without_an_error():
    server = rabbitmq_server()

    with fresh_vhost(server) as url:
        server.delete_vhost(_name_in(url))

    assert _name_in(url) not in server.vhost_names()


def test_a_server_says_its_version_and_whether_it_can_delay():
    server = rabbitmq_server()

    assert int(server.version.partition(".")[0]) >= 3
    assert server.has_delayed_message_plugin in {True, False}


def test_a_server_that_is_not_there_is_not_found(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ORDERKEEP_TEST_RABBITMQ_URL", f"amqp://guest:guest@127.0.0.1:{free_port()}")

    assert find_rabbitmq() is None


def test_an_url_names_user_password_and_vhost():
    server = RabbitServer(host="mq", port=5673, user="ann", password="p@ss/word")

    assert server.url("shop/1") == "amqp://ann:p%40ss%2Fword@mq:5673/shop%2F1"


def _send(url: str, body: bytes) -> None:
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.queue_declare("letters", durable=True)
        channel.basic_publish(
            "", "letters", body, pika.BasicProperties(delivery_mode=2), mandatory=True
        )


def _receive_soon(url: str) -> bytes:
    """Return the first letter: a queue that has just come back may say for a moment it is empty."""
    found: list[bytes] = []

    def receive() -> bool:
        if (letter := _receive(url)) is not None:
            found.append(letter)
        return bool(found)

    asyncio.run(eventually(receive))
    return found[0]


def _receive(url: str) -> bytes | None:
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        channel.queue_declare("letters", durable=True)
        return channel.basic_get("letters", auto_ack=True)[2]


def _name_in(url: str) -> str:
    return url.rpartition("/")[2]
