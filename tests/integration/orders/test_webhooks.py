"""The webhook worker, against receivers that answer, fail, hang, redirect and come back."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import httpx
import pytest
from standardwebhooks import Webhook
from structlog.typing import EventDict

from orderkeep.database.transaction import Database, StoreUnavailableError, Transaction
from orderkeep.messaging.signal import Signal
from orderkeep.orders.store.webhooks import WebhookDelivery, insert_deliveries
from orderkeep.orders.webhooks import WebhookPolicy, WebhookWorker, release_webhook_claims
from tests.integration.orders.receiver import (
    DRIP,
    FAILURE,
    GARBAGE,
    HANG,
    OK,
    WebhookReceiver,
)
from tests.integration.orders.shop import PATIENCE_S, CountingDatabase, Shop, only, until

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OLD_SECRET = "whsec_b2xkIHNlY3JldCBvZiB0aGUgc2hvcA=="

Listen = Callable[[WebhookReceiver], Awaitable[WebhookReceiver]]


class Office:
    """A worker and its deliveries; pauses are exactly as long as their mean."""

    def __init__(self, database: Database, client: httpx.AsyncClient) -> None:
        self.shop = Shop(database)
        self.counted = CountingDatabase(database)
        self.recorded = Signal()
        self._client = client
        self._message_ids = itertools.count(1)

    def worker(
        self,
        *,
        base_s: float = 60.0,
        max_s: float = 3_600.0,
        retry_for_s: float = 86_400.0,
        secrets: tuple[str, ...] = (SECRET,),
    ) -> WebhookWorker:
        return WebhookWorker(
            database=self.counted,
            client=self._client,
            policy=WebhookPolicy(
                secrets=secrets, retry_base_s=base_s, retry_max_s=max_s, retry_for_s=retry_for_s
            ),
            recorded=self.recorded,
            draw_jitter=lambda: 0.5,
        )

    @asynccontextmanager
    async def at_work(self, worker: WebhookWorker) -> AsyncIterator[None]:
        """Let the worker run as long as the context lasts."""
        stop = asyncio.Event()
        running = asyncio.create_task(worker.run(stop))
        try:
            yield
        finally:
            stop.set()
            async with asyncio.timeout(PATIENCE_S):
                await running

    async def record(
        self, *urls: str, order_no: str = "01", count: int = 1, message_id: str | None = None
    ) -> list[str]:
        """Record events of an order for each receiver; return the messages' ids."""
        message_ids = [message_id or f"m{next(self._message_ids)}" for _ in range(count)]

        async def work(transaction: Transaction) -> None:
            now = await transaction.now()
            await insert_deliveries(
                transaction,
                [
                    WebhookDelivery(
                        delivery_id=0,
                        receiver=url,
                        message_id=message_id,
                        order_no=order_no,
                        type="order.paid",
                        body=json.dumps({"type": "order.paid", "is": message_id}).encode(),
                        attempts=0,
                        created_at=now,
                    )
                    for message_id in message_ids
                    for url in urls
                ],
            )

        await self.shop.database.transact(work)
        self.recorded.set()
        return message_ids

    def rows(self) -> list[dict[str, Any]]:
        return self.shop.rows("SELECT * FROM webhook_deliveries ORDER BY id")

    def states(self) -> list[tuple[str, str, int]]:
        """Return each delivery's message, state and tries."""
        return [(row["message_id"], row["state"], row["attempts"]) for row in self.rows()]

    def make_due(self) -> None:
        """Let every pause be over."""
        self.shop.write("UPDATE webhook_deliveries SET next_attempt_at = created_at")

    def age(self, *, seconds: float) -> None:
        """Let every delivery have been recorded so long ago, and be due."""
        self.shop.write(
            "UPDATE webhook_deliveries SET created_at = created_at - :age,"
            " next_attempt_at = created_at - :age",
            age=round(seconds * 1_000_000),
        )


@pytest.fixture
async def office(database: Database) -> AsyncIterator[Office]:
    async with httpx.AsyncClient(follow_redirects=False, trust_env=False) as client:
        yield Office(database, client)


@pytest.fixture
async def listen() -> AsyncIterator[Listen]:
    """Lets receivers listen until the test is over."""
    async with AsyncExitStack() as listening:

        async def start(receiver: WebhookReceiver) -> WebhookReceiver:
            return await listening.enter_async_context(receiver.listen())

        yield start


async def test_a_delivery_is_a_signed_post_of_its_body(office: Office, listen: Listen) -> None:
    receiver = await listen(WebhookReceiver())
    await office.record(receiver.url)

    await office.worker().send_due(receiver.url)

    (hook,) = receiver.hooks
    assert hook.path == "/hooks"
    assert hook.headers["content-type"] == "application/json"
    assert hook.headers["webhook-id"] == "m1"
    assert hook.body == b'{"type": "order.paid", "is": "m1"}'
    assert Webhook(SECRET).verify(hook.body, dict(hook.headers)) == {
        "type": "order.paid",
        "is": "m1",
    }
    assert only(office.rows()[0], "state", "attempts", "last_error") == {
        "state": "sent",
        "attempts": 1,
        "last_error": None,
    }
    assert office.rows()[0]["sent_at"] >= office.rows()[0]["created_at"]


async def test_each_of_several_secrets_verifies(office: Office, listen: Listen) -> None:
    receiver = await listen(WebhookReceiver())
    await office.record(receiver.url)

    await office.worker(secrets=(SECRET, OLD_SECRET)).send_due(receiver.url)

    (hook,) = receiver.hooks
    for secret in (SECRET, OLD_SECRET):
        Webhook(secret).verify(hook.body, dict(hook.headers))


async def test_an_id_that_no_header_can_hold_is_written_out(office: Office, listen: Listen) -> None:
    receiver = await listen(WebhookReceiver())
    await office.record(receiver.url, message_id="no. 7 \N{CYRILLIC SMALL LETTER KA}")

    await office.worker().send_due(receiver.url)

    (hook,) = receiver.hooks
    assert hook.message_id == "no. 7 \\u043a"
    Webhook(SECRET).verify(hook.body, dict(hook.headers))


async def test_a_delivery_that_breaks_the_worker_s_own_code_fails_alone(
    office: Office, listen: Listen, logged: list[EventDict]
) -> None:
    receiver = await listen(WebhookReceiver())
    await office.record(receiver.url, order_no="01")
    office.shop.write("UPDATE webhook_deliveries SET body = :body", body=b"\xff")
    await office.record(receiver.url, order_no="02")

    await office.worker().send_due(receiver.url)

    assert office.states() == [("m1", "pending", 1), ("m2", "sent", 1)]
    assert office.rows()[0]["last_error"].startswith("UnicodeDecodeError")
    assert [line["message_id"] for line in logged if line["event"] == "webhook_broken"] == ["m1"]


@pytest.mark.parametrize("status", ["200 OK", "201 Created", "202 Accepted", "299 Something"])
async def test_every_2xx_is_success(office: Office, listen: Listen, status: str) -> None:
    answer = f"HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nhi".encode()
    receiver = await listen(WebhookReceiver(otherwise=answer))
    await office.record(receiver.url)

    await office.worker().send_due(receiver.url)

    assert office.states() == [("m1", "sent", 1)]


async def test_a_redirect_is_a_failure_and_is_not_followed(office: Office, listen: Listen) -> None:
    elsewhere = await listen(WebhookReceiver())
    moved = f"HTTP/1.1 307 Moved\r\nLocation: {elsewhere.url}\r\nContent-Length: 0\r\n\r\n"
    receiver = await listen(WebhookReceiver(otherwise=moved.encode()))
    await office.record(receiver.url)

    await office.worker().send_due(receiver.url)

    assert elsewhere.hooks == []
    assert only(office.rows()[0], "state", "last_error") == {
        "state": "pending",
        "last_error": "HTTP 307 Temporary Redirect",
    }


async def _refusing() -> str:
    """Return the URL of a port where nobody listens any more."""
    receiver = WebhookReceiver()
    async with receiver.listen():
        return receiver.url


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (FAILURE, "HTTP 500 Internal Server Error"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "HTTP 404 Not Found"),
        (b"HTTP/1.1 699 Odd\r\nContent-Length: 0\r\n\r\n", "HTTP 699"),
        (GARBAGE, "RemoteProtocolError"),
    ],
)
async def test_what_is_no_success_is_tried_again_later_with_its_error(
    office: Office, listen: Listen, answer: bytes, error: str
) -> None:
    receiver = await listen(WebhookReceiver(script=[answer]))
    await office.record(receiver.url)
    worker = office.worker()
    await worker.send_due(receiver.url)
    (row,) = office.rows()
    assert (row["state"], row["attempts"]) == ("pending", 1)
    assert row["last_error"].startswith(error)

    office.make_due()
    await worker.send_due(receiver.url)

    assert receiver.message_ids == ["m1", "m1"]
    assert only(office.rows()[0], "state", "attempts", "last_error") == {
        "state": "sent",
        "attempts": 2,
        "last_error": None,
    }


async def test_a_receiver_that_cannot_be_reached_is_tried_again_later(office: Office) -> None:
    url = await _refusing()
    await office.record(url)

    await office.worker().send_due(url)

    assert office.states() == [("m1", "pending", 1)]
    assert office.rows()[0]["last_error"].startswith("ConnectError")


@pytest.mark.parametrize("url", ["http://[bad", "nonsense", "ftp://x.example/", "http://"])
async def test_an_address_that_is_none_fails_its_delivery_and_not_the_worker(
    office: Office, url: str
) -> None:
    await office.record(url)

    await office.worker().send_due(url)

    assert office.states() == [("m1", "pending", 1)]


async def test_a_receiver_that_does_not_answer_in_time_has_failed(
    office: Office, listen: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orderkeep.orders.webhooks.RECEIVER_TIMEOUT_S", 0.1)
    receiver = await listen(WebhookReceiver(otherwise=HANG))
    await office.record(receiver.url)

    async with asyncio.timeout(PATIENCE_S):
        await office.worker().send_due(receiver.url)

    assert office.states() == [("m1", "pending", 1)]
    assert office.rows()[0]["last_error"] == "no answer in 0.1 s"


async def test_an_answer_that_never_ends_counts_by_its_status(
    office: Office, listen: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orderkeep.orders.webhooks.DRAIN_TIMEOUT_S", 0.1)
    receiver = await listen(WebhookReceiver(otherwise=DRIP))
    await office.record(receiver.url)

    async with asyncio.timeout(PATIENCE_S):
        await office.worker().send_due(receiver.url)

    assert office.states() == [("m1", "sent", 1)]


async def test_connections_are_used_again(office: Office, listen: Listen) -> None:
    receiver = await listen(WebhookReceiver(otherwise=FAILURE.replace(b"500", b"200")))
    await office.record(receiver.url, count=5)
    worker = office.worker()

    for _ in range(5):
        await worker.send_due(receiver.url)

    assert len(receiver.hooks) == 5
    assert receiver.connections_count == 1


async def test_deliveries_of_one_order_go_one_at_a_time_in_order(
    office: Office, listen: Listen
) -> None:
    receiver = await listen(WebhookReceiver(script=[OK, FAILURE]))
    await office.record(receiver.url, count=3)
    worker = office.worker()

    for _ in range(3):
        await worker.send_due(receiver.url)
    assert office.states() == [("m1", "sent", 1), ("m2", "pending", 1), ("m3", "pending", 0)]
    office.make_due()
    for _ in range(3):
        await worker.send_due(receiver.url)

    assert receiver.message_ids == ["m1", "m2", "m2", "m3"]
    assert [state for _, state, _ in office.states()] == ["sent"] * 3


async def test_an_order_that_cannot_be_delivered_holds_back_no_other_order(
    office: Office, listen: Listen
) -> None:
    receiver = await listen(WebhookReceiver(script=[FAILURE]))
    await office.record(receiver.url, order_no="01")
    await office.worker().send_due(receiver.url)
    await office.record(receiver.url, order_no="02")

    await office.worker().send_due(receiver.url)

    assert office.states() == [("m1", "pending", 1), ("m2", "sent", 1)]


async def test_pauses_double_up_to_their_longest(office: Office, listen: Listen) -> None:
    receiver = await listen(WebhookReceiver(otherwise=FAILURE))
    await office.record(receiver.url)
    worker = office.worker(base_s=60.0, max_s=200.0)
    pauses_s = []

    for _ in range(4):
        office.make_due()
        before = await _database_s(office)
        await worker.send_due(receiver.url)
        pauses_s.append(office.rows()[0]["next_attempt_at"] / 1_000_000 - before)

    assert pauses_s == pytest.approx([60.0, 120.0, 200.0, 200.0], abs=10.0)


async def _database_s(office: Office) -> float:
    async def read(transaction):
        return await transaction.now()

    return await office.shop.database.read(read) / 1_000_000


async def test_a_delivery_is_given_up_in_time_and_the_next_one_goes_on(
    office: Office, listen: Listen, logged: list[EventDict]
) -> None:
    receiver = await listen(WebhookReceiver(script=[FAILURE, FAILURE]))
    await office.record(receiver.url, count=2)
    worker = office.worker(base_s=60.0, retry_for_s=3_600.0)
    await worker.send_due(receiver.url)
    assert office.states() == [("m1", "pending", 1), ("m2", "pending", 0)]

    office.age(seconds=3_500.0)  # the next pause, of 120 s, would end after the hour
    await worker.send_due(receiver.url)
    await worker.send_due(receiver.url)

    assert receiver.message_ids == ["m1", "m1", "m2"]
    assert office.states() == [("m1", "failed", 2), ("m2", "sent", 1)]
    assert office.rows()[0]["last_error"] == "HTTP 500 Internal Server Error"
    (given_up,) = [line for line in logged if line["event"] == "webhook_given_up"]
    assert only(given_up, "order_no", "message_id", "attempt", "log_level") == {
        "order_no": "01",
        "message_id": "m1",
        "attempt": 2,
        "log_level": "warning",
    }


async def test_a_crash_between_sending_and_recording_sends_the_same_id_again(
    office: Office, listen: Listen
) -> None:
    receiver = await listen(WebhookReceiver())
    await office.record(receiver.url)
    office.counted.errors = [None, RuntimeError("a crash")]
    with pytest.raises(RuntimeError, match="a crash"):
        await office.worker().send_due(receiver.url)

    # Whoever looks meanwhile leaves it to its claim.
    assert await office.worker().send_due(receiver.url) > 0
    assert len(receiver.hooks) == 1
    await office.shop.database.transact(release_webhook_claims)
    await office.worker().send_due(receiver.url)

    first, again = receiver.hooks
    assert (first.message_id, again.message_id) == ("m1", "m1")
    assert first.body == again.body
    assert office.states() == [("m1", "sent", 1)]


async def test_of_workers_that_send_at_once_one_makes_the_try(
    office: Office, listen: Listen
) -> None:
    receiver = await listen(WebhookReceiver(otherwise=FAILURE))
    await office.record(receiver.url)

    await asyncio.gather(*(office.worker().send_due(receiver.url) for _ in range(5)))

    assert receiver.message_ids == ["m1"]
    assert office.states() == [("m1", "pending", 1)]


async def test_the_worker_sends_what_is_recorded_while_it_runs(
    office: Office, listen: Listen
) -> None:
    first = await listen(WebhookReceiver())
    second = await listen(WebhookReceiver())
    await office.record(first.url, order_no="01", count=2)

    async with office.at_work(office.worker()), asyncio.timeout(PATIENCE_S):
        await until(lambda: first.message_ids == ["m1", "m2"])
        await office.record(first.url, second.url, order_no="01")
        await office.record(first.url, second.url, order_no="02")
        await until(lambda: len(first.hooks) == 4 and len(second.hooks) == 2)
        await until(lambda: {state for _, state, _ in office.states()} == {"sent"})

    assert first.message_ids[:2] == ["m1", "m2"]
    assert sorted(second.message_ids) == ["m3", "m4"]


async def test_the_worker_tries_again_by_itself_when_a_pause_is_over(
    office: Office, listen: Listen
) -> None:
    receiver = await listen(WebhookReceiver(script=[FAILURE, FAILURE]))
    await office.record(receiver.url)

    async with office.at_work(office.worker(base_s=0.05)), asyncio.timeout(PATIENCE_S):
        await until(lambda: office.states() == [("m1", "sent", 3)])

    assert receiver.message_ids == ["m1"] * 3


async def test_a_receiver_that_hangs_holds_back_no_other_receiver(
    office: Office, listen: Listen
) -> None:
    hanging = await listen(WebhookReceiver(otherwise=HANG))
    healthy = await listen(WebhookReceiver())
    # More than one batch of the one that hangs, all longer due than anything of the other.
    for n in range(60):
        await office.record(hanging.url, order_no=f"{n}")
    stop = asyncio.Event()
    running = asyncio.create_task(office.worker().run(stop))
    await until(lambda: bool(hanging.hooks))

    for n in range(3):
        await office.record(healthy.url, order_no=f"{n}")
        await until(partial(_has_heard, healthy, hooks_count=n + 1))

    assert not running.done()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


def _has_heard(receiver: WebhookReceiver, *, hooks_count: int) -> bool:
    return len(receiver.hooks) == hooks_count


async def test_a_failing_receiver_holds_back_no_other_receiver(
    office: Office, listen: Listen
) -> None:
    failing = await listen(WebhookReceiver(otherwise=FAILURE))
    healthy = await listen(WebhookReceiver())
    await office.record(failing.url, healthy.url, count=3)

    async with office.at_work(office.worker()), asyncio.timeout(PATIENCE_S):
        await until(lambda: len(healthy.hooks) == 3)

    assert healthy.message_ids == ["m1", "m2", "m3"]
    assert failing.message_ids == ["m1"]


async def test_the_worker_outlives_an_outage_of_the_database(
    office: Office, listen: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orderkeep.orders.webhooks._POLL_INTERVAL_S", 0.05)
    receiver = await listen(WebhookReceiver())
    await office.record(receiver.url)
    office.counted.errors = [StoreUnavailableError("away")] * 2

    async with office.at_work(office.worker()), asyncio.timeout(PATIENCE_S):
        await until(lambda: office.states() == [("m1", "sent", 1)])

    assert receiver.message_ids == ["m1"]


async def test_the_worker_finds_by_itself_what_another_process_recorded(
    office: Office, listen: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orderkeep.orders.webhooks._POLL_INTERVAL_S", 0.05)
    known = await listen(WebhookReceiver())
    unknown = await listen(WebhookReceiver())
    await office.record(known.url)

    async with office.at_work(office.worker()), asyncio.timeout(PATIENCE_S):
        await until(lambda: len(known.hooks) == 1)
        own_signal, office.recorded = office.recorded, Signal()
        await office.record(known.url, unknown.url)
        await until(lambda: (len(known.hooks), len(unknown.hooks)) == (2, 1))
        office.recorded = own_signal


async def test_the_worker_stops_at_once_when_nothing_is_under_way(office: Office) -> None:
    stop = asyncio.Event()
    running = asyncio.create_task(office.worker().run(stop))

    stop.set()

    async with asyncio.timeout(PATIENCE_S):
        await running
