"""Kills a busy shop again and again, then looks whether anything is lost or doubled.

    python -m tests.acceptance.kill_runner --kills 50 --seed 7

Shoppers of `orderkeep demo` are at it all the time: half of them repeat what got no answer, with
the same key; the other half walk off and never learn. A journal between them and the network holds
every request and every answer, and at the end the shop must agree with it.
"""

import argparse
import asyncio
import random  # noqa: TID251 (kills come at random instants, from a seed that is printed)
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import TimeoutExpired
from typing import Any

import httpx
import jwt

from orderkeep.demo import DemoOptions, DemoSummary, run_demo
from tests.acceptance.books import contradictions, dead_letters, open_work, rows
from tests.acceptance.journal import Attempt, Journal, JournalingTransport, OrderKey, Outcome
from tests.acceptance.running import RunningShop, start_shop
from tests.acceptance.webhook_receiver import SECRET, WebhookReceiver, listening

# Short enough that orders time out under load, also while nobody serves.
ORDER_TIMEOUT_S = 4.0

# A run lives for up to so long after it is ready.
LIFE_S_MAX = 2.5

# So many of the kills come while it starts, before it is ready.
_SHARE_OF_KILLS_AT_START = 0.15

_DRAIN_S_MAX = 120.0
_ASKED_AT_ONCE = 32

# Longer than any run; see `_Day`.
_LONG_S = 10.0**9

# What an order may become after it was acknowledged.
_CHANGING = frozenset(
    {
        "status",
        "version",
        "paid_at",
        "closed_at",
        "cancelled_at",
        "close_reason",
        "pay_channel",
        "trade_no",
        "user_id",
    }
)


@dataclass(slots=True, kw_only=True)
class Report:
    """What a run came to; `lost`, `doubled` and `unexpected` are empty when all is well."""

    seed: int
    kill_count: int
    kills_at_start_count: int = 0
    request_count: int = 0
    unanswered_count: int = 0
    attempted_count: int = 0
    acknowledged_count: int = 0
    found_count: int = 0
    unknown_made_count: int = 0
    unknown_not_made_count: int = 0
    asked_again_count: int = 0
    payment_count: int = 0
    paid_count: int = 0
    refunded_count: int = 0
    event_count: int = 0
    webhook_count: int = 0
    webhook_cut_off_count: int = 0
    statuses: Mapping[str, int] = field(default_factory=dict)
    verify_exit_code: int | None = None
    elapsed_s: float = 0.0
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Whether nothing was lost, doubled, or otherwise wrong."""
        return not (self.lost or self.doubled or self.unexpected) and self.verify_exit_code == 0

    def table(self) -> str:
        """Return the report for a person."""
        lines: list[tuple[str, object]] = [
            ("seed", self.seed),
            ("kills (of these at start)", f"{self.kill_count} ({self.kills_at_start_count})"),
            ("requests (of these unanswered)", f"{self.request_count} ({self.unanswered_count})"),
            ("orders attempted, by key", self.attempted_count),
            ("orders acknowledged", self.acknowledged_count),
            ("... found", self.found_count),
            ("... lost", len(self.lost)),
            ("... doubled", len(self.doubled)),
            ("unknown outcomes: made", self.unknown_made_count),
            ("unknown outcomes: not made", self.unknown_not_made_count),
            ("keys asked again at the end", self.asked_again_count),
            ("payments acknowledged", self.payment_count),
            ("... paid the order", self.paid_count),
            ("... refunded", self.refunded_count),
            ("order events", self.event_count),
            (
                "... webhooks received (cut off)",
                f"{self.webhook_count} ({self.webhook_cut_off_count})",
            ),
            ("orders by status", ", ".join(f"{k} {n}" for k, n in self.statuses.items())),
            ("unexpected", len(self.unexpected)),
            ("verify --quiesced", f"exit {self.verify_exit_code}"),
            ("elapsed", f"{self.elapsed_s:.0f} s"),
        ]
        wrong = [
            f"{kind}: {text}"
            for kind, texts in (
                ("LOST", self.lost),
                ("DOUBLED", self.doubled),
                ("UNEXPECTED", self.unexpected),
            )
            for text in texts
        ]
        return "\n".join([*(f"{name:<32}{value}" for name, value in lines), *wrong])


class _Day:
    """A clock that jumps to the end of the day, when everybody goes home."""

    def __init__(self) -> None:
        self._is_over = False

    def now(self) -> float:
        return time.monotonic() + (_LONG_S if self._is_over else 0.0)

    def end(self) -> None:
        self._is_over = True


def _ignore(_number: int) -> None:
    """Show nothing."""


async def run_kills(
    folder: Path,
    *,
    kill_count: int,
    seed: int,
    shopper_count: int = 32,
    on_kill: Callable[[int], None] = _ignore,
) -> Report:
    """Let shoppers in, kill the shop so often, and report.

    Args:
        folder: Where the shop keeps its data.
        kill_count: How often it is killed.
        seed: Draws the instants, and what shoppers do.
        shopper_count: How many there are at once.
        on_kill: Told the number of each kill.
    """
    report = Report(seed=seed, kill_count=kill_count)
    # What shoppers do depends on when they are answered; the kills are the same for one seed.
    draw_kills = random.Random(seed)  # noqa: S311 (a test draws for variety)
    # One generator for both crowds: they never draw the same names.
    draw_visits = random.Random(seed + 1)  # noqa: S311
    started_s = time.monotonic()
    journal, day = Journal(), _Day()
    with (
        listening() as receiver,
        await asyncio.to_thread(
            start_shop,
            folder,
            order_timeout_s=ORDER_TIMEOUT_S,
            payment_extension_s=0,
            webhook_urls=receiver.url,
            webhook_secrets=SECRET,
        ) as shop,
    ):
        async with asyncio.TaskGroup() as group:
            crowds = [
                group.create_task(
                    _crowd(
                        shop,
                        journal,
                        day,
                        draw_visits,
                        is_resilient=it,
                        shopper_count=shopper_count // 2,
                    )
                )
                for it in (True, False)
            ]
            await asyncio.to_thread(_kill_often, shop, journal, draw_kills, report, on_kill)
            day.end()
        for crowd in crowds:
            report.unexpected += crowd.result().surprises
        await _ask_again(shop, journal, report)
        await asyncio.to_thread(_drain, shop, report)
        await _compare(shop, journal, report)
        _compare_webhooks(shop, receiver, report)
        done = await asyncio.to_thread(shop.command, "verify", "--quiesced")
        report.verify_exit_code = done.returncode
        if done.returncode:
            report.unexpected.append(done.stdout)
    report.elapsed_s = time.monotonic() - started_s
    return report


async def _crowd(
    shop: RunningShop,
    journal: Journal,
    day: _Day,
    draw: random.Random,
    *,
    is_resilient: bool,
    shopper_count: int,
) -> DemoSummary:
    options = DemoOptions(
        url=shop.url,
        shopper_count=shopper_count,
        duration_s=_LONG_S / 10,
        is_resilient=is_resilient,
        patience_s=_DRAIN_S_MAX,
        transport=JournalingTransport(journal),
    )
    return await run_demo(options, tokens=shop.token, draw=draw, clock=day.now)


def _kill_often(
    shop: RunningShop,
    journal: Journal,
    draw: random.Random,
    report: Report,
    on_kill: Callable[[int], None],
) -> None:
    """Kill the shop at random instants, and leave it running."""
    shop.wait_until(
        lambda: any(each.order_key and each.status == 201 for each in journal.attempts),
        "the first order is placed",
    )
    start_s = 1.0
    for number in range(1, report.kill_count + 1):
        is_at_start = number > 1 and draw.random() < _SHARE_OF_KILLS_AT_START
        if number > 1:
            begun_s = time.monotonic()
            if is_at_start:
                shop.start()
                report.kills_at_start_count += 1
            else:
                shop.restart()
                start_s = time.monotonic() - begun_s
        _let_live(shop, life_s=draw.uniform(0.0, start_s if is_at_start else LIFE_S_MAX))
        shop.kill()
        on_kill(number)
        assert shop.process is not None
        if shop.process.returncode != -9:
            report.unexpected.append(f"run {number} ended by itself: {shop.process.returncode}")
    shop.restart()


def _let_live(shop: RunningShop, *, life_s: float) -> None:
    assert shop.process is not None
    try:
        shop.process.wait(life_s)
    except TimeoutExpired:
        return


async def _ask_again(shop: RunningShop, journal: Journal, report: Report) -> None:
    """Repeat every order that may have been made; note what each key stands for."""
    asked = journal.orders()
    known = {
        (row[0], row[1], row[2]): row[3]
        for row in rows(
            shop.database_path, "select user_id, kind, key, order_no from order_requests"
        )
    }
    user_of = _user_by_bearer(asked)
    report.request_count = len(journal.attempts)
    report.unanswered_count = sum(each.outcome is Outcome.SENT for each in journal.attempts)
    report.attempted_count = sum(
        any(each.outcome is not Outcome.UNREACHED for each in attempts)
        for attempts in asked.values()
    )
    report.unexpected += journal.breakdowns()
    places = {key: (user_of[key.bearer], key.kind, key.text) for key in asked}
    report.unexpected += [
        f"nobody asked for the order {known[place]}" for place in known.keys() - places.values()
    ]
    tasks = asyncio.Semaphore(_ASKED_AT_ONCE)
    async with httpx.AsyncClient(base_url=shop.url, timeout=60.0, trust_env=False) as client:

        async def settle(key: OrderKey, attempts: Sequence[Attempt]) -> None:
            async with tasks:
                await _settle_key(client, attempts, order_no=known.get(places[key]), report=report)

        await asyncio.gather(*(settle(key, attempts) for key, attempts in asked.items()))


def _user_by_bearer(keys: Iterable[OrderKey]) -> dict[str, str]:
    bearers = {key.bearer for key in keys}
    return {
        bearer: jwt.decode(bearer.removeprefix("Bearer "), options={"verify_signature": False})[
            "sub"
        ]
        for bearer in bearers
    }


async def _settle_key(
    client: httpx.AsyncClient,
    attempts: Sequence[Attempt],
    *,
    order_no: str | None,
    report: Report,
) -> None:
    """Compare what one key's clients were told with what there is; then ask once more.

    Args:
        order_no: The order that the shop has for the key.
    """
    if not _compare_key(attempts, order_no=order_no, report=report):
        return
    # Only what was acknowledged is ever sent again with another body, to be refused.
    accepted = [each for each in attempts if each.status == 201]
    original = accepted[0] if accepted else attempts[0]
    first, second = [await _repeat(client, original) for _ in range(2)]
    report.asked_again_count += 1
    if order_no is None:
        # It was not made before: now it may be, or be refused, but not twice.
        order_no = first.answer.get("order_no")
    for again in (first, second):
        if again.answer.get("order_no") != order_no:
            report.doubled.append(f"the key of {order_no} was answered {again.answer}")
    if second.status == 201:
        _compare_content(original, [*accepted, first, second], report)


def _compare_key(attempts: Sequence[Attempt], *, order_no: str | None, report: Report) -> bool:
    """Note whether a key stands for what its clients were told; return whether to ask again."""
    acknowledged = sorted({each.answer["order_no"] for each in attempts if each.status == 201})
    is_open = any(each.outcome in {Outcome.SENT, Outcome.NO_VERDICT} for each in attempts)
    if len(acknowledged) > 1:
        report.doubled.append(f"one key was answered {acknowledged}")
    if acknowledged:
        report.acknowledged_count += 1
        if order_no in acknowledged:
            report.found_count += 1
        else:
            report.lost.append(f"{acknowledged}, and the key stands for {order_no}")
        return True
    if not is_open:
        if order_no is not None:
            report.unexpected.append(f"a refused request made the order {order_no}")
        return False
    if order_no is None:
        report.unknown_not_made_count += 1
    else:
        report.unknown_made_count += 1
    return True


async def _repeat(client: httpx.AsyncClient, attempt: Attempt) -> Attempt:
    sent = {"authorization", "idempotency-key"}
    response = await client.post(
        attempt.path,
        json=attempt.body,
        headers={name: text for name, text in attempt.headers.items() if name in sent},
    )
    return Attempt(
        method=attempt.method,
        path=attempt.path,
        bearer=attempt.bearer,
        headers=attempt.headers,
        body=attempt.body,
        outcome=Outcome.ANSWERED,
        status=response.status_code,
        answer=response.json(),
    )


def _compare_content(original: Attempt, accepted: Sequence[Attempt], report: Report) -> None:
    """See that every answer to one key tells of one order, and that it is what was asked for."""
    told = [each.answer for each in accepted if each.status == 201]
    lasting = [
        {name: value for name, value in order.items() if name not in _CHANGING} for order in told
    ]
    if any(order != lasting[0] for order in lasting):
        report.unexpected.append(f"an order changed under its buyer: {told[0]} {told[-1]}")
    asked = [(item["sku_id"], item["quantity"]) for item in original.body["items"]]
    made = [(item["sku_id"], item["quantity"]) for item in told[-1]["items"]]
    if made != asked:
        report.unexpected.append(f"order {told[-1]['order_no']}: asked {asked}, made {made}")


def _drain(shop: RunningShop, report: Report) -> None:
    """Wait until nothing is under way."""
    path = shop.database_path
    try:
        shop.wait_until(lambda: not open_work(path), "the shop rests", within_s=_DRAIN_S_MAX)
    except TimeoutError:
        report.unexpected.append(f"still under way: {open_work(path)}")


async def _compare(shop: RunningShop, journal: Journal, report: Report) -> None:
    """Compare the shop at rest with what clients were told, and with itself."""
    path = shop.database_path
    statuses = dict(rows(path, "select order_no, status from orders"))
    report.statuses = dict(Counter(statuses.values()).most_common())
    report.unexpected += [
        f"the cancelled order {order_no} is {statuses.get(order_no)}"
        for order_no in journal.cancelled_order_nos()
        if statuses.get(order_no) != "cancelled"
    ]
    await _compare_payments(shop, journal, report)
    report.event_count = rows(
        path, "select count(distinct message_id) from order_outbox where route = 'order.events'"
    )[0][0]
    for what, subjects in contradictions(path).items():
        report.unexpected.append(f"{what}: {len(subjects)}, such as {subjects[:3]}")
    report.unexpected += [f"dead letter of {queue}: {why}" for queue, why in dead_letters(path)]
    logged = shop.log_events()
    report.unexpected += [
        f"logged: {event}" for event in logged if event["level"] in {"error", "critical"}
    ]
    # Written after each commit of the effect: twice would be an effect that was taken twice.
    effects = Counter(
        (event["event"], event["message_id"])
        for event in logged
        if event["event"].startswith("order_") and "pay_amount" in event
    )
    report.doubled += [f"{effect} took effect {n} times" for effect, n in effects.items() if n > 1]


def _compare_webhooks(shop: RunningShop, receiver: WebhookReceiver, report: Report) -> None:
    """See that the receiver has heard of every event, in order; what came twice kept its id."""
    statement = """
        select aggregate_id, message_id from order_outbox where route = 'order.events'
        order by aggregate_id, sequence"""
    sent: dict[str, list[str]] = defaultdict(list)
    for order_no, message_id in rows(shop.database_path, statement):
        sent[order_no].append(message_id)
    arrived = receiver.by_order()
    report.webhook_count = len(receiver.arrived)
    report.webhook_cut_off_count = receiver.cut_off_count
    report.unexpected += ["a webhook with a wrong signature"] * receiver.forged_count
    report.lost += [
        f"webhooks of {order_no}: sent {ids}, arrived {arrived.get(order_no)}"
        for order_no, ids in sent.items()
        if arrived.get(order_no) != ids
    ]
    report.unexpected += [f"a webhook of no order: {it}" for it in arrived.keys() - sent.keys()]


async def _compare_payments(shop: RunningShop, journal: Journal, report: Report) -> None:
    """See that all money that came pays its order or goes back."""
    told = journal.paid_payment_nos()
    statement = "select payment_no from payments where status = 'succeeded'"
    payment_nos = told | {row[0] for row in rows(shop.database_path, statement)}
    report.payment_count = len(told)
    async with shop.async_client("operator", ["operator"]) as client:
        gate = asyncio.Semaphore(_ASKED_AT_ONCE)

        async def look(payment_no: str) -> None:
            async with gate:
                payment: Any = (await client.get(f"/payments/{payment_no}")).json()
                order: Any = (await client.get(f"/admin/orders/{payment['order_no']}")).json()
            if payment["status"] != "succeeded":
                report.lost.append(f"payment {payment_no} is {payment['status']}")
                return
            done = [it["amount"] for it in payment["refunds"] if it["status"] == "succeeded"]
            is_paid = (order["status"], order.get("trade_no")) == ("paid", payment["trade_no"])
            if is_paid and not payment["refunds"]:
                report.paid_count += payment_no in told
            elif not is_paid and done == [payment["amount"]]:
                report.refunded_count += payment_no in told
            else:
                report.lost.append(f"the money of {payment}: its order is {order}")

        await asyncio.gather(*(look(payment_no) for payment_no in sorted(payment_nos)))


def _show(number: int) -> None:
    sys.stderr.write(f"\rkill {number} ")
    sys.stderr.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it from the command line; return 0 when nothing was lost, doubled or unexpected."""
    parser = argparse.ArgumentParser(prog="python -m tests.acceptance.kill_runner")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=None, help="drawn and printed by default")
    parser.add_argument("--shoppers", type=int, default=32)
    chosen = parser.parse_args(arguments)
    seed = random.randrange(2**32) if chosen.seed is None else chosen.seed  # noqa: S311
    sys.stdout.write(f"seed {seed}\n")
    sys.stdout.flush()
    with tempfile.TemporaryDirectory(prefix="orderkeep-kills-") as folder:
        report = asyncio.run(
            run_kills(
                Path(folder),
                kill_count=chosen.kills,
                seed=seed,
                shopper_count=chosen.shoppers,
                on_kill=_show,
            )
        )
    sys.stderr.write("\n")
    sys.stdout.write(report.table() + "\n")
    return 0 if report.is_clean else 1


if __name__ == "__main__":
    sys.exit(main())
