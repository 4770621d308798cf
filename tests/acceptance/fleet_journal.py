"""What the clients of a fleet asked for and were told.

An order is written down with its key before it is sent, and its outcome afterwards. An answer that
never came, or that says "not now", leaves open what happened: only the same key, sent again, tells.
Of all other requests what is acknowledged is kept, and what no client should ever be told.
"""

import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from enum import StrEnum

import httpx

# Of what should never be told, so much is kept; the rest is counted.
_WRONG_KEPT_MAX = 50

NO_ANSWER = "no_answer"

# There was nobody to send it to: it cannot have been made.
UNREACHED = "unreached"


class Outcome(StrEnum):
    """What a client knows of its order."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    UNKNOWN = "unknown"


@dataclass(slots=True, kw_only=True)
class OrderNote:
    """One order, as one client asked for it once.

    Attributes:
        front_no: Which of the processes that serve was asked.
        sent_at_s: On the clock `time.monotonic`.
        answered_at_s: None where no answer came.
        code: The status of a success, the code of a refusal; `no_answer` where none came, and
            `unreached` where nobody could be asked.
    """

    user_id: str
    key: str
    items: list[dict[str, object]]
    front_no: int
    sent_at_s: float
    answered_at_s: float | None = None
    status: int | None = None
    code: str = NO_ANSWER
    order_no: str | None = None

    @property
    def was_refused(self) -> bool:
        """Whether somebody who was there said no."""
        return self.outcome is Outcome.REFUSED and self.status is not None

    @property
    def outcome(self) -> Outcome:
        """What the client knows."""
        if self.status == 201:
            return Outcome.ACCEPTED
        if self.code == UNREACHED:
            return Outcome.REFUSED
        if self.status is None or self.status >= 500 or self.code == "in_progress":
            return Outcome.UNKNOWN
        return Outcome.REFUSED


@dataclass(slots=True)
class FleetJournal:
    """Everything, in the order in which it happened; one event loop writes to it.

    Attributes:
        answers: For each step, how often each status or code was answered.
        cancelled_nos: The orders that a client was told are cancelled.
        paid_nos: The payments that a client was told have succeeded.
        wrong: What no client should be told: an error that is not a 503 with Retry-After, or no
            answer at all; the first few of `wrong_count`.
        refused_at_s: When "not now" was answered.
        is_silence_expected: The processes are killed: a connection that breaks is not wrong.
        raced_nos: The orders of which somebody paid and, in the same moment, something else was to
            end them: `close` or `cancel`. Both sides were answered.
    """

    orders: list[OrderNote] = field(default_factory=list)
    answers: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    cancelled_nos: set[str] = field(default_factory=set)
    paid_nos: set[str] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)
    wrong_count: int = 0
    refused_at_s: list[float] = field(default_factory=list)
    is_silence_expected: bool = False
    raced_nos: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    def note_answer(self, step: str, response: httpx.Response) -> None:
        """Write down what was answered."""
        self.answers[step][code_of(response)] += 1
        if response.status_code < 500:
            return
        self.refused_at_s.append(time.monotonic())
        if response.status_code != 503 or "Retry-After" not in response.headers:
            self._note_wrong(f"{step}: {response.status_code} {response.text[:300]}")

    def note_silence(self, step: str, error: Exception) -> None:
        """Write down that no answer came.

        Who waits for longer than a client's patience hangs: no death of a process explains that.
        """
        self.answers[step][NO_ANSWER] += 1
        if not self.is_silence_expected or isinstance(error, httpx.TimeoutException):
            self._note_wrong(f"{step}: no answer, {error!r}")

    def with_outcome(self, outcome: Outcome) -> list[OrderNote]:
        """Return the orders of which the clients know this."""
        return [note for note in self.orders if note.outcome is outcome]

    def accepted_nos(self, *, until_s: float | None = None, since_s: float = 0.0) -> list[str]:
        """Return the numbers of the accepted orders, of those answered in the time."""
        return [
            note.order_no
            for note in list(self.orders)
            if note.order_no is not None
            and note.answered_at_s is not None
            and since_s <= note.answered_at_s
            and (until_s is None or note.answered_at_s <= until_s)
        ]

    def total(self) -> int:
        """Return how many requests were answered, or not."""
        return sum(counts.total() for counts in self.answers.values())

    def _note_wrong(self, text: str) -> None:
        self.wrong_count += 1
        if len(self.wrong) < _WRONG_KEPT_MAX:
            self.wrong.append(text)


def code_of(response: httpx.Response) -> str:
    """Return the status of a success, or the code of a refusal."""
    if response.status_code < 400:
        return str(response.status_code)
    try:
        return str(response.json()["code"])
    except (ValueError, KeyError, TypeError):
        return str(response.status_code)
