"""A pgbouncer of a test's own, where one is installed."""

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.servers.own_process import OwnProcess, free_port

_SETTINGS = """
[databases]
* = host={host} port={port} user={user}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own_port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
default_pool_size = {pool_size}
"""


@contextmanager
def running_pooler(folder: Path, url: str, *, mode: str, pool_size: int) -> Iterator[str]:
    """Run a pooler before a database; give the URL that leads through it.

    Args:
        folder: Takes its log.
        url: Where the database is.
        mode: "session" or "transaction".
        pool_size: How many connections to the server it has.
    """
    program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        pytest.skip("pgbouncer is not installed")
    parts = urlsplit(url)
    own_port = free_port()
    # It does not run as root, and to others the folders of pytest are closed.
    with tempfile.TemporaryDirectory() as open_folder:
        Path(open_folder).chmod(0o755)
        settings = Path(open_folder) / "pgbouncer.ini"
        settings.write_text(
            _SETTINGS.format(
                host=parts.hostname,
                port=parts.port,
                user=parts.username,
                own_port=own_port,
                mode=mode,
                pool_size=pool_size,
            )
        )
        pooler = OwnProcess(
            [program, str(settings)],
            environment={"PATH": os.environ.get("PATH", os.defpath)},
            log_path=folder / "pgbouncer.log",
            user="postgres" if os.geteuid() == 0 else None,
        )
        pooler.start()
        try:
            pooler.wait_until(lambda: _answers(own_port), "it accepts connections")
            yield f"postgresql://{parts.username}@127.0.0.1:{own_port}{parts.path}"
        finally:
            pooler.kill()


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
    except OSError:
        return False
    return True
