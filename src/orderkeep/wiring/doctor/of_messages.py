"""What to think of what waits in the database: events, dead letters, cases, late orders. PURE."""

from collections.abc import Iterator

from orderkeep.status import Status
from orderkeep.wiring.doctor.examination import Examination, counted, fine, warning


def examine_messages(status: Status, *, outbox_age_s_max: float) -> Iterator[Examination]:
    """Yield what waits for a person, or for longer than it should.

    Args:
        status: As `orderkeep status` reads it.
        outbox_age_s_max: How long an event that may go is to wait at most.
    """
    for outbox in status.outboxes:
        name, subject = "messages.outbox", outbox.outbox
        if outbox.failed:
            yield warning(
                name,
                f"{counted(outbox.failed, 'event')} are parked: the broker refused them again and"
                " again, and later ones of the same orders wait behind them",
                subject=subject,
                remedy="`orderkeep outbox list --state failed` says why; then `orderkeep outbox"
                " retry` or `discard`",
            )
        if outbox.oldest_pending_s > outbox_age_s_max:
            yield warning(
                name,
                f"an event that may go has waited for {outbox.oldest_pending_s:.0f} s, with"
                f" {outbox.pending - 1} more pending",
                subject=subject,
                remedy="start `orderkeep work` (or `run`); if it runs, its log says `route_down`"
                " or `consumer_paused`, and why",
            )
        if not outbox.failed and outbox.oldest_pending_s <= outbox_age_s_max:
            yield fine(name, f"{outbox.pending} pending, none parked", subject=subject)
    yield from _dead_letters(status)
    yield from _orders_and_money(status)


def _dead_letters(status: Status) -> Iterator[Examination]:
    name = "messages.dead_letters"
    if not status.dead_letters:
        yield fine(name, "none is open")
    for queue, count in sorted(status.dead_letters.items()):
        yield warning(
            name,
            f"{counted(count, 'message')} set aside and open",
            subject=queue,
            remedy=f"`orderkeep dead-letters list --queue {queue}` says why; then `orderkeep"
            " dead-letters replay` or `discard`",
        )


def _orders_and_money(status: Status) -> Iterator[Examination]:
    if status.overdue_orders:
        yield warning(
            "messages.overdue_orders",
            f"{counted(status.overdue_orders, 'order')} past deadline, grace and sweep interval,"
            " and still open",
            remedy="start `orderkeep work` (or `run`), which sweeps; it closes them at once",
        )
    if status.payment_cases_open:
        yield warning(
            "messages.payment_cases",
            f"{counted(status.payment_cases_open, 'payment case')} open: money that no rule may"
            " decide about",
            remedy='docs/how-to/operate.md, "Where is the money"',
        )
    if status.refunds_failed:
        yield warning(
            "messages.refunds",
            f"{counted(status.refunds_failed, 'refund')} failed: money that was not given back",
            remedy='give it back at the channel by hand: docs/how-to/operate.md, "Where is the'
            ' money"',
        )
