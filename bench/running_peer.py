"""The FastAPI shop as a benchmark runs it: its tables, its processes, its books."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pika

from bench.books import WrongBooksError
from bench.figures import SkippedError
from bench.own_command import answers_ready, free_port, running_program
from bench.running_shop import RunningProcesses
from bench.stage import JWT_SECRET, STOCK_OF_EACH, sku_ids
from tests.servers.postgresql import PostgresServer

_ROOT = Path(__file__).parents[1]
_PYTHON = _ROOT / "build" / "bench-venv" / "bin" / "python"

_PACKAGE = "bench.peers.celery_shop"

# Where a delay of thirty minutes begins: the queue of its highest bit, of 1024 seconds.
_HOLD_QUEUE = "celery_delayed_10"

_TASKS_PER_ORDER = 2

_ROWS = """
SELECT
    (SELECT count(*) FROM orders WHERE status = 'pending_payment' AND version = 1) AS orders,
    (SELECT count(*) FROM idempotency_keys) AS requests,
    (SELECT count(*) FROM order_history) AS history,
    (SELECT count(*) FROM order_lines) AS lines,
    (SELECT count(*) FROM outbox) AS events,
    (
        SELECT count(*) FROM stock
        LEFT JOIN (
            SELECT sku_id, sum(quantity) AS ordered FROM order_lines GROUP BY sku_id
        ) AS lines USING (sku_id)
        WHERE reserved <> coalesce(ordered, 0)
    ) AS wrong_stock
"""


def require_peer() -> None:
    """Check that the peer's environment is there.

    Raises:
        SkippedError: it is not.
    """
    if not _PYTHON.exists():
        message = "the environment of bench/peers is missing: `make bench` makes it"
        raise SkippedError(message)


def peer_versions() -> str:
    """Return what the peer is made of."""
    names = ("fastapi", "uvicorn", "sqlalchemy", "psycopg", "celery")
    program = (
        "from importlib.metadata import version;"
        f"print(*(f'{{name}} {{version(name)}}' for name in {names}), sep=', ')"
    )
    return _run(["-c", program], environment=dict(os.environ))


def make_tables(database_url: str) -> None:
    """Make the peer's tables in an empty database, with the same SKUs on sale as ours."""
    _run(
        ["-m", f"{_PACKAGE}.schema"],
        environment=_environment(database_url, broker_url=""),
        standard_input=json.dumps({"sku_ids": list(sku_ids()), "stock_of_each": STOCK_OF_EACH}),
    )


@contextmanager
def running_peer(
    folder: Path, *, database_url: str, broker_url: str, has_outbox: bool
) -> Iterator[RunningProcesses]:
    """Run the web, the worker, and the relay if there is an outbox, until the context ends.

    Args:
        folder: Takes their logs.
        database_url: Of a database with the peer's tables.
        broker_url: Of a virtual host of its own.
        has_outbox: Tasks are written with the order, and published by the relay.
    """
    port = free_port()
    ready_path = folder / "worker-is-ready"
    environment = {
        **_environment(database_url, broker_url=broker_url),
        "PEER_HAS_OUTBOX": str(int(has_outbox)),
        "PEER_READY_PATH": str(ready_path),
    }
    programs: dict[str, tuple[list[str], Callable[[], bool]]] = {
        # The worker first: it makes the queues.
        "worker": (
            ["-m", "celery", "-A", f"{_PACKAGE}.tasks", "worker", "--loglevel=WARNING"],
            ready_path.exists,
        ),
        "web": (
            [
                *("-m", "uvicorn", f"{_PACKAGE}.web:app", "--workers=1", f"--port={port}"),
                *("--no-access-log", "--log-level=warning"),
            ],
            lambda: answers_ready(port),
        ),
    }
    if has_outbox:
        programs["relay"] = (["-m", f"{_PACKAGE}.relay"], lambda: True)
    with ExitStack() as stack:
        checks = [
            stack.enter_context(
                running_program(
                    [str(_PYTHON), *arguments],
                    is_ready=is_ready,
                    environment=environment,
                    log_path=folder / f"{name}.log",
                )
            ).check
            for name, (arguments, is_ready) in programs.items()
        ]

        def check() -> None:
            for one in checks:
                one()

        yield RunningProcesses(port=port, check=check)


def check_peer(
    server: PostgresServer,
    name: str,
    *,
    broker_url: str,
    order_count: int,
    line_count: int,
    has_outbox: bool,
) -> None:
    """Check that the peer's database and queues hold what so many orders leave, and nothing else.

    Raises:
        WrongBooksError: they do not.
    """
    expected = {
        "orders": order_count,
        "requests": order_count,
        "history": order_count,
        "lines": line_count * order_count,
        "events": _TASKS_PER_ORDER * order_count if has_outbox else 0,
        "wrong_stock": 0,
    }
    (found,) = server.query(_ROWS, database=name)
    if found != expected:
        message = f"expected {expected}, found {found}"
        raise WrongBooksError(message)
    if has_outbox:
        (sent,) = server.query(
            "SELECT count(*) FROM outbox WHERE sent_at IS NOT NULL AND due_at IS NOT NULL",
            database=name,
        )
        held_count_min = sent["count"]
    else:
        held_count_min = order_count
    held_count = _held_count(broker_url)
    if held_count < held_count_min:
        message = f"the broker holds {held_count} of {held_count_min} orders that are to be closed"
        raise WrongBooksError(message)


def _held_count(broker_url: str) -> int:
    with pika.BlockingConnection(pika.URLParameters(broker_url)) as connection:
        declared = connection.channel().queue_declare(_HOLD_QUEUE, passive=True)
        count: int = declared.method.message_count
        return count


def _environment(database_url: str, *, broker_url: str) -> dict[str, str]:
    return {
        **os.environ,
        # Of the ORM, with the driver that its pages name for new projects.
        "PEER_DATABASE_URL": database_url.replace("postgresql://", "postgresql+psycopg://", 1),
        "PEER_BROKER_URL": broker_url,
        "PEER_JWT_SECRET": JWT_SECRET,
    }


def _run(
    arguments: list[str], *, environment: dict[str, str], standard_input: str | None = None
) -> str:
    finished = subprocess.run(  # noqa: S603 (our own programs)
        [str(_PYTHON), *arguments],
        cwd=_ROOT,
        env=environment,
        input=standard_input,
        capture_output=True,
        text=True,
        check=False,
    )
    if finished.returncode:
        message = f"the peer failed:\n{finished.stderr[-2000:]}"
        raise RuntimeError(message)
    return finished.stdout.strip()
