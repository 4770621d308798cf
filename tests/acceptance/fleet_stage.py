"""What the long programmes of the fleet share: a fleet on servers of its own, and how they report.

with stage_on(postgresql, [rabbitmq], folder, name="outage") as stage:
    with stage.racing_load(seed=7) as load: ...
    stage.finish(report, load.journal)
"""

import shutil
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from tests.acceptance.fleet import Fleet, fleet_settings
from tests.acceptance.fleet_books import FleetBooks
from tests.acceptance.fleet_journal import FleetJournal, Outcome
from tests.acceptance.fleet_load import RacingLoad, put_skus
from tests.acceptance.fleet_observer import Observer
from tests.acceptance.fleet_verdict import find_wrong, rest, settle_unknown
from tests.servers.postgresql import PrivatePostgresServer
from tests.servers.rabbitmq import PrivateRabbitServer

# Short, so that closings race with payments and cancellations.
ORDER_TIMEOUT_S = 3.0

REST_S_MAX = 180.0

_PROGRESS_S = 10.0
_ERRORS_SHOWN_MAX = 5

_pause = threading.Event()

Place = TypeVar("Place")


@dataclass(slots=True, kw_only=True)
class Report:
    """What one part came to; `wrong` is empty when all is well."""

    name: str
    started_s: float = field(default_factory=time.monotonic)
    elapsed_s: float = 0.0
    lines: list[tuple[str, object]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def add(self, name: str, value: object) -> None:
        """Add a line to the table."""
        self.lines.append((name, value))

    def measure(self, name: str, seconds: float, *, at_most_s: float) -> None:
        """Add a duration to the table; it is wrong if it is longer than it may be."""
        self.add(f"{name} (at most {at_most_s:g} s)", f"{seconds:.2f} s")
        if seconds > at_most_s:
            self.wrong.append(f"{name} took {seconds:.2f} s")

    def close(self) -> None:
        """Note how long it took."""
        self.elapsed_s = time.monotonic() - self.started_s

    def table(self) -> str:
        """Return the report for a person."""
        verdict = "wrong" if self.wrong else "clean"
        rows = [
            *self.lines,
            ("elapsed", f"{self.elapsed_s:.0f} s"),
            ("verdict", verdict),
        ]
        text = [f"== {self.name}", *(f"{name:<66}{value}" for name, value in rows)]
        return "\n".join([*text, *(f"WRONG: {it}" for it in self.wrong)])


class Stage:
    """A fleet with who watches it.

    Attributes:
        books: Its database.
        observer: Sees what arrives at `order.events`.
    """

    def __init__(self, fleet: Fleet, books: FleetBooks, observer: Observer, *, name: str) -> None:
        self.fleet = fleet
        self.books = books
        self.observer = observer
        self.name = name

    @property
    def postgresql_port(self) -> int:
        """Where the database's server listens."""
        port = urlsplit(self.fleet.settings["ORDERKEEP_DATABASE_URL"]).port
        assert port is not None
        return port

    def racing_load(self, *, seed: int, shoppers_count: int = 40) -> RacingLoad:
        """Return shoppers who are not in yet; what they want is on sale."""
        put_skus(self.fleet.front)
        return RacingLoad(
            self.fleet.fronts,
            seed=seed,
            order_timeout_s=ORDER_TIMEOUT_S,
            shoppers_count=shoppers_count,
        )

    def let_pass(self, seconds: float, *, tell: Callable[[], str]) -> None:
        """Let so much time pass, and show every so often how things are."""
        over_at_s = time.monotonic() + seconds
        while (left_s := over_at_s - time.monotonic()) > 0:
            _pause.wait(min(left_s, _PROGRESS_S))
            say(f"{self.name}: {max(over_at_s - time.monotonic(), 0.0):.0f} s left, {tell()}")

    def finish(self, report: Report, journal: FleetJournal | None = None) -> None:
        """Bring the fleet to rest after its load, and note what was done and what is wrong."""
        say(f"{self.name}: coming to rest")
        if journal is not None:
            self._finish_journal(report, journal)
        try:
            rested_s = rest(self.books, self.observer, within_s=REST_S_MAX, tell=self._tell)
            report.add("at rest after", f"{rested_s:.1f} s")
        except TimeoutError as error:
            report.wrong.append(str(error))
        statuses = self.books.rows(
            "select status, count(*) from orders group by status order by 2 desc"
        )
        report.add("orders by status", ", ".join(f"{name} {count}" for name, count in statuses))
        report.add("... closed by the sweep, not by a message", self.books.swept_count())
        report.add("events that arrived at the observer", len(self.observer.message_ids()))
        report.add("... late copies", len(self.observer.doubles()))
        for line in self.fleet.errors()[:_ERRORS_SHOWN_MAX]:
            say(f"{self.name}: logged {line}")
        report.add("lines logged as errors", self.fleet.error_counts().total())
        report.wrong += find_wrong(self.fleet, self.books, self.observer, journal=journal)

    def _tell(self, under_way: Mapping[str, int]) -> None:
        say(f"{self.name}: under way {dict(under_way)}")

    def _finish_journal(self, report: Report, journal: FleetJournal) -> None:
        """Ask again for what nobody knows, and note what clients were told."""
        open_count = len(journal.with_outcome(Outcome.UNKNOWN))
        settled, wrong = settle_unknown(self.fleet.fronts, journal, self.books)
        report.add("requests", journal.total())
        report.add("orders asked for, by key", len(journal.orders))
        report.add("... accepted in the end", len(journal.with_outcome(Outcome.ACCEPTED)))
        report.add("... refused", len(journal.with_outcome(Outcome.REFUSED)))
        report.add("... without a verdict at first", open_count)
        report.add("....... which had been made", settled.made_count)
        report.add("....... which were made when asked again", settled.made_now_count)
        report.add("....... which were refused then", settled.refused_count)
        for step, counts in journal.answers.items():
            answers = ", ".join(f"{code} {count}" for code, count in counts.most_common())
            report.add(f"answers to `{step}`", answers)
        report.wrong += wrong
        report.wrong += journal.wrong


@contextmanager
def stage_on(
    postgresql: PrivatePostgresServer,
    brokers: Sequence[PrivateRabbitServer],
    folder: Path,
    *,
    name: str,
    serve_count: int = 2,
    work_count: int = 2,
) -> Iterator[Stage]:
    """Start a fleet on a new database and a new virtual host.

    Args:
        brokers: The nodes of one cluster, or one alone.
        folder: Of this stage alone: the logs of the processes.
    """
    say(f"{name}: starting {serve_count} serve and {work_count} work")
    folder.mkdir()
    postgresql.create_database(name)
    brokers[0].create_vhost(name)
    settings = fleet_settings(
        database_url=postgresql.url(name),
        broker_urls=[broker.url(name) for broker in brokers],
        order_timeout_s=ORDER_TIMEOUT_S,
        sweep_interval_s=2,
        sweep_grace_s=2,
        log_format="json",
    )
    with (
        Observer.of_order_events([broker.url(name) for broker in brokers]) as observer,
        Fleet(folder, settings) as fleet,
    ):
        fleet.start_together(serve_count=serve_count, work_count=work_count)
        yield Stage(fleet, FleetBooks(postgresql.url(name)), observer, name=name)


def say(text: str) -> None:
    """Show how far it is."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stderr.flush()


@contextmanager
def work_folder(prefix: str) -> Iterator[Path]:
    """Give a new folder; it is removed if all goes well, and else named: there are the logs."""
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    try:
        yield folder
    except BaseException:
        say(f"the logs are in {folder}")
        raise
    shutil.rmtree(folder, ignore_errors=True)


def show(part: Callable[[Place, Report], None], place: Place, *, name: str) -> Report:
    """Run a part, print its report, and return it; a part that breaks is a part that is wrong."""
    report = Report(name=name)
    try:
        part(place, report)
    except Exception as error:  # noqa: BLE001 (the other parts have something to tell as well)
        report.wrong.append(f"it broke: {error!r}")
        say("".join(traceback.format_exception(error)))
    report.close()
    sys.stdout.write(f"{report.table()}\n\n")
    sys.stdout.flush()
    return report
