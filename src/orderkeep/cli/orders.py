"""`orderkeep orders`: any order, its story, and its end."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import typer

from orderkeep.cli.environment import operator_name, read_settings_quietly
from orderkeep.cli.moments import MOMENT, read_moment
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
from orderkeep.cli.terminal import (
    AsJson,
    examples,
    print_fields,
    print_json,
    print_table,
    print_text,
)
from orderkeep.contracts.order_status import Status

if TYPE_CHECKING:
    from orderkeep.database.transaction import Database
    from orderkeep.orders.bodies import OrderAnswer
    from orderkeep.orders.desk import OrderDesk
    from orderkeep.orders.store.reports import OrderFilter
    from orderkeep.orders.timeline import Item

app = typer.Typer(help="Look at orders, and cancel them.")

OrderNo = Annotated[str, typer.Argument(metavar="ORDER_NO", help="The order's number.")]

T = TypeVar("T")


@app.command(
    "list",
    epilog=examples(
        "orderkeep orders list --status pending_payment",
        "orderkeep orders list --refund failed",
        "orderkeep orders list --user ann --from 2026-01-01T00:00:00Z --all --json",
    ),
)
def list_orders(
    *,
    user: Annotated[str | None, typer.Option("--user", help="Only of this user.")] = None,
    status: Annotated[Status | None, typer.Option("--status", help="Only in this state.")] = None,
    trade_no: Annotated[
        str | None,
        typer.Option(
            "--trade-no",
            help="Only with a payment of this trade number: it paid, waits in a case or goes back.",
        ),
    ] = None,
    refund: Annotated[
        Literal["requested", "succeeded", "failed"] | None,
        typer.Option("--refund", help="Only with a refund in this state."),
    ] = None,
    created_from: Annotated[
        str | None,
        typer.Option("--from", help=f"Only made at this time or later, {MOMENT}."),
    ] = None,
    created_to: Annotated[
        str | None, typer.Option("--to", help=f"Only made before this time, {MOMENT}.")
    ] = None,
    limit: Limit = LIMIT_DEFAULT,
    cursor: Cursor = None,
    is_whole: All = False,
    as_json: AsJson = False,
) -> None:
    """List orders, newest first."""
    from orderkeep.orders.store.reports import OrderFilter

    wanted = OrderFilter(
        user_id=user,
        status=status,
        trade_no=trade_no,
        refund_status=refund,
        created_from=read_moment("--from", created_from),
        created_to=read_moment("--to", created_to),
    )
    paging = Paging(limit=limit, cursor=cursor, is_whole=is_whole)
    page = _with_desk(
        lambda desk: paging.collect(lambda at, count: _fetch(desk, wanted, at, count))
    )
    if as_json:
        print_page_json(page)
        return
    print_page(
        page,
        ("order", "status", "user", "amount", "created", "expires"),
        lambda order: (
            order.order_no,
            order.status,
            order.user_id,
            f"{order.pay_amount} {order.currency}",
            order.created_at,
            order.expires_at,
        ),
    )


@app.command(epilog=examples("orderkeep orders show 0100000000000009"))
def show(order_no: OrderNo, *, as_json: AsJson = False) -> None:
    """Show an order."""
    from orderkeep.orders.bodies import operator_order_answer

    async def read(desk: "OrderDesk") -> "tuple[OrderAnswer, str | None]":
        answer = operator_order_answer(await desk.get(order_no, user_id=None))
        return answer, find_received(await desk.timeline(order_no, user_id=None))

    answer, received = _with_desk(read)
    if as_json:
        print_json(answer)
    else:
        _print_order(answer, received=received)


@app.command(epilog=examples("orderkeep orders timeline 0100000000000009"))
def timeline(order_no: OrderNo, *, as_json: AsJson = False) -> None:
    """Tell everything that happened to an order, the earliest first."""
    items = _with_desk(lambda desk: desk.timeline(order_no, user_id=None))
    if as_json:
        print_json({"order_no": order_no, "items": list(items)})
        return
    print_table(
        ("at", "kind", "what"),
        [
            (
                item["at"],
                item["kind"],
                " ".join(
                    f"{name}={value}"
                    for name, value in item.items()
                    if name not in {"at", "kind"} and value is not None
                ),
            )
            for item in items
        ],
    )


@app.command(epilog=examples("orderkeep orders cancel 0100000000000009 --reason 'asked by phone'"))
def cancel(
    order_no: OrderNo,
    *,
    reason: Annotated[
        str | None, typer.Option("--reason", "--why", help="Why; kept in the order's history.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Cancel an unpaid order; its stock is free again. Cancelling it again changes nothing."""
    from orderkeep.orders.bodies import operator_order_answer
    from orderkeep.orders.cancel_order import CancelOrder
    from orderkeep.orders.order import Cause

    wish = CancelOrder(
        order_no=order_no,
        user_id=None,
        by=Cause.OPERATOR,
        actor=operator_name(),
        note=reason,
    )
    answer = operator_order_answer(_with_desk(lambda desk: desk.cancel(wish)))
    if as_json:
        print_json(answer)
    else:
        print_text(f"The order {order_no} is cancelled.")


async def _fetch(
    desk: "OrderDesk", wanted: "OrderFilter", cursor: str | None, count: int
) -> "Page[OrderAnswer]":
    from dataclasses import replace

    from orderkeep.contracts.page import decode_cursor, encode_cursor
    from orderkeep.orders.bodies import operator_order_answer

    before = None if cursor is None else decode_cursor(cursor, str)[0]
    # One more than is shown tells whether there is a next page.
    found = await desk.list(replace(wanted, before=before), limit_count=count + 1)
    shown = found[:count]
    return Page(
        items=[operator_order_answer(order) for order in shown],
        next_cursor=encode_cursor(shown[-1].order_no) if len(found) > count else None,
    )


def _with_desk(work: "Callable[[OrderDesk], Awaitable[T]]") -> T:
    from orderkeep.cli.opened_database import with_database
    from orderkeep.wiring.order_desks import build_order_desk
    from orderkeep.wiring.storage import build_outboxes

    settings = read_settings_quietly()

    async def with_desk(database: "Database") -> T:
        desk = build_order_desk(
            settings,
            database=database,
            outbox=build_outboxes(settings)["orders"],
            # It signs the tokens with which orders are placed, and none is placed here.
            token_secret="",
        )
        return await work(desk)

    return with_database(settings, with_desk)


def find_received(items: "Sequence[Item]") -> str | None:
    """Return what was received of the payment that paid an order, or None if none did or told."""
    paid = (
        f"{item['amount']} {item.get('currency') or ''}".rstrip()
        for item in items
        if (item["kind"], item.get("outcome")) == ("payment", "accepted") and item.get("amount")
    )
    return next(paid, None)


def _print_order(order: "OrderAnswer", *, received: str | None) -> None:
    receiver = order.receiver
    owed = {order.pay_amount, f"{order.pay_amount} {order.currency}"}
    print_fields(
        {
            "order": order.order_no,
            "status": order.status,
            "user": order.user_id,
            "total": f"{order.total_amount} {order.currency}",
            "to pay": f"{order.pay_amount} {order.currency}",
            "received": None if received in owed else received,
            "created": order.created_at,
            "expires": order.expires_at,
            "paid": order.paid_at,
            "closed": order.closed_at,
            "cancelled": order.cancelled_at,
            "reason": order.close_reason,
            "pay channel": order.pay_channel,
            "trade number": order.trade_no,
            "receiver": receiver and f"{receiver.name}, {receiver.phone}, {receiver.address}",
            "remark": order.buyer_remark,
            "version": order.version,
        }
    )
    print_text("")
    print_table(
        ("sku", "title", "unit price", "quantity", "subtotal"),
        [
            (line.sku_id, line.title, line.unit_price, line.quantity, line.subtotal)
            for line in order.items
        ],
        numbers=("unit price", "quantity", "subtotal"),
    )
