"""What operators call for payment cases: money that waits for their verdict."""

from typing import Annotated

from litestar import get, post
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter, SkipValidation

from orderkeep.contracts.page import PAGE_LIMIT_DEFAULT, PageLimit
from orderkeep.database.audit import Act
from orderkeep.orders.case_bodies import (
    PaymentCaseAnswer,
    PaymentCasePage,
    ResolveCaseBody,
    page_of_cases,
    payment_case_answer,
    read_case_id,
)
from orderkeep.orders.case_desk import CaseDesk
from orderkeep.orders.case_resolution import CaseState
from orderkeep.orders.resolve_cases import ResolveCase
from orderkeep.orders.routes import BuyerRequest

Cases = NamedDependency[SkipValidation[CaseDesk]]

# The framework keeps the name `state` for itself.
STATE = QueryParameter(name="state")


@get(
    "/admin/payment-cases",
    opt={"access": "operator:read"},
    tags=["Operators"],
    summary="List payment cases",
)
async def list_payment_cases(  # noqa: PLR0917 (the framework passes each by name)
    case_desk: Cases,
    wanted_state: Annotated[CaseState | None, STATE] = None,
    order_no: FromQuery[str | None] = None,
    trade_no: FromQuery[str | None] = None,
    limit: FromQuery[PageLimit] = PAGE_LIMIT_DEFAULT,
    cursor: FromQuery[str | None] = None,
) -> PaymentCasePage:
    """List money that waits for an operator, or has waited, newest first.

    Without a state, an order or a trade number, those that are open are listed.
    """
    return await page_of_cases(
        case_desk,
        state=wanted_state,
        order_no=order_no,
        trade_no=trade_no,
        cursor=cursor,
        limit=limit,
    )


@get(
    "/admin/payment-cases/{case_id:str}",
    opt={"access": "operator:read"},
    tags=["Operators"],
    summary="Show a payment case",
)
async def get_payment_case(case_id: FromPath[str], case_desk: Cases) -> PaymentCaseAnswer:
    """Show a case, how it was resolved, and the refund of its money."""
    return payment_case_answer(await case_desk.get(read_case_id(case_id)))


@post(
    "/admin/payment-cases/{case_id:str}/resolve",
    opt={"access": "operator", "conflicts": True},
    status_code=200,
    tags=["Operators"],
    summary="Resolve a payment case",
)
async def resolve_payment_case(
    request: BuyerRequest,
    case_id: FromPath[str],
    data: JSONBody[ResolveCaseBody],
    case_desk: Cases,
) -> PaymentCaseAnswer:
    """Accept the money as payment of its order, give it back, or dismiss the case; once."""
    resolved = await case_desk.resolve(
        ResolveCase(
            case_id=read_case_id(case_id),
            action=data.action,
            act=Act(actor=request.user.user_id, reason=data.reason),
        )
    )
    return payment_case_answer(resolved)


ROUTE_HANDLERS: list[HTTPRouteHandler] = [
    list_payment_cases,
    get_payment_case,
    resolve_payment_case,
]
