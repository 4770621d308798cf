"""Compares a fleet that has come to rest with what its clients were told, and with itself."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx

from tests.acceptance.fleet import Fleet
from tests.acceptance.fleet_books import NO_ANSWER, FleetBooks
from tests.acceptance.fleet_journal import FleetJournal, OrderNote, Outcome
from tests.acceptance.fleet_load import PRICE_MINOR, SCARCE_SKU_ID, take_answer
from tests.acceptance.fleet_observer import Observer
from tests.acceptance.running import RunningShop
from tests.servers.own_process import wait_until

# Of each kind of finding so many are shown; the number tells of the rest.
_SHOWN_MAX = 3

_TELL_S = 5.0

_ASKED_AT_ONCE = 8

# What is answered "not now" is asked again, for a while.
_TRIES_MAX = 20

_ANSWER_S_MAX = 30.0

_LOOK_S = 0.2

_pause = threading.Event()


@dataclass(slots=True, kw_only=True)
class Settled:
    """What became of the orders of which the clients knew nothing, once they asked again."""

    made_count: int = 0
    made_now_count: int = 0
    refused_count: int = 0


def seconds_until(condition: Callable[[], bool], what: str, *, within_s: float) -> float:
    """Wait until the condition holds, and return how long that took.

    Raises:
        TimeoutError: it took too long.
    """
    started_s = time.monotonic()
    wait_until(condition, what, within_s=within_s)
    return time.monotonic() - started_s


def settle_unknown(
    fronts: Sequence[RunningShop], journal: FleetJournal, books: FleetBooks
) -> tuple[Settled, list[str]]:
    """Send every order again whose outcome nobody knows; return what came, and what is wrong.

    What was made is asked for twice: the key must go on to stand for it.
    """
    settled, wrong = Settled(), []
    known = books.orders_by_key()
    notes = journal.with_outcome(Outcome.UNKNOWN)
    with (
        httpx.Client(timeout=_ANSWER_S_MAX, trust_env=False) as client,
        ThreadPoolExecutor(_ASKED_AT_ONCE) as pool,
    ):

        def ask(note: OrderNote) -> set[str | None]:
            front = fronts[note.front_no % len(fronts)]
            times = 1 if known.get((note.user_id, note.key)) is None else 2
            return {_ask_again(client, front, note) for _ in range(times)}

        for note, told in zip(notes, pool.map(ask, notes), strict=True):
            before = known.get((note.user_id, note.key))
            if note.outcome is Outcome.UNKNOWN:
                wrong.append(f"the key {note.key} gets no verdict: {note.code}")
            elif len(told) > 1 or (before is not None and told != {before}):
                wrong.append(f"the key {note.key} stood for {before}, and is answered {told}")
            elif before is not None:
                settled.made_count += 1
            elif note.order_no is not None:
                settled.made_now_count += 1
            else:
                settled.refused_count += 1
    return settled, wrong


def _ask_again(client: httpx.Client, front: RunningShop, note: OrderNote) -> str | None:
    headers = {
        "Authorization": f"Bearer {front.token(note.user_id)}",
        "Idempotency-Key": note.key,
    }
    for _ in range(_TRIES_MAX):
        answer = client.post(
            f"{front.url}/api/v1/orders", json={"items": note.items}, headers=headers
        )
        take_answer(note, answer)
        if note.outcome is not Outcome.UNKNOWN:
            break
        _pause.wait(_LOOK_S)
    return note.order_no


def _tell_nobody(_under_way: Mapping[str, int]) -> None:
    """Show nothing."""


def rest(
    books: FleetBooks,
    observer: Observer,
    *,
    within_s: float,
    tell: Callable[[Mapping[str, int]], None] = _tell_nobody,
) -> float:
    """Wait until nothing is under way and the observer has seen it all; return how long it took.

    What a broker has lost that was wiped, the observer never sees: it is no consumer of ours. What
    was sent since then it must see.

    Args:
        within_s: How long it may take.
        tell: Told every few seconds what is under way.

    Raises:
        TimeoutError: it took too long; the text tells what is still under way.
    """
    under_way: dict[str, int] = {}
    told_at_s = time.monotonic()

    def is_at_rest() -> bool:
        nonlocal under_way, told_at_s
        if time.monotonic() - told_at_s > _TELL_S:
            told_at_s = time.monotonic()
            tell(under_way)
        try:
            under_way = books.under_way()
            if not under_way and _expected_ids(books) <= observer.message_ids():
                return True
        except NO_ANSWER:
            pass
        # The looking costs the fleet more than the waiting.
        _pause.wait(_LOOK_S)
        return False

    try:
        return seconds_until(is_at_rest, "the fleet rests", within_s=within_s)
    except TimeoutError as error:
        message = f"{error}: {under_way or 'events that the observer has not seen'}"
        raise TimeoutError(message) from error


def _expected_ids(books: FleetBooks) -> set[str]:
    """Return the events that an observer must have seen."""
    return books.order_event_ids(
        where=f"coalesce(sent_at, {books.wiped_at} + 1) > {books.wiped_at}"
    )


def find_wrong(
    fleet: Fleet, books: FleetBooks, observer: Observer, *, journal: FleetJournal | None = None
) -> list[str]:
    """Return what is lost, doubled or contradicts something, of a fleet at rest."""
    wrong = [_shown(what, subjects) for what, subjects in books.contradictions().items()]
    wrong += [f"{n} dead letters: {it}" for it, n in Counter(books.dead_letters()).items()]
    wrong += [f"ended by itself: {name}" for name in fleet.ended_names()]
    wrong += as_lines(compare_events(books, observer))
    if journal is not None:
        wrong += as_lines(compare_journal(journal, books))
    verified = fleet.front.command("verify", "--quiesced")
    if verified.returncode:
        wrong.append(f"verify exits {verified.returncode}: {verified.stdout} {verified.stderr}")
    return wrong


def compare_events(books: FleetBooks, observer: Observer) -> dict[str, list[str]]:
    """Return what the outbox and the observer of `order.events` tell differently."""
    written = books.order_event_ids()
    seen = observer.message_ids()
    found = {
        "an event marked sent that did not arrive": books.order_event_ids(
            where=f"state = 'sent' and sent_at > {books.wiped_at}"
        )
        - seen,
        "an event not sent": books.order_event_ids(where="state != 'sent'"),
        "an event that nobody wrote": seen - written,
        "an event before one of a lower sequence": observer.out_of_order(),
    }
    return {what: sorted(subjects) for what, subjects in found.items() if subjects}


def compare_journal(journal: FleetJournal, books: FleetBooks) -> dict[str, list[str]]:
    """Return what the clients were told and the books do not bear out, by what it is."""
    by_key, statuses, contents = books.orders_by_key(), books.statuses(), books.contents()
    asked = {(note.user_id, note.key): note for note in journal.orders}
    succeeded = {
        row[0] for row in books.rows("select payment_no from payments where status = 'succeeded'")
    }
    found = {
        "an accepted order that is lost": [
            note.key
            for note in journal.with_outcome(Outcome.ACCEPTED)
            if by_key.get((note.user_id, note.key)) != note.order_no
            or note.order_no not in statuses
        ],
        "an accepted order that holds something else": [
            note.key
            for note in journal.with_outcome(Outcome.ACCEPTED)
            if note.order_no in contents and contents[note.order_no] != _asked(note)
        ],
        "a refused order that was made": [
            note.key
            for note in journal.with_outcome(Outcome.REFUSED)
            if (note.user_id, note.key) in by_key
        ],
        "an order that was refused for nothing": [
            f"{note.key}: {note.code}"
            for note in journal.orders
            if note.was_refused and not _may_be_refused(note)
        ],
        "an order without a verdict": [note.key for note in journal.with_outcome(Outcome.UNKNOWN)],
        "an order that nobody asked for": [f"{key}" for key in by_key if key not in asked],
        "an order that no key stands for": sorted(statuses.keys() - set(by_key.values())),
        "two keys for one order": [
            number for number, n in Counter(by_key.values()).items() if n > 1
        ],
        "a cancelled order that is not": [
            number for number in journal.cancelled_nos if statuses.get(number) != "cancelled"
        ],
        "a payment that is lost": sorted(journal.paid_nos - succeeded),
    }
    return {what: subjects for what, subjects in found.items() if subjects}


def _asked(note: OrderNote) -> tuple[dict[str, int], int]:
    """Return what is to be in an order, by SKU, and what that costs in minor units."""
    items = {str(item["sku_id"]): int(str(item["quantity"])) for item in note.items}
    return items, sum(items.values()) * PRICE_MINOR


def _may_be_refused(note: OrderNote) -> bool:
    """Return whether the order wanted what there may not be enough of, and was told so."""
    wants_scarce = any(item["sku_id"] == SCARCE_SKU_ID for item in note.items)
    return wants_scarce and note.code == "out_of_stock"


def as_lines(found: Mapping[str, Sequence[str]]) -> list[str]:
    """Return findings for a report: what, how many, and a few of them."""
    return [_shown(what, subjects) for what, subjects in found.items()]


def _shown(what: str, subjects: Sequence[str]) -> str:
    return f"{what}: {len(subjects)}, such as {list(subjects[:_SHOWN_MAX])}"
