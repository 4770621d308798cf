"""RabbitMQ for tests and benchmarks: the one that answers, one of our own, or a cluster of them.

server = ensure_rabbitmq()
server.create_vhost("shop")
connect(server.url("shop"))

own = start_private_rabbitmq(tmp_path)
own.kill()
own.start()
"""

import atexit
import json
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import httpx
import pika
from pika.exceptions import AMQPError

from tests.servers.erlang_shell import ErlangError, ErlangShell
from tests.servers.installation import ServerMissingError, install_debian_package
from tests.servers.installed_node import find_installed_node
from tests.servers.own_process import (
    ServerNotStartedError,
    free_port,
    run_to_end,
    wait_until,
)
from tests.servers.rabbitmq_node import (
    RabbitNode,
    find_program,
    peer_lines,
    speaks_amqp,
)
from tests.servers.rabbitmq_vhosts import ErlangVhosts, ManagementVhosts, Vhosts

# Where a test names a server that is neither on the usual port nor to be started; and where its
# management plugin is, if it is not at the usual port of the same host.
URL_VARIABLE = "ORDERKEEP_TEST_RABBITMQ_URL"
MANAGEMENT_URL_VARIABLE = "ORDERKEEP_TEST_RABBITMQ_MANAGEMENT_URL"

_USUAL_URL = "amqp://guest:guest@127.0.0.1:5672"
_USUAL_MANAGEMENT_PORT = 15672

_COLOUR = re.compile("\x1b\\[[0-9;]*m")

# Three nodes that start at once on a small machine, and find each other.
_CLUSTER_S_MAX = 180.0


class RabbitServer:
    """A RabbitMQ that runs.

    Attributes:
        host: Where it listens.
        port: Where it listens.
        user: One who may do everything in the virtual hosts made here.
        password: Theirs.
    """

    is_private = False

    def __init__(self, *, host: str, port: int, user: str, password: str) -> None:
        self.host = host
        self.port = port
        self.user = user
        self.password = password

    def url(self, vhost: str = "/") -> str:
        """Return where a virtual host is, as `amqp://…`."""
        credentials = f"{quote(self.user, safe='')}:{quote(self.password, safe='')}"
        return f"amqp://{credentials}@{self.host}:{self.port}/{quote(vhost, safe='')}"

    def create_vhost(self, name: str) -> None:
        """Create a virtual host in which our user may do everything."""
        self._vhosts.create(name, user=self.user)

    def delete_vhost(self, name: str) -> None:
        """Delete a virtual host with all that it holds, if it is there."""
        self._vhosts.delete(name)

    def vhost_names(self) -> list[str]:
        """Return the names of all its virtual hosts."""
        return self._vhosts.names()

    def is_ready(self) -> bool:
        """Whether it lets us in."""
        try:
            pika.BlockingConnection(pika.URLParameters(self.url())).close()
        except (AMQPError, OSError):
            return False
        return True

    @cached_property
    def version(self) -> str:
        """What it says that its version is, such as `3.10.8`."""
        with pika.BlockingConnection(pika.URLParameters(self.url())) as connection:
            # Only pika's connection with callbacks tells, and this one is built on that.
            inner = connection._impl  # type: ignore[attr-defined]  # not of its public face
            return inner.server_properties["version"]

    @cached_property
    def has_delayed_message_plugin(self) -> bool:
        """Whether exchanges of the type `x-delayed-message` can be declared."""
        with pika.BlockingConnection(pika.URLParameters(self.url())) as connection:
            channel = connection.channel()
            name = f"orderkeep-test-{uuid.uuid4().hex}"
            try:
                channel.exchange_declare(
                    name, "x-delayed-message", arguments={"x-delayed-type": "direct"}
                )
            except AMQPError:
                return False
            channel.exchange_delete(name)
            return True

    def ctl(self, *arguments: str) -> str:
        """Run `rabbitmqctl ARGUMENTS` on the node and return what it wrote; takes half a second.

        Raises:
            subprocess.CalledProcessError: it failed.
        """
        program = find_program("rabbitmqctl")
        assert program is not None, "rabbitmqctl is not installed"
        return run_to_end(
            [program, "--quiet", "--node", self._shell.node_name, *arguments],
            environment=self._shell.environment,
        )

    def queue_lengths(self, vhost: str = "/") -> dict[str, int]:
        """Return how many messages are in each queue that has some, ready or in somebody's hand.

        Of quorum queues these are the numbers of the last five seconds.
        """
        told = self.ctl("list_queues", "--vhost", vhost, "--no-table-headers", "messages", "name")
        counts = {name: int(number) for number, name in map(str.split, told.splitlines())}
        return {name: number for name, number in counts.items() if number}

    def evaluate(self, expression: str) -> str:
        """Return what an Erlang expression, with its full stop, is worth on the node, as text.

        Raises:
            ErlangError: the node does not run, or the expression failed.
        """
        return self._shell.evaluate(expression)

    @cached_property
    def _shell(self) -> ErlangShell:
        shell = find_installed_node(self.host, port=self.port)
        if shell is None:
            message = "the node is not of this machine, or its Erlang cookie is not ours to read"
            raise ErlangError(message)
        return shell

    @cached_property
    def _vhosts(self) -> Vhosts:
        try:
            return ErlangVhosts(self._shell)
        except ErlangError:
            usual = f"http://{self.host}:{_USUAL_MANAGEMENT_PORT}"
            url = os.environ.get(MANAGEMENT_URL_VARIABLE, usual)
            return ManagementVhosts(url, user=self.user, password=self.password)


class PrivateRabbitServer(RabbitServer):
    """A RabbitMQ that belongs to this process: it may be stopped, killed and started again.

    Attributes:
        node_name: What Erlang calls it, such as `ok20123@localhost`.
    """

    is_private = True

    def __init__(self, node: RabbitNode) -> None:
        super().__init__(host="127.0.0.1", port=node.port, user="guest", password="guest")
        self.node_name = node.name
        self._node = node

    @property
    def is_alive(self) -> bool:
        """Whether its process runs."""
        return self._node.process.is_alive

    def start(self) -> None:
        """Start it (again) and wait until it answers.

        Raises:
            ServerNotStartedError: it does not answer in time.
        """
        self.start_without_waiting()
        self.wait_until_ready()

    def start_without_waiting(self) -> None:
        """Start it (again); a node of a cluster may wait for others before it answers."""
        self._node.process.start()

    def wait_until_ready(self) -> None:
        """Wait until it answers; kill it if it does not.

        Raises:
            ServerNotStartedError: it does not answer in time.
        """
        try:
            self._node.process.wait_until(lambda: speaks_amqp(self.port), "it speaks AMQP")
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Ask it to end and wait until it has."""
        self._node.process.stop()

    def kill(self) -> None:
        """End it the way a power cut would."""
        self._node.process.kill()

    def restart(self) -> None:
        """Stop it and start it again."""
        self.stop()
        self.start()

    def wipe(self) -> None:
        """Forget everything that it stored; it must not run."""
        assert not self.is_alive, "stop or kill it first"
        self._node.wipe()

    def log_text(self) -> str:
        """Return its log, over all starts."""
        return _COLOUR.sub("", self._node.process.log_text())

    @cached_property
    def _shell(self) -> ErlangShell:
        return ErlangShell(self.node_name, environment=self._node.process.environment)


def find_rabbitmq() -> RabbitServer | None:
    """Return the server that answers on the usual local port, or where the environment says.

    None if nothing answers, or it does not let us in, or gives us no way of making virtual hosts.
    """
    parts = urlsplit(os.environ.get(URL_VARIABLE) or _USUAL_URL)
    host, port = parts.hostname or "127.0.0.1", parts.port or 5672
    if not speaks_amqp(port, host=host):
        return None
    server = RabbitServer(
        host=host,
        port=port,
        user=unquote(parts.username or "guest"),
        password=unquote(parts.password or "guest"),
    )
    return server if server.is_ready() and _may_make_vhosts(server) else None


def start_private_rabbitmq(
    folder: Path,
    *,
    port: int | None = None,
    node_name: str | None = None,
    config_lines: Sequence[str] = (),
    plugins: Sequence[str] = (),
) -> PrivateRabbitServer:
    """Make a server of our own and start it; it ends, at the latest, with this process.

    Args:
        folder: Of this server alone; everything that it writes is in there.
        port: None is one that is free.
        node_name: None is one made of the port.
        config_lines: More of `rabbitmq.conf`.
        plugins: To be enabled, such as `rabbitmq_management`.

    Raises:
        ServerMissingError: RabbitMQ is not installed.
        ServerNotStartedError: it did not start.
    """
    while True:
        taken_port = port or free_port()
        node = RabbitNode(
            folder,
            port=taken_port,
            name=node_name or f"ok{taken_port}@localhost",
            config_lines=config_lines,
            plugins=plugins,
        )
        server = PrivateRabbitServer(node)
        try:
            server.start()
        except ServerNotStartedError as error:
            # Between finding a free port and taking it, another process may have taken it.
            if port is not None or "eaddrinuse" not in str(error):
                raise
            server.wipe()
        else:
            return server


def start_cluster(folder: Path, *, node_count: int = 3) -> list[PrivateRabbitServer]:
    """Start nodes of our own that form a cluster, and wait until they have.

    Args:
        folder: Of this cluster alone; each node has a folder in it.
        node_count: Three or more can lose one and go on.

    Raises:
        ServerMissingError: RabbitMQ is not installed.
        ServerNotStartedError: a node did not start.
        TimeoutError: they did not find each other.
    """
    ports = [free_port() for _ in range(node_count)]
    names = [f"ok{port}@localhost" for port in ports]
    servers = [
        PrivateRabbitServer(
            RabbitNode(
                folder / f"node-{port}",
                port=port,
                name=name,
                config_lines=peer_lines(names),
                plugins=(),
            )
        )
        for port, name in zip(ports, names, strict=True)
    ]
    try:
        for server in servers:
            server.start_without_waiting()
        for server in servers:
            server.wait_until_ready()
        wait_until(
            lambda: all(running_node_names(server) == set(names) for server in servers),
            f"the nodes {names} are a cluster",
            within_s=_CLUSTER_S_MAX,
        )
    except BaseException:
        for server in servers:
            server.kill()
        raise
    return servers


def running_node_names(server: RabbitServer) -> set[str]:
    """Return the nodes of the server's cluster that run, as the server sees it."""
    return set(json.loads(server.ctl("cluster_status", "--formatter", "json"))["running_nodes"])


def ensure_rabbitmq() -> RabbitServer:
    """Return the server that answers; else one of our own; installed first, if need be.

    Raises:
        ServerMissingError: there is none, and none can be had.
    """
    found = find_rabbitmq()
    if found is not None:
        return found
    if URL_VARIABLE in os.environ:
        message = f"no usable RabbitMQ answers where {URL_VARIABLE} says"
        raise ServerMissingError(message)
    if find_program("rabbitmq-server") is None:
        install_debian_package("rabbitmq-server")
    folder = Path(tempfile.mkdtemp(prefix="orderkeep-rabbitmq-"))
    # Servers that are made later are ended earlier.
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return start_private_rabbitmq(folder)


def _may_make_vhosts(server: RabbitServer) -> bool:
    try:
        server.vhost_names()
    except (ErlangError, httpx.HTTPError):
        return False
    return True
