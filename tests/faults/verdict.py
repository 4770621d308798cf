"""What is lost, doubled or otherwise wrong in a shop that has come to rest.

Findings are named by what they are, and each name is of one kind: lost, doubled, or unexpected.
Nothing of the program under test decides here; what `orderkeep verify` says comes beside it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.acceptance.fleet_books import UNRECEIVED, FleetBooks
from tests.acceptance.fleet_journal import FleetJournal
from tests.acceptance.fleet_observer import Observer
from tests.acceptance.fleet_verdict import as_lines, compare_events, compare_journal

NOT_ARRIVED = "an event marked sent that did not arrive"

# Every other finding is unexpected.
LOST = frozenset(
    {
        "an accepted order that is lost",
        "an accepted order that holds something else",
        "a cancelled order that is not",
        "a payment that is lost",
        "a wrong payment that is lost",
        "a case that was resolved and is not",
        "a case that was resolved and nothing was given back",
        "stock that was put there and is not",
        "an event that no webhook told of",
        "a webhook that was given up",
        "a message that nobody can read and nobody set aside",
        "an event not sent",
        "money that neither paid nor went back",
        "money that orders have not heard of",
        NOT_ARRIVED,
        UNRECEIVED,
    }
)
DOUBLED = frozenset(
    {
        "two keys for one order",
        "an order that no key stands for",
        "stock that was put there twice",
        "an order that nobody asked for",
        "an order whose events have a gap or a double",
        "a change of state that was not told once",
        "two refunds of one payment",
        "two payments that paid one order",
    }
)

_DOUBLES = {
    "two refunds of one payment": """
        select pay_channel || ' ' || trade_no from refunds where status != 'failed'
        group by pay_channel, trade_no having count(*) > 1""",
    "two payments that paid one order": """
        select order_no from order_payments where outcome = 'accepted'
        group by order_no having count(*) > 1""",
    "two ends of one order": """
        select order_no from order_history where to_status != 'pending_payment'
        group by order_no having count(*) > 1
            and not (count(*) = 2 and bool_or(to_status = 'closed') and bool_or(to_status = 'paid')
                and bool_or(from_status = 'closed' and to_status = 'paid'))""",
    "an order closed before its deadline": """
        select order_no from orders where closed_at < expires_at""",
}

# What was asked for of a case and has come to its end.
_GIVEN_BACK = """
    select payment_case.id from payment_cases as payment_case
    join order_refunds as refund on refund.pay_channel = payment_case.pay_channel
        and refund.trade_no = payment_case.trade_no and refund.status != 'requested'
    where payment_case.id = any($1)"""

_STOCKED = """
    select cause, count(*) from stock_movements where kind = 'adjust' and cause like 'operator %'
    group by cause"""

_TOLD_BY_WEBHOOK = """
    select event.aggregate_id, event.message_id from order_outbox as event
    where event.route = 'order.events' and event.retry_key is null
    order by event.aggregate_id, event.sequence"""

_DEAD_LETTERS = " union all ".join(
    f"select message_id, queue, reason from {service}_dead_letters"  # noqa: S608 (our own names)
    for service in ("order", "cart", "payment")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What others than buyers were told, or did.

    Attributes:
        trade_nos: Payments of a wrong amount that were taken.
        case_ids: Cases of which it was said that they are resolved.
        restock_keys: What was put in stock, by key, and whether it was said that it is there.
        planted: Messages that nobody can read, by their id.
        wiped_ids: Those of them that a broker may have lost that was wiped.
        webhooks: What a receiver of webhooks was told: of each order the ids of its events, as they
            came; None where there is none.
    """

    trade_nos: Sequence[str] = ()
    case_ids: Sequence[int] = ()
    restock_keys: Mapping[str, bool] = field(default_factory=dict)
    planted: Mapping[str, str] = field(default_factory=dict)
    wiped_ids: frozenset[str] = frozenset()
    webhooks: Mapping[str, Sequence[str]] | None = None


@dataclass(slots=True, kw_only=True)
class Verdict:
    """Findings by what they are; each kind is empty when all is well."""

    lost: dict[str, list[str]] = field(default_factory=dict)
    doubled: dict[str, list[str]] = field(default_factory=dict)
    unexpected: dict[str, list[str]] = field(default_factory=dict)

    def add(self, found: Mapping[str, Sequence[str]]) -> None:
        """Sort findings into their kinds."""
        for what, subjects in found.items():
            if subjects:
                kind = self.lost if what in LOST else self.unexpected
                kind = self.doubled if what in DOUBLED else kind
                kind.setdefault(what, []).extend(subjects)

    @property
    def lines(self) -> list[str]:
        """The findings for a person."""
        return [
            f"{kind}: {line}"
            for kind, found in (
                ("LOST", self.lost),
                ("DOUBLED", self.doubled),
                ("UNEXPECTED", self.unexpected),
            )
            for line in as_lines(found)
        ]


def count(found: Mapping[str, Sequence[str]]) -> int:
    """Return how many things were found."""
    return sum(len(subjects) for subjects in found.values())


def judge(
    books: FleetBooks,
    journal: FleetJournal,
    *,
    told: Told | None = None,
    observer: Observer | None = None,
) -> Verdict:
    """Compare a shop at rest with what everybody was told, and with itself."""
    told = told or Told()
    verdict = Verdict()
    verdict.add(books.contradictions())
    verdict.add(
        {
            what: [str(row[0]) for row in books.rows(statement)]
            for what, statement in _DOUBLES.items()
        }
    )
    verdict.add(compare_journal(journal, books))
    verdict.add({"an answer that nobody should be given": journal.wrong})
    verdict.add(_compare_told(books, told))
    if told.webhooks is not None:
        verdict.add(compare_webhooks(books, told.webhooks))
    if observer is not None:
        verdict.add(compare_events(books, observer))
    return verdict


def _compare_told(books: FleetBooks, told: Told) -> dict[str, list[str]]:
    recorded = {row[0] for row in books.rows("select trade_no from order_payments")}
    resolved = {
        row[0] for row in books.rows("select id from payment_cases where state = 'resolved'")
    }
    set_aside = books.rows(_DEAD_LETTERS)
    missing = told.planted.keys() - told.wiped_ids - {row[0] for row in set_aside}
    given_back = {row[0] for row in books.rows(_GIVEN_BACK, list(told.case_ids))}
    stocked = dict(books.rows(_STOCKED))
    return {
        "a wrong payment that is lost": sorted(set(told.trade_nos) - recorded),
        "a case that was resolved and is not": [
            str(case_id) for case_id in sorted(set(told.case_ids) - resolved)
        ],
        "a case that was resolved and nothing was given back": [
            str(case_id) for case_id in sorted(set(told.case_ids) - given_back)
        ],
        "stock that was put there and is not": [
            key
            for key, was_told in told.restock_keys.items()
            if was_told and f"operator {key}" not in stocked
        ],
        "stock that was put there twice": sorted(
            cause for cause, number in stocked.items() if number != 1
        ),
        "a message that nobody can read and nobody set aside": sorted(
            told.planted[message_id] for message_id in missing
        ),
        "a message set aside that can be read": [
            f"{message_id} of {queue}: {reason}"
            for message_id, queue, reason in set_aside
            if message_id not in told.planted
        ],
    }


def compare_webhooks(
    books: FleetBooks, webhooks: Mapping[str, Sequence[str]]
) -> dict[str, list[str]]:
    """Compare what a receiver of webhooks was told with what there was to tell, in its order."""
    events: dict[str, list[str]] = {}
    for order_no, message_id in books.rows(_TOLD_BY_WEBHOOK):
        events.setdefault(order_no, []).append(message_id)
    given_up = "select order_no || ' ' || message_id from webhook_deliveries where state = 'failed'"
    return {
        "an event that no webhook told of": sorted(
            f"{order_no}: {sorted(untold)}"
            for order_no, ids in events.items()
            if (untold := set(ids) - set(webhooks.get(order_no, ())))
        ),
        "a webhook that tells of nothing": sorted(webhooks.keys() - events.keys()),
        "webhooks of an order out of order": sorted(
            order_no
            for order_no, ids in events.items()
            if set(webhooks.get(order_no, ())) == set(ids) and list(webhooks[order_no]) != ids
        ),
        "a webhook that was given up": [row[0] for row in books.rows(given_up)],
    }
