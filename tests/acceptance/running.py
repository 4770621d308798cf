"""Starts `orderkeep run` as a real process, on a port and a data directory of its own.

    with start_shop(tmp_path, order_timeout_s=2) as shop:
        shop.put_sku("tea", stock=10)
        with shop.client("ann") as ann:
            ann.post("/orders", ...)
        shop.kill()
        shop.restart()
        assert shop.command("verify").returncode == 0

Nothing here sleeps: every wait is on a condition, with a deadline.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx
import jwt

from tests.servers.own_process import free_port

# Generous: a machine that runs several test runs at once starts Python slowly.
START_S_MAX = 60.0
STOP_S_MAX = 60.0
COMMAND_S_MAX = 60.0
WAIT_S_MAX = 30.0

# How often a condition is looked at.
_LOOK_S = 0.02

_TOKEN_LIFE_S = 3600

T = TypeVar("T")


class ShopNotServingError(Exception):
    """`orderkeep run` ended, or took too long, before it was ready; the text holds its log."""


class RunningShop:
    """One `orderkeep run`, which may be stopped, killed and started again on the same data.

    Attributes:
        url: Where it serves, the same after a restart.
        data_dir: Its data directory.
        process: The process of the latest start.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.data_dir = Path(environment.get("ORDERKEEP_DATA_DIR", folder / "data"))
        self.port = int(environment.get("ORDERKEEP_HTTP_PORT", free_port()))
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = {
            **clean_environment(),
            "ORDERKEEP_DATA_DIR": str(self.data_dir),
            "ORDERKEEP_HTTP_PORT": str(self.port),
            **environment,
        }
        self._log_path = folder / f"run-{self.port}.log"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def database_path(self) -> Path:
        """The SQLite file."""
        return self.data_dir / "orderkeep.db"

    @property
    def secret(self) -> str:
        """What tokens are signed with."""
        given = self.environment.get("ORDERKEEP_JWT_SECRET")
        return given or (self.data_dir / "jwt-secret").read_text().strip()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.kill()

    def restart(self) -> None:
        """Start it (again) and wait until it is ready.

        Raises:
            ShopNotServingError: it is not ready in time.
        """
        self.start()
        try:
            self.wait_until(self._is_ready, "it is ready", within_s=START_S_MAX)
        except BaseException:
            self.kill()
            raise

    def start(self) -> None:
        """Start it (again), and do not wait for it."""
        assert not self.is_alive, "it runs already"
        self.process = self._start_process()

    def stop(self) -> int:
        """Ask it to stop, as a process supervisor would; return its exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_S_MAX)

    def kill(self) -> None:
        """End it the way a power cut would, if it runs."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(STOP_S_MAX)

    @property
    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self.process is not None and self.process.poll() is None

    def token(self, user_id: str, scopes: Sequence[str] = ()) -> str:
        """Return a bearer token that it takes."""
        claims: dict[str, object] = {
            "sub": user_id,
            "aud": "orderkeep",
            "exp": int(_wall_clock_s()) + _TOKEN_LIFE_S,
        }
        if scopes:
            claims["scope"] = " ".join(scopes)
        return jwt.encode(claims, self.secret, algorithm="HS256")

    def client(
        self, user_id: str = "ann", scopes: Sequence[str] = (), *, timeout_s: float = 30.0
    ) -> httpx.Client:
        """Return a client that calls `/api/v1` as the user."""
        return httpx.Client(**self._client_options(user_id, scopes, timeout_s=timeout_s))

    def async_client(
        self, user_id: str = "ann", scopes: Sequence[str] = (), *, timeout_s: float = 30.0
    ) -> httpx.AsyncClient:
        """Return a client that calls `/api/v1` as the user, many requests at once."""
        return httpx.AsyncClient(**self._client_options(user_id, scopes, timeout_s=timeout_s))

    def operator(self) -> httpx.Client:
        """Return a client that may do everything."""
        return self.client("operator", ["operator", "messages"])

    def put_sku(self, sku_id: str, *, stock: int, price: str = "10.00") -> None:
        """Put a new SKU on sale."""
        offer = {"title": f"The {sku_id}", "price": price, "currency": "CNY", "stock": stock}
        with self.operator() as operator:
            answer = operator.put(f"/admin/skus/{sku_id}", json=offer)
        assert answer.status_code == 201, answer.text

    def place_order(self, client: httpx.Client, sku_id: str, *, quantity: int = 1) -> dict:
        """Place an order of one line and return it."""
        token = client.post("/orders/tokens").json()["token"]
        lines = [{"sku_id": sku_id, "quantity": quantity}]
        answer = client.post("/orders", json={"token": token, "items": lines})
        assert answer.status_code == 201, answer.text
        return answer.json()

    def command(
        self, *arguments: str, stdin: str = "", environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run `orderkeep ARGUMENTS` beside it, with the same settings."""
        return run_command(
            *arguments, stdin=stdin, environment={**self.environment, **(environment or {})}
        )

    def command_json(self, *arguments: str) -> Any:
        """Run `orderkeep ARGUMENTS --json` beside it and return the document."""
        done = self.command(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def log_text(self) -> str:
        """Return what it has logged so far, over all starts."""
        return self._log_path.read_text() if self._log_path.exists() else ""

    def log_events(self, name: str | None = None) -> list[dict[str, Any]]:
        """Return its log lines as objects; only those of the event, if one is named."""
        events = [json.loads(line) for line in self.log_text().splitlines() if line[:1] == "{"]
        return [event for event in events if name in {None, event.get("event")}]

    def wait_until(
        self, condition: Callable[[], T | None], what: str, *, within_s: float = WAIT_S_MAX
    ) -> T:
        """Wait until the condition answers something true, and return that.

        Raises:
            ShopNotServingError: the process ended meanwhile.
            TimeoutError: it took too long.
        """
        assert self.process is not None
        give_up_at = time.monotonic() + within_s
        while True:
            answer = condition()
            if answer:
                return answer
            if self.process.poll() is not None:
                message = f"`run` ended with {self.process.returncode}:\n{self.log_text()[-4000:]}"
                raise ShopNotServingError(message)
            if time.monotonic() > give_up_at:
                message = f"not within {within_s} s: {what}\n{self.log_text()[-4000:]}"
                raise TimeoutError(message)
            pause(self.process)

    def _start_process(self) -> "subprocess.Popen[bytes]":
        with self._log_path.open("ab") as log:
            return subprocess.Popen(
                command_line("run"), env=self.environment, stdout=log, stderr=log
            )

    def _is_ready(self, *, within_s: float = START_S_MAX) -> bool:
        # Not with httpx: a client of its own for each look costs more than the look.
        connection = HTTPConnection("127.0.0.1", self.port, timeout=within_s)
        try:
            connection.request("GET", "/health/ready")
            return connection.getresponse().status == HTTPStatus.OK
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()

    def _client_options(
        self, user_id: str, scopes: Sequence[str], *, timeout_s: float
    ) -> dict[str, Any]:
        return {
            "base_url": f"{self.url}/api/v1",
            "headers": {"Authorization": f"Bearer {self.token(user_id, scopes)}"},
            "timeout": timeout_s,
            "trust_env": False,
            "verify": False,  # it speaks plain HTTP: no certificates need be loaded
        }


def start_shop(folder: Path, **environment: object) -> RunningShop:
    """Start `orderkeep run` with its data in the folder, and wait until it is ready.

    Args:
        folder: Of this test alone, such as `tmp_path`.
        environment: Settings; `order_timeout_s=2` is ORDERKEEP_ORDER_TIMEOUT_S=2.
    """
    settings = variables(**environment)
    while True:
        shop = RunningShop(folder, settings)
        try:
            shop.restart()
        except ShopNotServingError as error:
            # Between finding a free port and taking it, another process may have taken it.
            if "ORDERKEEP_HTTP_PORT" in settings or "is in use" not in str(error):
                raise
        else:
            return shop


def variables(**settings: object) -> dict[str, str]:
    """Return settings as environment variables; names may lack the prefix and be lower case."""
    return {
        f"ORDERKEEP_{name.upper().removeprefix('ORDERKEEP_')}": str(value)
        for name, value in settings.items()
    }


def clean_environment() -> dict[str, str]:
    """Return this process's environment without settings of Orderkeep or of terminals."""
    unwanted = {"COLUMNS", "FORCE_COLOR", "NO_COLOR", "GITHUB_ACTIONS", "PY_COLORS"}
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("ORDERKEEP_") and name not in unwanted
    }


def command_line(*arguments: str) -> list[str]:
    """Return how to start `orderkeep ARGUMENTS` with the code that is tested."""
    return [sys.executable, "-m", "orderkeep", *arguments]


def run_command(
    *arguments: str, environment: Mapping[str, str], stdin: str = "", cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `orderkeep ARGUMENTS` to its end.

    Args:
        arguments: As a person types them.
        environment: All of it, or only settings: those are added to a clean one.
        stdin: What is typed; the end of it is the end of the input.
        cwd: Where it runs; None is here.
    """
    return subprocess.run(
        command_line(*arguments),
        env={**clean_environment(), **environment},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=COMMAND_S_MAX,
        check=False,
        cwd=cwd,
    )


def pause(process: subprocess.Popen[bytes]) -> None:
    """Wait a moment, shorter if the process ends."""
    try:
        process.wait(_LOOK_S)
    except subprocess.TimeoutExpired:
        return


def _wall_clock_s() -> float:
    return time.time()  # noqa: TID251 (a token is dated by the machine that issues it)
