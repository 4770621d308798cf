"""What operators call to read what operators did by hand."""

from typing import Annotated

import msgspec
from litestar import get
from litestar.di import NamedDependency
from litestar.params import FromQuery, SkipValidation
from litestar.types import ControllerRouterHandler

from orderkeep.contracts.page import PAGE_LIMIT_DEFAULT, PageLimit
from orderkeep.contracts.text import Identifier
from orderkeep.database.audit import AuditFilter, RecordedAct
from orderkeep.instant import rfc3339
from orderkeep.web.audit import AuditDesk
from orderkeep.web.known_names import ACTIONS, check_known

Audit = NamedDependency[SkipValidation[AuditDesk]]


class RecordedActAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that an operator did: who, what, when and why."""

    id: int
    at: str
    actor: str
    action: Annotated[str, msgspec.Meta(examples=["orders.cancel"])]
    subject: str
    detail: msgspec.Raw
    reason: str | None = None


class RecordedActPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of the record."""

    items: tuple[RecordedActAnswer, ...]
    next_cursor: str | None


@get(
    "/admin/audit",
    opt={"access": "operator:read"},
    tags=["Operations"],
    summary="List what operators did",
)
async def list_acts(  # noqa: PLR0917 (the framework passes each by name)
    audit_desk: Audit,
    actor: FromQuery[Identifier | None] = None,
    action: FromQuery[Identifier | None] = None,
    subject: FromQuery[Identifier | None] = None,
    order_no: FromQuery[Identifier | None] = None,
    cursor: FromQuery[str | None] = None,
    limit: FromQuery[PageLimit] = PAGE_LIMIT_DEFAULT,
) -> RecordedActPage:
    """List what operators did by hand, over HTTP or on the command line, newest first.

    By `order_no` also what they did with the payment cases of that order.
    """
    check_known("query/action", action, ACTIONS)
    page = await audit_desk.list(
        AuditFilter(actor=actor, action=action, subject=subject, order_no=order_no),
        cursor=cursor,
        limit=limit,
    )
    return RecordedActPage(
        items=tuple(recorded_act_answer(one) for one in page.acts), next_cursor=page.next_cursor
    )


def recorded_act_answer(act: RecordedAct) -> RecordedActAnswer:
    """Return an entry of the record as operators see it."""
    return RecordedActAnswer(
        id=act.id,
        at=rfc3339(act.at),
        actor=act.actor,
        action=act.action,
        subject=act.subject,
        reason=act.reason,
        detail=act.detail,
    )


ROUTE_HANDLERS: list[ControllerRouterHandler] = [list_acts]
