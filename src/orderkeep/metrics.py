"""The numbers that Prometheus reads; their names are in the contract and never change.

Counters and histograms count what this process does. Gauges are read from the database at each
scrape, so they are right whichever process is asked, and right after a restart.
"""

from collections.abc import Callable, Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from orderkeep.messaging.settling import MessageOutcome
from orderkeep.status import Status

# From a commit of a millisecond to a broker that stalls.
_CONFIRM_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

# From the precise trigger to an order that only the sweep found.
_LAG_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)


class Metrics:
    """Every number of one process."""

    def __init__(self) -> None:
        """Begin to count in a registry of this object's own."""
        self.registry = CollectorRegistry()
        # Memory, open files and when the process began, by the names that everybody has them under.
        ProcessCollector(registry=self.registry)
        self._orders = self._counter("orderkeep_orders", "Order events, by type.", "event")
        self._messages = self._counter(
            "orderkeep_messages", "Messages settled, by queue and outcome.", "queue", "outcome"
        )
        self._sweep_closed = self._counter(
            "orderkeep_sweep_closed", "Orders that the sweep closed because no message had."
        )
        self._confirm = Histogram(
            "orderkeep_dispatch_confirm_seconds",
            "From publishing a batch to its last confirm.",
            buckets=_CONFIRM_BUCKETS_S,
            registry=self.registry,
        )
        self._close_lag = Histogram(
            "orderkeep_close_lag_seconds",
            "From an order's deadline to its closing.",
            buckets=_LAG_BUCKETS_S,
            registry=self.registry,
        )
        self._outbox_pending = self._gauge(
            "orderkeep_outbox_pending", "Outbox rows not sent yet.", "outbox"
        )
        self._outbox_oldest = self._gauge(
            "orderkeep_outbox_oldest_seconds", "Age of the oldest row that may go.", "outbox"
        )
        self._outbox_failed = self._gauge(
            "orderkeep_outbox_failed", "Outbox rows parked after too many refusals.", "outbox"
        )
        self._dead_letters = self._gauge(
            "orderkeep_dead_letters", "Dead letters that nobody has settled.", "queue"
        )
        self._overdue = self._gauge(
            "orderkeep_overdue_orders", "Unpaid orders past deadline, grace and sweep."
        )
        self._cases = self._gauge(
            "orderkeep_payment_cases_open", "Payments that wait for a person."
        )
        self._refunds = self._gauge("orderkeep_refunds_open", "Refunds asked for and not ended.")
        self._refunds_failed = self._gauge(
            "orderkeep_refunds_failed", "Refunds that were not carried out."
        )

        self._resent = self._counter(
            "orderkeep_events_resent",
            "Events that a broker had confirmed, and that were sent again, by queue.",
            "queue",
        )
        self._missing = self._gauge(
            "orderkeep_events_missing",
            "Sent events that their consumer did not have at this process's last look, by queue.",
            "queue",
        )

        self._answers = self._counter(
            "orderkeep_http_answers", "Answers over HTTP, by status.", "status"
        )
        self._answers_by_status: dict[int, Counter] = {}
        self._in_hand = self._gauge(
            "orderkeep_http_requests_in_hand", "Requests that this process is working on."
        )

        self._checks = self._gauge(
            "orderkeep_check_ok", "1 if what readiness asks is in order, else 0.", "check"
        )

    def show_checks(self, are_ok: Mapping[str, bool]) -> None:
        """Show what each check of readiness has found."""
        for name, is_ok in are_ok.items():
            self._checks.labels(name).set(is_ok)

    def count_answer(self, status: int) -> None:
        """Count one answer over HTTP."""
        counter = self._answers_by_status.get(status)
        if counter is None:
            counter = self._answers_by_status[status] = self._answers.labels(str(status))
        counter.inc()

    def watch_in_hand(self, count_in_hand: Callable[[], int]) -> None:
        """Ask for the number of requests in hand at each scrape."""
        self._in_hand.set_function(count_in_hand)

    def note_missing(self, queue: str, *, missing_count: int, resent_count: int) -> None:
        """Note what a look after sent events has found."""
        self._missing.labels(queue).set(missing_count)
        self._resent.labels(queue).inc(resent_count)

    def count_order_event(self, event_type: str) -> None:
        """Count one order event."""
        self._orders.labels(event_type).inc()

    def count_messages(self, queue: str, outcome: MessageOutcome, count: int) -> None:
        """Count settled messages of a queue."""
        self._messages.labels(queue, outcome.value).inc(count)

    def count_swept(self, order_count: int) -> None:
        """Count orders that a sweep closed."""
        self._sweep_closed.inc(order_count)

    def observe_confirm_s(self, seconds: float) -> None:
        """Note how long one batch took to be confirmed."""
        self._confirm.observe(seconds)

    def observe_close_lag_s(self, seconds: Sequence[float]) -> None:
        """Note by how much closings came after their deadlines."""
        for lag_s in seconds:
            self._close_lag.observe(lag_s)

    def show(self, status: Status) -> None:
        """Set every gauge to what the database says now."""
        for outbox in status.outboxes:
            self._outbox_pending.labels(outbox.outbox).set(outbox.pending)
            self._outbox_oldest.labels(outbox.outbox).set(outbox.oldest_pending_s)
            self._outbox_failed.labels(outbox.outbox).set(outbox.failed)
        # A queue whose last letter was settled must not stay at its old number.
        self._dead_letters.clear()
        for queue, count in status.dead_letters.items():
            self._dead_letters.labels(queue).set(count)
        self._overdue.set(status.overdue_orders)
        self._cases.set(status.payment_cases_open)
        self._refunds.set(status.refunds_open)
        self._refunds_failed.set(status.refunds_failed)

    def _counter(self, name: str, documentation: str, *labels: str) -> Counter:
        return Counter(name, documentation, labels, registry=self.registry)

    def _gauge(self, name: str, documentation: str, *labels: str) -> Gauge:
        return Gauge(name, documentation, labels, registry=self.registry)
