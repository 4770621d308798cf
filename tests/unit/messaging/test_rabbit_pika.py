"""What we lean on inside pika is there in the pika that is installed."""

import inspect

import pytest
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.adapters.utils.io_services_utils import _AsyncTransportBase
from pika.connection import Connection as PikaConnection

from orderkeep.messaging.broker import BrokerRefusedError
from orderkeep.messaging.rabbitmq.connection import Connection, address_of, parameters_of
from orderkeep.messaging.rabbitmq.options import RabbitOptions


@pytest.mark.parametrize("name", ["_read_frame", "_output_marshaled_frames"])
def test_what_we_replace_is_called_by_pika_with_what_we_expect(name: str):
    ours = inspect.signature(getattr(Connection, name))
    theirs = inspect.signature(getattr(PikaConnection, name))

    assert list(ours.parameters) == list(theirs.parameters)
    assert getattr(AsyncioConnection, name) is getattr(PikaConnection, name)


@pytest.mark.parametrize("name", ["_adapter_emit_data", "_terminate_stream"])
def test_what_we_call_is_there(name: str):
    assert callable(getattr(AsyncioConnection, name))


def test_what_we_reach_for_is_there():
    source = inspect.getsource(AsyncioConnection.__mro__[1])
    assert "self._transport" in source
    assert "self._sock" in inspect.getsource(_AsyncTransportBase)
    assert "self._frame_buffer" in inspect.getsource(PikaConnection)


def parameters(url: str):
    return parameters_of(url, options=RabbitOptions(), name="x")


def test_a_certificate_is_verified_and_belongs_to_the_host():
    secured = parameters("amqps://broker.example/shop")

    assert secured.port == 5671
    context = secured.ssl_options.context
    assert context.check_hostname
    assert context.verify_mode.name == "CERT_REQUIRED"


def test_an_address_is_shown_without_its_password():
    assert address_of(parameters("amqp://me:secret@host:1234/shop")) == "amqp://host:1234/shop"
    assert address_of(parameters("amqps://me:secret@host/%2F")) == "amqps://host:5671/"


def test_what_is_no_address_is_refused():
    with pytest.raises(BrokerRefusedError, match="ORDERKEEP_BROKER_URL"):
        parameters("redis://host")
