"""What payers and payment channels call."""

from typing import Literal, TypeAlias

import msgspec
from litestar import Request, get, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, JSONBody, SkipValidation
from litestar.types import ControllerRouterHandler

from orderkeep.contracts.amount import text_of_minor
from orderkeep.contracts.caller import Caller
from orderkeep.contracts.json_answer import JsonAnswer
from orderkeep.contracts.text import Identifier, OrderNo
from orderkeep.instant import Instant, rfc3339
from orderkeep.payments.channels.channel import Notification
from orderkeep.payments.desk import PaymentDesk, PaymentWithRefunds
from orderkeep.payments.payment import Payment, Refund

Payments: TypeAlias = NamedDependency[SkipValidation[PaymentDesk]]
UserRequest: TypeAlias = Request[Caller, object, State]

USER = {"access": "user"}
PUBLIC = {"access": "public"}


class OpenPaymentBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which order to pay, and how."""

    order_no: OrderNo
    pay_channel: Identifier


class SandboxBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the sandbox shall make of a payment."""

    result: Literal["succeeded", "failed"]


class PaymentAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A payment."""

    payment_no: str
    order_no: str
    pay_channel: str
    amount: str
    currency: str
    status: str
    opened_at: str
    trade_no: str | None = None
    paid_at: str | None = None
    ended_at: str | None = None
    reason: str | None = None


class RefundAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was given back of a payment, or is to be."""

    refund_no: str
    amount: str
    currency: str
    status: str
    reason: str
    requested_at: str
    channel_refund_no: str | None = None
    failure_reason: str | None = None
    finished_at: str | None = None


class PaymentWithRefundsAnswer(PaymentAnswer, frozen=True, kw_only=True, omit_defaults=True):
    """A payment, with what was given back of it."""

    refunds: tuple[RefundAnswer, ...]


class NotificationAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Nothing: the report was taken in, now or before."""


@post(
    "/payments",
    opt={**USER, "goes_first": True, "conflicts": True},
    responses={200: ResponseSpec(PaymentAnswer, description="The one that is open already")},
    tags=["Payments"],
    summary="Open a payment",
)
async def open_payment(
    request: UserRequest, data: JSONBody[OpenPaymentBody], payment_desk: Payments
) -> JsonAnswer[PaymentAnswer]:
    """Open a payment for an order; an open one on the same channel is answered again, with 200."""
    opened = await payment_desk.open(
        order_no=data.order_no, pay_channel=data.pay_channel, user_id=request.user.user_id
    )
    return JsonAnswer(_payment_answer(opened.payment), status_code=201 if opened.is_new else 200)


@get("/payments/{payment_no:str}", opt=USER, tags=["Payments"], summary="Show a payment")
async def show_payment(
    request: UserRequest, payment_no: FromPath[str], payment_desk: Payments
) -> PaymentWithRefundsAnswer:
    """Show a payment with its refunds, to its payer or an operator."""
    found = await payment_desk.get(payment_no, caller=request.user)
    return _payment_with_refunds_answer(found)


@post(
    "/payments/{payment_no:str}/sandbox",
    opt={**USER, "goes_first": True},
    status_code=202,
    tags=["Payments"],
    summary="Let a sandbox payment succeed or fail",
)
async def play_sandbox(
    request: UserRequest,
    payment_no: FromPath[str],
    data: JSONBody[SandboxBody],
    payment_desk: Payments,
) -> PaymentAnswer:
    """Let a payment on the sandbox channel succeed or fail; the same again changes nothing."""
    if data.result == "succeeded":
        payment = await payment_desk.succeed_in_sandbox(payment_no, caller=request.user)
    else:
        payment = await payment_desk.fail_in_sandbox(payment_no, caller=request.user)
    return _payment_answer(payment)


# The body is no parameter: the signature is over its bytes, and is checked before they are read.
@post(
    "/payments/notifications/{channel:str}",
    opt={**PUBLIC, "goes_first": True},
    status_code=200,
    tags=["Payments"],
    summary="Take a payment channel's signed report",
)
async def take_notification(
    request: UserRequest, channel: FromPath[str], payment_desk: Payments
) -> NotificationAnswer:
    """Take in a channel's report on one of its payments; a repeat changes nothing.

    The headers `webhook-id`, `webhook-timestamp` and `webhook-signature` are those of Standard
    Webhooks 1.0. The body is JSON: `payment_no`, `trade_no`, `amount`, `result` ("succeeded" or
    "failed"), and where the channel knows them `currency`, `paid_at` and `reason`.
    """
    headers = request.headers
    notification = Notification(
        # A header that came twice is as good as none: who knows which one was signed.
        headers={
            name.lower(): values[0] for name in headers if len(values := headers.getall(name)) == 1
        },
        body=await request.body(),
    )
    await payment_desk.take_notification(channel, notification)
    return NotificationAnswer()


# Paths are relative to the API's base, which the application sets.
ROUTE_HANDLERS: list[ControllerRouterHandler] = [
    open_payment,
    show_payment,
    play_sandbox,
    take_notification,
]


def _payment_answer(payment: Payment) -> PaymentAnswer:
    return PaymentAnswer(
        payment_no=payment.payment_no,
        order_no=payment.order_no,
        pay_channel=payment.pay_channel,
        amount=text_of_minor(payment.amount_minor),
        currency=payment.currency,
        status=payment.status.value,
        opened_at=rfc3339(payment.opened_at),
        trade_no=payment.trade_no,
        paid_at=_time(payment.paid_at),
        ended_at=_time(payment.ended_at),
        reason=payment.reason,
    )


def _payment_with_refunds_answer(found: PaymentWithRefunds) -> PaymentWithRefundsAnswer:
    return PaymentWithRefundsAnswer(
        **msgspec.structs.asdict(_payment_answer(found.payment)),
        refunds=tuple(_refund_answer(refund) for refund in found.refunds),
    )


def _refund_answer(refund: Refund) -> RefundAnswer:
    return RefundAnswer(
        refund_no=refund.refund_no,
        amount=text_of_minor(refund.amount_minor),
        currency=refund.currency,
        status=refund.status.value,
        reason=refund.reason,
        requested_at=rfc3339(refund.requested_at),
        channel_refund_no=refund.channel_refund_no,
        failure_reason=refund.failure_reason,
        finished_at=_time(refund.finished_at),
    )


def _time(instant: Instant | None) -> str | None:
    return None if instant is None else rfc3339(instant)
