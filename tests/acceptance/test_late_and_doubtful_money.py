"""Money that comes late revives its order, and money in doubt is settled on the command line."""

from pathlib import Path

import pytest

from tests.acceptance.buyer import Buyer, Json
from tests.acceptance.running import RunningShop, start_shop
from tests.acceptance.setups import opened


@pytest.mark.parametrize("name", ["sqlite, database queues", "postgresql, rabbitmq, hold queue"])
def test_late_money_revives_an_order_on_its_whole_way(name: str, tmp_path: Path) -> None:
    with (
        opened(
            name,
            tmp_path,
            order_timeout_s=2,
            payment_extension_s=0,
            late_payment_policy="revive",
        ) as shop,
        Buyer(shop, "ann") as ann,
    ):
        shop.put_sku("tea", stock=5)
        order_no = ann.order({"tea": 2})["order_no"]
        payment_no = ann.open_payment(order_no)["payment_no"]
        ann.wait_for(order_no, "closed")

        ann.settle(payment_no)
        paid = ann.wait_for(order_no, "paid")
        with shop.operator() as operator:
            report = shop.wait_until(
                lambda: operator.get("/admin/timed-out-orders").json()["items"], "it is reported"
            )
            sku = operator.get("/admin/skus/tea").json()
        verified = shop.command("verify")
        timeline = ann.timeline(order_no)

    states = [item["to_status"] for item in timeline if item["kind"] == "state"]
    assert states == ["pending_payment", "closed", "paid"]
    assert paid["version"] == 3
    assert paid["closed_at"] < paid["paid_at"]
    assert "close_reason" not in paid
    assert [(it["order_no"], it["is_recovered"]) for it in report] == [(order_no, True)]
    assert (sku["available"], sku["reserved"], sku["sold"]) == (3, 0, 2)
    assert verified.returncode == 0, verified.stdout


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory):
    with start_shop(tmp_path_factory.mktemp("shop")) as shop:
        shop.put_sku("tea", stock=10)
        yield shop


def pay_from_outside(shop: RunningShop, order_no: str, trade_no: str, *, amount: float) -> Json:
    """Report a payment that the bundled payment service knows nothing of; return its case."""
    with shop.operator() as operator:
        answer = operator.post(
            "/queues/payment.success.notify/messages",
            json={"order_no": order_no, "trade_no": trade_no, "amount": amount, "currency": "CNY"},
        )
        assert answer.status_code == 202, answer.text

    def case() -> Json | None:
        cases = shop.command_json("payment-cases", "list")["items"]
        return next((it for it in cases if it["trade_no"] == trade_no), None)

    return shop.wait_until(case, f"{trade_no} is a case")


def test_a_case_is_accepted_on_the_command_line_once(shop: RunningShop) -> None:
    with Buyer(shop, "ann") as ann:
        order_no = ann.order({"tea": 1})["order_no"]
        case_id = str(pay_from_outside(shop, order_no, "C-1", amount=9.99)["id"])

        listed = shop.command("payment-cases", "list")
        done = shop.command("payment-cases", "resolve", case_id, "accept", "--reason", "rounding")
        again = shop.command("payment-cases", "resolve", case_id, "refund", "--reason", "no")
        shown = shop.command_json("payment-cases", "show", case_id)
        order = ann.wait_for(order_no, "paid")
    filters = ("--action", "payment_cases.resolve", "--subject", case_id)
    audited = shop.command_json("audit", "list", *filters)

    assert "amount_mismatch" in listed.stdout
    assert done.returncode == 0
    assert done.stdout.split() == f"The case {case_id} is resolved: accept.".split()
    assert (again.returncode, again.stdout) == (1, "")
    assert "was resolved by cli:" in again.stderr
    assert (shown["state"], shown["action"], shown["reason"]) == ("resolved", "accept", "rounding")
    assert order["trade_no"] == "C-1"
    assert [(it["subject"], it["reason"]) for it in audited["items"]] == [(case_id, "rounding")]


def test_a_refund_that_fails_is_seen_wherever_an_operator_looks(shop: RunningShop) -> None:
    with Buyer(shop, "ann") as ann:
        order_no = ann.order({"tea": 1})["order_no"]
    case_id = str(pay_from_outside(shop, order_no, "C-2", amount=1.0)["id"])
    shop.command("payment-cases", "resolve", case_id, "refund", "--reason", "too little")

    def failed() -> Json | None:
        case = shop.command_json("payment-cases", "show", case_id)
        return case if case["refund"]["status"] == "failed" else None

    case = shop.wait_until(failed, "the refund has failed")
    shown = shop.command("payment-cases", "show", case_id)
    listed = shop.command_json("orders", "list", "--refund", "failed")
    status = shop.command("status")
    with shop.client() as client:
        metrics = client.get(str(client.base_url).removesuffix("/api/v1/") + "/metrics").text

    assert "C-2" in case["refund"]["failure_reason"]
    assert case["refund"]["failure_reason"] in " ".join(shown.stdout.split())
    assert order_no in [order["order_no"] for order in listed["items"]]
    assert "failed refunds 1" in " ".join(status.stdout.split())
    assert "\norderkeep_refunds_failed 1.0\n" in metrics


@pytest.mark.parametrize(
    "arguments",
    [
        ("1", "keep", "--reason", "x"),
        ("1", "accept"),
        ("1", "accept", "--reason", ""),
        ("1", "accept", "--reason", "x" * 501),
    ],
)
def test_a_verdict_that_cannot_be_taken_is_wrong_usage(
    shop: RunningShop, arguments: tuple[str, ...]
) -> None:
    assert shop.command("payment-cases", "resolve", *arguments).returncode == 2


def test_a_case_that_is_not_there_is_said_so(shop: RunningShop) -> None:
    done = shop.command("payment-cases", "show", "999999")

    assert done.returncode == 1
    assert "There is no payment case 999999." in done.stderr
