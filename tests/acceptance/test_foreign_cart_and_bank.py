"""Orders alone, with a cart and a bank of somebody else's at its queues, in both directions."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest

from tests.acceptance.buyer import Buyer, Json, collect
from tests.acceptance.foreign_programs import (
    BANK_QUEUES,
    CART_QUEUES,
    Digits,
    ForeignBank,
    ForeignCart,
    ForeignProgram,
)
from tests.acceptance.running import RunningShop, variables
from tests.acceptance.setups import Setup, running_on, servers_of

pytestmark = pytest.mark.slow

FOREIGN_QUEUES = (*CART_QUEUES, *BANK_QUEUES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Meeting:
    """Who comes first, and with what.

    Attributes:
        arguments: What orders declares queues with.
        they_declare: Plainly before orders is there, plainly after it, or never.
    """

    setup: Setup
    arguments: str
    they_declare: str


ONE_PROCESS = Setup(is_postgresql=True, delay_backend="hold-queue")
TWO_PROCESSES = Setup(is_postgresql=True, delay_backend="hold-queue", is_fleet=True)

MEETINGS = {
    "plain, they declare first": Meeting(
        setup=TWO_PROCESSES, arguments="plain", they_declare="before"
    ),
    "plain, orders declares first": Meeting(
        setup=ONE_PROCESS, arguments="plain", they_declare="after"
    ),
    "full, they declare first, plainly": Meeting(
        setup=ONE_PROCESS, arguments="full", they_declare="before"
    ),
    "full, on sqlite, they look for what is there": Meeting(
        setup=Setup(delay_backend="hold-queue"), arguments="full", they_declare="never"
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Market:
    """Orders, and who works with it.

    Attributes:
        late_no: An order that nobody pays in time.
    """

    shop: RunningShop
    program: ForeignProgram
    cart: ForeignCart
    bank: ForeignBank
    late_no: str

    def wait_for_told(self, buyer: Buyer, order_no: str, story: list[str]) -> None:
        """Wait until the order's timeline is as long as the story, and compare them."""
        self.shop.wait_until(
            lambda: len(told(buyer.timeline(order_no))) >= len(story), f"order {order_no}: {story}"
        )
        assert told(buyer.timeline(order_no)) == story


@pytest.fixture(scope="module", params=MEETINGS)
def market(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Market]:
    meeting: Meeting = MEETINGS[request.param]
    with (
        servers_of(meeting.setup) as servers,
        ForeignProgram(servers["ORDERKEEP_BROKER_URL"]) as program,
    ):
        if meeting.they_declare == "before":
            program.declare(*FOREIGN_QUEUES)
        settings = {
            **servers,
            **variables(
                services="orders",
                queue_arguments=meeting.arguments,
                order_timeout_s=3,
                jwt_secret="a-secret-that-guards-nothing-but-a-test",
            ),
        }
        folder = tmp_path_factory.mktemp("shop")
        with running_on(meeting.setup, folder, settings) as shop, Buyer(shop, "late") as late:
            shop.wait_until(lambda: program.finds(*FOREIGN_QUEUES), "the queues are there")
            if meeting.they_declare == "after":
                program.declare(*FOREIGN_QUEUES)
            cart, bank = ForeignCart(program), ForeignBank(program)
            cart.open()
            bank.open()
            shop.put_sku("tea", stock=1000, price="12.50")
            shop.put_sku("cup", stock=1000, price="7.25")
            yield Market(
                shop=shop,
                program=program,
                cart=cart,
                bank=bank,
                late_no=late.order({"tea": 2})["order_no"],
            )


@pytest.fixture
def ann(market: Market) -> Iterator[Buyer]:
    with Buyer(market.shop, "ann") as ann:
        yield ann


def told(timeline: Sequence[Json]) -> list[str]:
    """Return the story in words, without messages."""
    words = {
        "state": lambda item: item["to_status"],
        "payment_opened": lambda item: f"{item['payment_no']} opened",
        "payment": lambda item: f"{item['trade_no']} {item['outcome']}",
        "refund": lambda item: f"refund {item['status']}",
        "case": lambda item: f"case {item['case_kind']}",
    }
    return [words[item["kind"]](item) for item in timeline if item["kind"] in words]


def place_known_order(market: Market, buyer: Buyer) -> str:
    """Place an order and wait until the bank has heard of it."""
    order_no = buyer.order({"tea": 2})["order_no"]
    market.shop.wait_until(
        lambda: market.bank.status_of(order_no) == "pending_payment", "the bank knows the order"
    )
    return order_no


def set_aside(market: Market) -> list[Json]:
    with market.shop.operator() as operator:
        return collect(operator, "/admin/dead-letters")


def test_an_order_leaves_the_foreign_cart_and_is_paid_at_the_foreign_bank(
    market: Market, ann: Buyer
) -> None:
    market.cart.item_ids["ann"] = {"line-1", "line-2", "another"}

    order = ann.order({"tea": 2, "cup": 1}, cart_item_ids={"tea": "line-1", "cup": "line-2"})
    order_no = order["order_no"]
    market.bank.begin(order_no, payment_no="P-1")
    market.wait_for_told(ann, order_no, ["pending_payment", "P-1 opened"])
    market.shop.wait_until(lambda: market.bank.status_of(order_no), "the bank knows the order")
    market.bank.pay(order_no, trade_no="T-1")
    paid = ann.wait_for(order_no, "paid")
    market.shop.wait_until(lambda: market.bank.status_of(order_no) == "paid", "the bank is told")

    market.shop.wait_until(
        lambda: market.cart.item_ids["ann"] == {"another"}, "the ordered lines left the cart"
    )
    assert (paid["pay_channel"], paid["trade_no"]) == ("foreign-bank", "T-1")
    market.wait_for_told(ann, order_no, ["pending_payment", "P-1 opened", "paid", "T-1 accepted"])


# One of each way to declare, one on each database: waiting for a deadline takes its time.
@pytest.mark.parametrize(
    "market",
    ["plain, they declare first", "full, on sqlite, they look for what is there"],
    indirect=True,
)
def test_a_payment_that_comes_too_late_goes_back(market: Market) -> None:
    with Buyer(market.shop, "late") as late:
        late.wait_for(market.late_no, "closed")
        market.shop.wait_until(
            lambda: market.bank.status_of(market.late_no) == "closed", "the bank is told"
        )

        market.bank.pay(market.late_no, trade_no="T-late")

        market.wait_for_told(
            late,
            market.late_no,
            ["pending_payment", "closed", "T-late refund", "refund requested", "refund succeeded"],
        )
    (refund,) = market.bank.refunds_of(market.late_no)
    assert (refund["reason"], refund["trade_no"]) == ("late_payment", "T-late")
    assert refund["amount"] == Digits("25.00")


def test_what_comes_more_than_once_takes_effect_once(market: Market, ann: Buyer) -> None:
    order_no = place_known_order(market, ann)

    for _ in range(3):
        market.bank.begin(order_no, payment_no="P-twice")
    market.wait_for_told(ann, order_no, ["pending_payment", "P-twice opened"])
    market.bank.pay(order_no, trade_no="T-twice", copy_count=3)
    ann.wait_for(order_no, "paid")
    market.bank.pay(order_no, trade_no="T-again", copy_count=3)

    market.wait_for_told(
        ann,
        order_no,
        [
            "pending_payment",
            "P-twice opened",
            "paid",
            "T-twice accepted",
            "T-again refund",
            "refund requested",
            "refund succeeded",
        ],
    )
    # Behind all the copies: once this one has arrived, they have.
    last_no = place_known_order(market, ann)
    market.bank.pay(last_no, trade_no="T-last")
    ann.wait_for(last_no, "paid")
    assert "refund succeeded" in told(ann.timeline(order_no))
    (refund,) = market.bank.refunds_of(order_no)
    assert (refund["reason"], refund["trade_no"]) == ("double_payment", "T-again")
    assert set_aside(market) == []


def test_copies_under_other_message_ids_are_known_by_what_they_are_about(
    market: Market, ann: Buyer
) -> None:
    order_no = place_known_order(market, ann)
    payment = {"order_no": order_no, "trade_no": "T-ids", "amount": 25}

    for _ in range(3):
        market.program.send_with_library_defaults("payment.success.notify", payment)
    ann.wait_for(order_no, "paid")
    market.program.send_with_library_defaults(
        "payment.opened.notify", {"order_no": order_no, "payment_no": "P-ids"}
    )

    market.wait_for_told(
        ann, order_no, ["pending_payment", "paid", "T-ids accepted", "P-ids opened"]
    )
    assert market.bank.refunds_of(order_no) == []
    assert set_aside(market) == []
