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
OUT_OF_ORDER = "an event before one of a lower sequence"

# Every other finding is unexpected.
LOST = frozenset(
    {
        "an accepted order that is lost",
        "a cancelled order that is not",
        "a payment that is lost",
        "a wrong payment that is lost",
        "a case that was resolved and is not",
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
        "two orders for one key",
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
        planted: Messages that nobody can read, by their id.
        was_wiped: The broker has lost what it had: what lay there may be missing.
    """

    trade_nos: Sequence[str] = ()
    case_ids: Sequence[int] = ()
    planted: Mapping[str, str] = field(default_factory=dict)
    was_wiped: bool = False


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
    if observer is not None:
        found = compare_events(books, observer)
        if told.was_wiped:
            # The observer is no consumer of ours: what is lost on its way is not sent to it again.
            found.pop(NOT_ARRIVED, None)
            found.pop(OUT_OF_ORDER, None)
        verdict.add(found)
    return verdict


def _compare_told(books: FleetBooks, told: Told) -> dict[str, list[str]]:
    recorded = {row[0] for row in books.rows("select trade_no from order_payments")}
    resolved = {
        row[0] for row in books.rows("select id from payment_cases where state = 'resolved'")
    }
    set_aside = books.rows(_DEAD_LETTERS)
    missing = told.planted.keys() - {message_id for message_id, _, _ in set_aside}
    return {
        "a wrong payment that is lost": sorted(set(told.trade_nos) - recorded),
        "a case that was resolved and is not": [
            str(case_id) for case_id in sorted(set(told.case_ids) - resolved)
        ],
        "a message that nobody can read and nobody set aside": []
        if told.was_wiped
        else sorted(told.planted[message_id] for message_id in missing),
        "a message set aside that can be read": [
            f"{message_id} of {queue}: {reason}"
            for message_id, queue, reason in set_aside
            if message_id not in told.planted
        ],
    }
