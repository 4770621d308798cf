"""A shop of real processes on servers of its own, with everybody who uses, breaks and watches it.

with opened_shop(servers, part, seed=7) as shop:
    ...
    shop.supervisor.settle()
"""

import os
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.context import ForkServerContext
from pathlib import Path

from tests.acceptance.fleet import Fleet, fleet_settings
from tests.acceptance.fleet_books import FleetBooks
from tests.acceptance.fleet_journal import FleetJournal
from tests.acceptance.fleet_load import RacingLoad, put_skus
from tests.acceptance.fleet_observer import Observer
from tests.acceptance.forked_run import origin_of_runs
from tests.acceptance.webhook_receiver import SECRET, WebhookReceiver, listening
from tests.faults.disk import limited_disk
from tests.faults.operators import Operators
from tests.faults.schedule import LifeSpan, draw_lives
from tests.faults.supervisor import ForkedMember, Supervisor, Ward
from tests.faults.watcher import StockWatcher
from tests.servers.fault_proxy import ProxyThread
from tests.servers.own_process import wait_until
from tests.servers.postgresql import PrivatePostgresServer, start_private_postgresql
from tests.servers.rabbitmq import PrivateRabbitServer, start_private_rabbitmq

# A payment is recorded after about half of it in the middle, so that either may win.
_CANCEL_DELAY_S_MAX = 1.0

# On a disk of limited size, old write-ahead log must go soon.
_POSTGRESQL = {"max_wal_size": "96MB", "min_wal_size": "32MB", "checkpoint_timeout": "60s"}

_OPENING_S_MAX = 120.0

_FOREVER = LifeSpan(is_armed=False, at_least_s=1e9, at_most_s=1e9)


class NotMadeError(Exception):
    """A fault could not be made; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """What every part stands on.

    Attributes:
        folder: Of the run.
        disk: Where the database's server has its data, if that is a disk of limited size.
        origin: What processes are forked from.
    """

    folder: Path
    postgresql: PrivatePostgresServer
    rabbitmq: PrivateRabbitServer
    disk: Path | None
    origin: ForkServerContext


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What is done in one part of the programme.

    Attributes:
        minutes: How long faults are made in a full run.
        span: How long processes live; None lets them live.
        spared_serve_count: So many that serve live until the end: who gets over what is done to the
            servers by being started again has not got over it.
        order_timeout_s: Short, so that closings race with payments and cancellations; but somebody
            must get to pay in time.
        lanes: By name the kinds of faults and how often each comes.
        pauses: By lane the longest pause before a fault, in seconds.
        settings: Of the shop, besides the usual ones.
        has_webhooks: Whether somebody receives webhooks.
    """

    name: str
    minutes: float
    says: str
    span: LifeSpan | None = None
    spared_serve_count: int = 0
    order_timeout_s: float = 3.0
    lanes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    pauses: Mapping[str, float] = field(default_factory=dict)
    settings: Mapping[str, object] = field(default_factory=dict)
    serve_count: int = 2
    work_count: int = 3
    shoppers_count: int = 30
    has_webhooks: bool = True


@contextmanager
def own_servers(folder: Path) -> Iterator[Servers]:
    """Start servers for the programme; they end with the context."""
    with (
        limited_disk(folder / "postgresql") as disk,
        origin_of_runs("tests.faults.programme") as origin,
    ):
        postgresql = start_private_postgresql(folder / "postgresql", settings=_POSTGRESQL)
        rabbitmq = start_private_rabbitmq(folder / "rabbitmq")
        try:
            yield Servers(
                folder=folder, postgresql=postgresql, rabbitmq=rabbitmq, disk=disk, origin=origin
            )
        finally:
            postgresql.kill()
            rabbitmq.kill()


@dataclass(slots=True, kw_only=True)
class Shop:
    """Everybody who is there.

    Attributes:
        database_way: Between the processes and PostgreSQL.
        broker_way: Between the processes and RabbitMQ.
        done_counts: How often each kind of fault was made.
        recoveries_s: What was measured, by what it is.
        planted: The messages that must be set aside in the end, by their id.
        wiped_ids: Those of them that may have lain in a broker that was wiped.
        receiver: Of webhooks.
        wrong: What went wrong while something was done to the shop.
        seconds: How long faults are made.
        is_over: Set when no further fault is to be begun.
    """

    servers: Servers
    part: Part
    database: str
    fleet: Fleet
    books: FleetBooks
    database_way: ProxyThread
    broker_way: ProxyThread
    supervisor: Supervisor
    observer: Observer
    watcher: StockWatcher
    load: RacingLoad
    operators: Operators
    done_counts: Counter[str] = field(default_factory=Counter)
    recoveries_s: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    planted: dict[str, str] = field(default_factory=dict)
    wiped_ids: set[str] = field(default_factory=set)
    receiver: WebhookReceiver | None = None
    wrong: list[str] = field(default_factory=list)
    is_over: threading.Event = field(default_factory=threading.Event)
    seconds: float = 0.0
    started_s: float = field(default_factory=time.monotonic)

    @property
    def journal(self) -> FleetJournal:
        """What the buyers asked for and were told."""
        return self.load.journal


@contextmanager
def opened_shop(servers: Servers, part: Part, *, seed: int) -> Iterator[Shop]:
    """Open a shop on a new database and an empty broker, with its crowd and its watchers.

    The processes live their lives from the start of the context on, when the first buyers have paid
    and cancelled.
    """
    database = f"faults-{part.name}-{os.getpid()}-{time.monotonic_ns()}"
    folder = servers.folder / database
    folder.mkdir()
    servers.postgresql.create_database(database)
    direct_url = servers.postgresql.url(database)
    with ExitStack() as stack:
        receiver = stack.enter_context(listening()) if part.has_webhooks else None
        database_way = stack.enter_context(ProxyThread(direct_url, name="database"))
        broker_way = stack.enter_context(ProxyThread(servers.rabbitmq.url(), name="broker"))
        observer = stack.enter_context(Observer.of_order_events([servers.rabbitmq.url()]))
        fleet_environment = fleet_settings(
            database_url=database_way.url,
            broker_urls=[broker_way.url],
            **_settings(part, receiver),
        )
        fleet = stack.enter_context(
            Fleet(
                folder, fleet_environment, make_member=partial(ForkedMember, origin=servers.origin)
            )
        )
        fleet.start_together(serve_count=part.serve_count, work_count=part.work_count)
        put_skus(fleet.front)
        watcher = stack.enter_context(StockWatcher(direct_url))
        load = _buyers(fleet, part, seed=seed)
        operators = Operators(fleet.fronts, load.journal, seed=seed)
        stack.enter_context(load)
        stack.enter_context(operators)
        wait_until(
            lambda: bool(load.journal.paid_nos) and bool(load.journal.cancelled_nos),
            "somebody has paid and somebody has cancelled",
            within_s=_OPENING_S_MAX,
        )
        supervisor = stack.enter_context(Supervisor(_wards(fleet, part, seed=seed)))
        yield Shop(
            servers=servers,
            part=part,
            database=database,
            fleet=fleet,
            books=FleetBooks(direct_url),
            database_way=database_way,
            broker_way=broker_way,
            supervisor=supervisor,
            observer=observer,
            watcher=watcher,
            load=load,
            operators=operators,
            receiver=receiver,
        )


def _settings(part: Part, receiver: WebhookReceiver | None) -> dict[str, object]:
    """Return the settings of a part's shop, besides where its servers are."""
    settings: dict[str, object] = {
        "order_timeout_s": part.order_timeout_s,
        "sweep_interval_s": 1,
        "sweep_grace_s": 1,
        "log_format": "json",
        **part.settings,
    }
    if receiver is not None:
        settings |= {"webhook_urls": receiver.url, "webhook_secrets": SECRET}
    return settings


def _buyers(fleet: Fleet, part: Part, *, seed: int) -> RacingLoad:
    """Return buyers who are not in yet, and who expect that some requests get no answer."""
    return RacingLoad(
        fleet.fronts,
        seed=seed,
        order_timeout_s=part.order_timeout_s,
        shoppers_count=part.shoppers_count,
        journal=FleetJournal(is_silence_expected=True),
        extension_s=float(str(part.settings.get("payment_extension_s", 0.0))),
        cancel_delay_s_max=_CANCEL_DELAY_S_MAX,
        wants_scarce=True,
    )


def _wards(fleet: Fleet, part: Part, *, seed: int) -> list[Ward]:
    wards = []
    spared = fleet.fronts[: part.spared_serve_count]
    for number, member in enumerate(fleet.members):
        assert isinstance(member, ForkedMember)
        lives = draw_lives(
            seed,
            f"{part.name} {member.role} {number}",
            role=member.role,
            span=_FOREVER if part.span is None or member in spared else part.span,
        )
        wards.append(Ward(member, lives))
    return wards
