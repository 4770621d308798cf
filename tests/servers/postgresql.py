"""PostgreSQL for tests and benchmarks: the one that answers, or one of our own.

server = ensure_postgresql()
server.create_database("shop")
connect(server.url("shop"))

own = start_private_postgresql(tmp_path)
own.kill()
own.start()
"""

import asyncio
import atexit
import getpass
import os
import pwd
import re
import shutil
import signal
import stat
import tempfile
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, unquote, urlsplit

import asyncpg

from tests.servers.installation import ServerMissingError, install_debian_package
from tests.servers.own_process import OwnProcess, ServerNotStartedError, free_port, run_to_end

# The oldest that Orderkeep supports.
VERSION_MIN = 15

# Where a test names a server that is neither on the usual port nor to be started.
URL_VARIABLE = "ORDERKEEP_TEST_POSTGRESQL_URL"

_USUAL_PORT = 5432
_CONNECT_S_MAX = 5.0
_STATEMENT_S_MAX = 60.0

_DEBIAN_PROGRAMS = Path("/usr/lib/postgresql")

_PRIVATE_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",  # a socket's path must be short, and a test's folder is not
    "max_connections": "200",
    "log_lock_waits": "on",
    "log_line_prefix": "%m [%p] %a ",
}

_STOP_SIGNALS = {
    "smart": signal.SIGTERM,
    "fast": signal.SIGINT,
    "immediate": signal.SIGQUIT,
}

# What a server that starts, stops or is not there answers with.
_NO_ANSWER = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError)

T = TypeVar("T")


class PostgresServer:
    """A PostgreSQL that runs.

    Attributes:
        host: Where it listens.
        port: Where it listens.
        user: A role that may create databases.
    """

    is_private = False

    def __init__(self, *, host: str, port: int, user: str, password: str | None = None) -> None:
        self.host = host
        self.port = port
        self.user = user
        self._password = password

    def url(self, database: str) -> str:
        """Return where a database is, as `postgresql://…`."""
        password = "" if self._password is None else f":{quote(self._password, safe='')}"
        user = quote(self.user, safe="")
        return f"postgresql://{user}{password}@{self.host}:{self.port}/{quote(database)}"

    def query(self, sql: str, *, database: str = "postgres") -> list[dict[str, Any]]:
        """Run one statement outside of a transaction and return its rows."""

        async def run() -> list[dict[str, Any]]:
            connection = await asyncpg.connect(self.url(database), timeout=_CONNECT_S_MAX)
            try:
                rows = await connection.fetch(sql, timeout=_STATEMENT_S_MAX)
            finally:
                await connection.close(timeout=_CONNECT_S_MAX)
            return [dict(row) for row in rows]

        return _completed(run)

    def create_database(self, name: str, template: str | None = None) -> None:
        """Create a database, empty or as a copy of another that nobody is connected to."""
        copied = "" if template is None else f" TEMPLATE {_quoted(template)}"
        self.query(f"CREATE DATABASE {_quoted(name)}{copied}")

    def drop_database(self, name: str) -> None:
        """Drop a database, if it is there, and end whoever is connected to it."""
        self.query(f"DROP DATABASE IF EXISTS {_quoted(name)} WITH (FORCE)")

    def database_names(self) -> list[str]:
        """Return the names of all its databases."""
        return [row["datname"] for row in self.query("SELECT datname FROM pg_database")]

    def is_ready(self) -> bool:
        """Whether it accepts connections and answers."""
        try:
            self.query("SELECT 1")
        except _NO_ANSWER:
            return False
        return True


class PrivatePostgresServer(PostgresServer):
    """A PostgreSQL that belongs to this process: it may be stopped, killed and started again."""

    is_private = True

    def __init__(self, *, port: int, user: str, process: OwnProcess) -> None:
        super().__init__(host="127.0.0.1", port=port, user=user)
        self._process = process

    @property
    def is_alive(self) -> bool:
        """Whether its first process runs."""
        return self._process.is_alive

    def start(self) -> None:
        """Start it (again) and wait until it answers.

        Raises:
            ServerNotStartedError: it does not answer in time.
        """
        self._process.start()
        try:
            self._process.wait_until(self.is_ready, "it accepts connections")
        except BaseException:
            self._process.kill()
            raise

    def stop(self, mode: str = "fast") -> None:
        """Stop it and wait until it has ended.

        Args:
            mode: `smart` waits for its clients, `fast` ends their sessions, `immediate` leaves the
                recovery to the next start.
        """
        self._process.stop(_STOP_SIGNALS[mode])

    def kill(self) -> None:
        """End all its processes the way a power cut would."""
        self._process.kill()

    def restart(self) -> None:
        """Stop it the fast way and start it again."""
        self.stop()
        self.start()

    def log_text(self) -> str:
        """Return its log, over all starts."""
        return self._process.log_text()


def find_postgresql() -> PostgresServer | None:
    """Return the server that answers on the usual local port, or where the environment says.

    None if nothing answers, or it is too old, or gives us no right to create databases.
    """
    if url := os.environ.get(URL_VARIABLE):
        parts = urlsplit(url)
        candidates = [(parts.username or "postgres", parts.password)]
        host, port = parts.hostname or "127.0.0.1", parts.port or _USUAL_PORT
    else:
        # On trust; as images for containers are set up; on trust of the user of the system.
        candidates = [("postgres", None), ("postgres", "postgres"), (getpass.getuser(), None)]
        host, port = "127.0.0.1", _USUAL_PORT
    for user, password in candidates:
        server = PostgresServer(
            host=host,
            port=port,
            user=unquote(user),
            password=None if password is None else unquote(password),
        )
        if _is_usable(server):
            return server
    return None


def start_private_postgresql(
    folder: Path, *, port: int | None = None, settings: Mapping[str, str] | None = None
) -> PrivatePostgresServer:
    """Make a server of our own and start it; it ends, at the latest, with this process.

    Args:
        folder: Of this server alone. Its log comes here; so do its data, if the user that it runs
            as may enter. PostgreSQL does not run as root, and to others the folders of pytest are
            closed: then its data are in a temporary folder, which is removed at exit.
        port: None is one that is free.
        settings: In addition to, or instead of, our own, such as `{"fsync": "off"}`.

    Raises:
        ServerMissingError: PostgreSQL is not installed.
        ServerNotStartedError: it did not start.
    """
    programs = _find_programs()
    if programs is None:
        message = f"no PostgreSQL {VERSION_MIN} or newer is installed"
        raise ServerMissingError(message)
    folder.mkdir(parents=True, exist_ok=True)
    user = _user_to_run_as()
    data_dir = _data_folder(folder, user=user) / "data"
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}
    run_to_end(
        [
            *(str(programs / "initdb"), "--pgdata", str(data_dir), "--username", "postgres"),
            *("--auth", "trust", "--encoding", "UTF8", "--no-locale", "--no-sync"),
        ],
        environment=environment,
        user=user,
    )
    while True:
        taken_port = port or free_port()
        all_settings = {**_PRIVATE_SETTINGS, "port": str(taken_port), **(settings or {})}
        process = OwnProcess(
            [str(programs / "postgres"), "-D", str(data_dir)]
            + [word for item in all_settings.items() for word in ("-c", "=".join(item))],
            environment=environment,
            log_path=folder / f"postgresql-{taken_port}.log",
            user=user,
        )
        server = PrivatePostgresServer(port=taken_port, user="postgres", process=process)
        try:
            server.start()
        except ServerNotStartedError as error:
            # Between finding a free port and taking it, another process may have taken it.
            if port is not None or "Address already in use" not in str(error):
                raise
        else:
            return server


def ensure_postgresql() -> PostgresServer:
    """Return the server that answers; else one of our own; installed first, if need be.

    Raises:
        ServerMissingError: there is none, and none can be had.
    """
    found = find_postgresql()
    if found is not None:
        return found
    if URL_VARIABLE in os.environ:
        message = f"no usable PostgreSQL answers where {URL_VARIABLE} says"
        raise ServerMissingError(message)
    if _find_programs() is None:
        install_debian_package("postgresql")
    return start_private_postgresql(_temporary_folder(None))


def _completed(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Return what the work comes to, whether or not an event loop runs around us."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return _completed_in_new_loop(work)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(_completed_in_new_loop, work).result()


def _completed_in_new_loop(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    # Not `asyncio.run`: it forgets the loop of the thread, in which pytest may be about to go on.
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(work())
    finally:
        loop.close()


def _is_usable(server: PostgresServer) -> bool:
    try:
        rows = server.query(
            "SELECT current_setting('server_version_num')::int / 10000 AS version,"
            " rolcreatedb OR rolsuper AS may_create FROM pg_roles WHERE rolname = current_user"
        )
    except _NO_ANSWER:
        return False
    return rows[0]["version"] >= VERSION_MIN and rows[0]["may_create"]


def _find_programs() -> Path | None:
    """Return the folder of the programs of a server that is new enough."""
    on_path = shutil.which("postgres")
    folders = [] if on_path is None else [Path(on_path).resolve().parent]
    packaged = sorted(_DEBIAN_PROGRAMS.glob("*/bin/postgres"), reverse=True)
    folders += [path.parent for path in packaged]
    for folder in folders:
        if (folder / "initdb").exists():
            version = re.search(r"\d+", run_to_end([str(folder / "postgres"), "--version"]))
            if version and int(version.group()) >= VERSION_MIN:
                return folder
    return None


def _user_to_run_as() -> str | None:
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def _data_folder(folder: Path, *, user: str | None) -> Path:
    """Return a folder that the user owns: a new one in ours, if the user can get there."""
    if user is None:
        return folder
    is_open = all(
        parent.stat().st_mode & stat.S_IXOTH for parent in [folder, *folder.resolve().parents]
    )
    if not is_open:
        return _temporary_folder(user)
    owned = folder / "postgresql"
    owned.mkdir(mode=0o700)
    shutil.chown(owned, user)
    return owned


def _temporary_folder(owner: str | None) -> Path:
    """Return a new folder, removed at exit after the servers that use it have ended."""
    folder = Path(tempfile.mkdtemp(prefix="orderkeep-postgresql-"))
    # Servers that are made later are ended earlier.
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    if owner is not None:
        shutil.chown(folder, owner)
    return folder


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
