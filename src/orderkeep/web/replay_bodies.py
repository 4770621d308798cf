"""What operators send and are answered over HTTP, about replays."""

from typing import Annotated

import msgspec

from orderkeep.contracts.text import Identifier, Reason
from orderkeep.web.admin_bodies import ChangedAnswer, DeadLetterFilterBody, Moment, References
from orderkeep.web.replays import RATE_DEFAULT, RATE_MAX, RATE_MIN

Rate = Annotated[
    float, msgspec.Meta(ge=RATE_MIN, le=RATE_MAX, description="Messages that leave in a second.")
]


class _Body(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A body that an operator sends."""


class ReplayDeadLettersBody(_Body, frozen=True, kw_only=True):
    """Which dead letters to replay: by ids, or by a filter, which takes the oldest first."""

    ids: References | None = None
    filter: DeadLetterFilterBody | None = None
    cursor: str | None = None
    rate: Rate = RATE_DEFAULT
    force: bool = False
    dry_run: bool = False
    reason: Reason | None = None


class SentFilterBody(_Body, frozen=True, kw_only=True):
    """Which sent events; what is left out is any, and `all` says that any is meant."""

    service: Identifier | None = None
    route: Identifier | None = None
    aggregate_id: Identifier | None = None
    sent_from: Moment | None = None
    sent_to: Moment | None = None
    all: bool = False


class ReplayEventsBody(_Body, frozen=True, kw_only=True):
    """Which events to send again: by ids, or by a filter; to one queue, or to all who got them."""

    ids: References | None = None
    filter: SentFilterBody | None = None
    queue: Identifier | None = None
    key: Identifier | None = None
    cursor: str | None = None
    rate: Rate = RATE_DEFAULT
    force: bool = False
    dry_run: bool = False
    reason: Reason | None = None


class ReplayEditedBody(_Body, frozen=True, kw_only=True):
    """What shall go in the place of a dead letter's message: text, or any bytes in base64."""

    body: str | None = None
    body_base64: str | None = None
    force: bool = False
    dry_run: bool = False
    reason: Reason | None = None


class ReplayAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What became of each message, or would; `next_cursor` tells where a filter goes on.

    The rate holds within a call. What it let go has left after `wait_s`: whoever goes on earlier
    lets more go at once.
    """

    results: tuple[ChangedAnswer, ...]
    next_cursor: str | None
    wait_s: float


class ReplayedEditAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a dead letter; `message_id` is that of the edited message, if it was sent."""

    id: str
    result: str
    message_id: str | None
