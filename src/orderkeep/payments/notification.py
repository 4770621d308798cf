"""What an outside channel reports, as it stands in the body of a notification."""

from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from orderkeep.contracts.amount import read_amount_minor
from orderkeep.contracts.strict_json import InvalidShapeError, Problem, decode
from orderkeep.contracts.text import ForeignNumber, Identifier, read_currency_code
from orderkeep.contracts.time_text import read_instant
from orderkeep.payments.settle_payment import FailureReport, MoneyReport

T = TypeVar("T")

REASON_LENGTH_MAX = 2_000


class NotificationBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A report on one payment.

    Attributes:
        amount: A string as everywhere over HTTP, or a JSON number, as channels like to send it.
    """

    payment_no: Identifier
    trade_no: ForeignNumber
    # Any: read by `read_amount_minor`, which takes numbers and strings and nothing else.
    amount: Any
    result: Literal["succeeded", "failed"]
    # Empty counts as missing for all three, as in messages.
    currency: str | None = None
    paid_at: str | None = None
    reason: Annotated[str, msgspec.Meta(max_length=REASON_LENGTH_MAX)] | None = None


def read_notification(raw: bytes) -> MoneyReport | FailureReport:
    """Return what the channel reports; the signature is checked before.

    Raises:
        Refusal: `malformed_json`, or `invalid_request` with what is wrong.
    """
    body = decode(raw, NotificationBody)
    amount_minor = _read("amount", read_amount_minor, body.amount)
    currency = _read("currency", read_currency_code, body.currency) if body.currency else None
    paid_at = _read("paid_at", read_instant, body.paid_at) if body.paid_at else None
    if body.result == "failed":
        return FailureReport(payment_no=body.payment_no, reason=body.reason or None)
    if amount_minor == 0:
        raise InvalidShapeError((Problem(pointer="/amount", detail="no money is no success"),))
    return MoneyReport(
        payment_no=body.payment_no,
        trade_no=body.trade_no,
        amount_minor=amount_minor,
        currency=currency,
        paid_at=paid_at,
    )


def _read(name: str, read: Callable[[object], T], value: object) -> T:
    try:
        return read(value)
    except ValueError as error:
        raise InvalidShapeError((Problem(pointer=f"/{name}", detail=str(error)),)) from None
