"""`orderkeep payment-cases`: money that waits for a person, and what the person says."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import typer

from orderkeep.cli.environment import operator_name, read_settings_quietly
from orderkeep.cli.paging import (
    LIMIT_DEFAULT,
    All,
    Cursor,
    Limit,
    Page,
    Paging,
    print_page,
    print_page_json,
)
from orderkeep.cli.terminal import AsJson, examples, print_fields, print_json, print_text

if TYPE_CHECKING:
    from orderkeep.database.transaction import Database
    from orderkeep.orders.case_bodies import PaymentCaseAnswer
    from orderkeep.orders.case_desk import CaseDesk

app = typer.Typer(help="Look at money that waits for a person, and settle it.")

CaseId = Annotated[str, typer.Argument(metavar="ID", help="The case's number.")]
StateName = Literal["open", "resolved"]
ActionName = Literal["accept", "refund", "dismiss"]

T = TypeVar("T")


@app.command(
    "list",
    epilog=examples(
        "orderkeep payment-cases list",
        "orderkeep payment-cases list --order 0100000000000009",
        "orderkeep payment-cases list --state resolved --all --json",
    ),
)
def list_payment_cases(
    *,
    state: Annotated[
        StateName | None,
        typer.Option(
            "--state",
            help="In this state; open, unless an order or a trade number is asked for.",
        ),
    ] = None,
    order: Annotated[str | None, typer.Option("--order", help="Only of this order number.")] = None,
    trade_no: Annotated[
        str | None, typer.Option("--trade-no", help="Only of this trade number.")
    ] = None,
    limit: Limit = LIMIT_DEFAULT,
    cursor: Cursor = None,
    is_whole: All = False,
    as_json: AsJson = False,
) -> None:
    """List cases, newest first."""
    paging = Paging(limit=limit, cursor=cursor, is_whole=is_whole)
    page = _with_desk(
        lambda desk: paging.collect(
            lambda at, count: _fetch(
                desk, state=state, order_no=order, trade_no=trade_no, cursor=at, limit=count
            )
        )
    )
    if as_json:
        print_page_json(page)
        return
    print_page(
        page,
        ("id", "kind", "order", "trade number", "amount", "opened", "action", "detail"),
        lambda case: (
            case.id,
            case.kind,
            case.order_no,
            case.trade_no,
            _amount(case),
            case.opened_at,
            case.action,
            case.detail,
        ),
    )


@app.command(epilog=examples("orderkeep payment-cases show 17"))
def show(case_id: CaseId, *, as_json: AsJson = False) -> None:
    """Show a case, how it was resolved, and the refund of its money."""
    from orderkeep.orders.case_bodies import payment_case_answer, read_case_id

    case = payment_case_answer(_with_desk(lambda desk: desk.get(read_case_id(case_id))))
    if as_json:
        print_json(case)
    else:
        _print_case(case)


@app.command(
    epilog=examples(
        "orderkeep payment-cases resolve 17 refund --reason 'paid too little'",
        "orderkeep payment-cases resolve 18 accept --reason 'rounding; agreed by telephone'",
    )
)
def resolve(
    case_id: CaseId,
    action: Annotated[
        ActionName, typer.Argument(metavar="ACTION", help="accept, refund or dismiss.")
    ],
    *,
    reason: Annotated[
        str, typer.Option("--reason", "--why", help="Why; kept in the case and in the record.")
    ],
    as_json: AsJson = False,
) -> None:
    """Settle a case, once.

    accept pays the order with what was received, also another amount; a closed order takes its
    stock again. refund gives the money back. dismiss closes the case, and does nothing else.
    """
    from orderkeep.cli.exits import FoundWrongError, WrongUsageError
    from orderkeep.database.audit import Act
    from orderkeep.orders.case_bodies import REASON_LENGTH_MAX, payment_case_answer, read_case_id
    from orderkeep.orders.case_resolution import CaseAction
    from orderkeep.orders.resolve_cases import ResolveCase
    from orderkeep.refusal import Refusal

    if not 1 <= len(reason) <= REASON_LENGTH_MAX:
        message = f"--reason has 1 to {REASON_LENGTH_MAX} characters"
        raise WrongUsageError(message)
    act = Act(actor=operator_name(), reason=reason)
    wish = ResolveCase(case_id=read_case_id(case_id), action=CaseAction(action), act=act)
    try:
        case = payment_case_answer(_with_desk(lambda desk: desk.resolve(wish)))
    except Refusal as refusal:
        if refusal.code != "invalid_request":
            raise
        # It was asked for as it should be: it is the case that such an action does not fit.
        raise FoundWrongError(refusal.detail) from None
    if as_json:
        print_json(case)
    else:
        print_text(f"The case {case_id} is resolved: {action}.")


async def _fetch(
    desk: "CaseDesk",
    *,
    state: StateName | None,
    order_no: str | None,
    trade_no: str | None,
    cursor: str | None,
    limit: int,
) -> "Page[PaymentCaseAnswer]":
    from orderkeep.orders.case_bodies import page_of_cases
    from orderkeep.orders.case_resolution import CaseState

    page = await page_of_cases(
        desk,
        state=None if state is None else CaseState(state),
        order_no=order_no,
        trade_no=trade_no,
        cursor=cursor,
        limit=limit,
    )
    return Page(items=page.items, next_cursor=page.next_cursor)


def _with_desk(work: "Callable[[CaseDesk], Awaitable[T]]") -> T:
    from orderkeep.cli.opened_database import with_database
    from orderkeep.wiring.order_desks import build_case_desk
    from orderkeep.wiring.storage import build_outboxes

    settings = read_settings_quietly()

    async def with_desk(database: "Database") -> T:
        outbox = build_outboxes(settings)["orders"]
        return await work(build_case_desk(database=database, outbox=outbox))

    return with_database(settings, with_desk)


def _amount(case: "PaymentCaseAnswer") -> str | None:
    return None if case.amount is None else f"{case.amount} {case.currency or ''}".rstrip()


def _print_case(case: "PaymentCaseAnswer") -> None:
    refund = case.refund
    print_fields(
        {
            "case": case.id,
            "kind": case.kind,
            "state": case.state,
            "order": case.order_no,
            "pay channel": case.pay_channel,
            "trade number": case.trade_no,
            "payment": case.payment_no,
            "received": _amount(case),
            "message": case.message_id,
            "detail": case.detail,
            "opened": case.opened_at,
            "action": case.action,
            "reason": case.reason,
            "resolved by": case.resolved_by,
            "resolved": case.resolved_at,
            "refund": refund and f"{refund.refund_no}, {refund.amount} {refund.currency}",
            "refund status": refund and refund.status,
            "refund failed": refund and refund.failure_reason,
        }
    )
