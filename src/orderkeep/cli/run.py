"""`orderkeep run`, `serve` and `work`: the processes, until a signal ends them.

The first SIGTERM or SIGINT lets what is in hand finish; the second ends the process at once, which
loses nothing either.
"""

import os
import signal
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated

import typer

from orderkeep.cli.environment import read_settings
from orderkeep.cli.exits import ExitCode, WrongUsageError, exit_code_of
from orderkeep.cli.terminal import examples

if TYPE_CHECKING:
    import asyncio

    from orderkeep.settings import Settings

app = typer.Typer()


@app.command(
    rich_help_panel="Serve",
    epilog=examples(
        "orderkeep run",
        "ORDERKEEP_HTTP_PORT=9000 ORDERKEEP_DATA_DIR=./data orderkeep run",
    ),
)
def run() -> None:
    """Run the whole service: HTTP, queues, cart and payment, in one process.

    By default everything is kept in a SQLite file in ./orderkeep-data, which is made if missing.
    SIGTERM or Ctrl-C ends it once what is in hand is finished; a second one ends it at once.
    """
    from orderkeep.wiring.processes import run_everything

    async def start(settings: "Settings", stop: "asyncio.Event") -> None:
        import asyncio

        hints: list[asyncio.Task[None]] = []

        def announce(url: str) -> None:
            _announce_serving(settings, url)
            hints.append(asyncio.create_task(_hint_how_to_begin(settings)))

        try:
            await run_everything(settings, stop=stop, announce=announce)
        finally:
            await _end_hints(hints)

    _run_until_told(start)


@app.command(
    rich_help_panel="Serve",
    epilog=examples(
        "ORDERKEEP_DATABASE_URL=postgresql://orderkeep@db/orderkeep orderkeep serve",
    ),
)
def serve() -> None:
    """Answer HTTP, and nothing else; `orderkeep work` does the rest. Not on SQLite.

    Any number may run beside each other, with the same ORDERKEEP_JWT_SECRET.
    SIGTERM or Ctrl-C ends it once what is in hand is finished; a second one ends it at once.
    """
    from orderkeep.wiring.processes import run_serve

    async def start(settings: "Settings", stop: "asyncio.Event") -> None:
        await run_serve(settings, stop=stop, announce=lambda url: _announce_serving(settings, url))

    _run_until_told(start)


@app.command(
    rich_help_panel="Serve",
    epilog=examples(
        "orderkeep work",
        "orderkeep work --only dispatchers,sweep",
        "orderkeep work --only payment.success.notify",
    ),
)
def work(
    *,
    only: Annotated[
        str | None,
        typer.Option(
            "--only",
            metavar="NAME[,NAME]",
            help="Some of what it does: dispatchers, consumers, retention, reconciliation, sweep,"
            " webhooks, refunds, or a single loop such as order-dispatcher or the name of a queue.",
        ),
    ] = None,
) -> None:
    """Send what the outboxes hold, read the queues, sweep; answer only health and metrics.

    Any number may run beside each other. Not on SQLite, where `orderkeep run` does everything.
    SIGTERM or Ctrl-C ends it once what is in hand is finished; a second one ends it at once.
    """
    from orderkeep.wiring.processes import run_work

    names = tuple(name.strip() for name in (only or "").split(",") if name.strip())
    if only is not None and not names:
        message = f"--only {only!r} names nothing; leave it out to do everything"
        raise WrongUsageError(message)

    async def start(settings: "Settings", stop: "asyncio.Event") -> None:
        import structlog

        def announce(url: str) -> None:
            structlog.get_logger().info("working", health=f"{url}/health/ready")

        await run_work(settings, only=names, stop=stop, announce=announce)

    _run_until_told(start)


def _run_until_told(start: "Callable[[Settings, asyncio.Event], Awaitable[None]]") -> None:
    """Run the process with the settings of the environment until a signal ends it."""
    import asyncio

    import structlog

    from orderkeep.logs import configure_logging

    settings = read_settings()
    configure_logging(settings.log_level, log_format=settings.log_format)

    async def run() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, _stop_or_end, stop, number)
        await start(settings, stop)
        structlog.get_logger().info("stopped")

    try:
        with asyncio.Runner(loop_factory=_find_loop_factory()) as runner:
            runner.run(run())
    except Exception as error:
        if exit_code_of(error) is ExitCode.BUG:
            # Nobody may be looking, and it may never happen again: the traceback is kept.
            structlog.get_logger().critical("run_failed", exc_info=True)
        raise


def _find_loop_factory() -> "Callable[[], asyncio.AbstractEventLoop] | None":
    """Return the quicker event loop where there is one, or None for Python's own."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _announce_serving(settings: "Settings", url: str) -> None:
    import structlog

    where = {"data_dir": str(settings.data_dir)} if settings.is_embedded else {}
    structlog.get_logger().info("serving", url=url, docs=f"{url}/docs", **where)


def _stop_or_end(stop: "asyncio.Event", number: signal.Signals) -> None:
    if stop.is_set():
        # At once, and so that whoever waits sees the signal: no handler, no goodbye.
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    stop.set()


async def _end_hints(hints: "list[asyncio.Task[None]]") -> None:
    import asyncio

    import structlog

    for hint in hints:
        hint.cancel()
    for outcome in await asyncio.gather(*hints, return_exceptions=True):
        if isinstance(outcome, Exception):
            structlog.get_logger().error("hint_failed", exc_info=outcome)


async def _hint_how_to_begin(settings: "Settings") -> None:
    """Log how to begin, if nothing is for sale yet."""
    import structlog

    from orderkeep.database.transaction import StoreUnavailableError
    from orderkeep.orders.catalogue_desk import CatalogueDesk
    from orderkeep.wiring.storage import open_database

    log = structlog.get_logger()
    if "orders" not in settings.services:
        return
    database = open_database(settings)
    try:
        if not await CatalogueDesk(database=database).list_active(after="", limit_count=1):
            log.info(
                "nothing_for_sale_yet",
                fill_catalogue="orderkeep skus import examples/skus.csv",
                or_let_shoppers_in="orderkeep demo",
            )
    except StoreUnavailableError as error:
        log.warning("catalogue_unreadable", error=str(error))
    finally:
        await database.close()
