"""The webhook worker: sends order events to their receivers, signed, in order, until they answer.

Invariant: deliveries of one order to one receiver leave one at a time, in order; the next waits
until the one before has been accepted or given up. Receivers do not wait for each other, whatever
one of them does. Of several workers one claims a delivery, for longer than a try takes. A crash
between a receiver's answer and our record sends the delivery again, once the claim has run out,
with the same id: receivers drop what they have.

Format: Standard Webhooks 1.0. Any 2xx is success; a redirect is a failure, never followed.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

import httpx
import structlog
from standardwebhooks import Webhook

from orderkeep.database.transaction import (
    Database,
    ReadTransaction,
    StoreUnavailableError,
    Transaction,
)
from orderkeep.failure_points import reach
from orderkeep.instant import MICROSECONDS_PER_SECOND, Instant, after
from orderkeep.messaging.retry_schedule import pause_before_attempt
from orderkeep.messaging.signal import Signal
from orderkeep.orders.store.webhooks import (
    WebhookDelivery,
    WebhookResult,
    claim_deliveries,
    find_next_due,
    list_receivers,
    release_deliveries,
    settle_deliveries,
)

log = structlog.get_logger()

# Deliveries under way to one receiver at once: few enough that five receivers that hang leave
# connections to the others, of which a client has 100.
_BATCH_SIZE_MAX = 20

# The poll that finds what other processes recorded, and what a missed wake-up left.
_POLL_INTERVAL_S = 5.0

# A receiver gets this long; Standard Webhooks advises 15 to 30 s.
RECEIVER_TIMEOUT_S = 15.0

# How long a claim holds: a try, and its record. Whoever claimed is done well before, or dead.
CLAIM_S = 30.0

# Where something is due and another worker is just claiming it: it is done in a moment.
_CLAIMED_BY_OTHERS_S = 0.1

# What a receiver says besides its status is not wanted: so much of it is read at most.
DRAIN_TIMEOUT_S = 1.0
_DRAINED_LENGTH_MAX = 64 * 1024

_DISPLAYED_ERROR_LENGTH_MAX = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookPolicy:
    """How deliveries are made.

    Attributes:
        secrets: `whsec_` and base64 each; every one signs, so that receivers can rotate.
        retry_for_s: From the event until a delivery is given up.
    """

    secrets: tuple[str, ...]
    retry_base_s: float
    retry_max_s: float
    retry_for_s: float


class WebhookWorker:
    """Sends what is due and waits for what comes, each receiver in a lane of its own."""

    def __init__(
        self,
        *,
        database: Database,
        client: httpx.AsyncClient,
        policy: WebhookPolicy,
        recorded: Signal,
        draw_jitter: Callable[[], float],
    ) -> None:
        """Send the deliveries recorded in the database.

        Args:
            client: Follows no redirects.
            recorded: Set when deliveries were recorded.
            draw_jitter: Draws 0.0..1.0.
        """
        self._database = database
        self._client = client
        self._policy = policy
        self._recorded = recorded
        self._draw_jitter = draw_jitter

    async def run(self, stop: asyncio.Event) -> None:
        """Send until told to stop; what is under way then is finished first."""
        wake_ups: dict[str, Signal] = {}
        async with self._recorded.also_set_by(stop), asyncio.TaskGroup() as lanes:
            while not stop.is_set():
                self._recorded.clear()
                for receiver in await self._find_receivers():
                    if receiver not in wake_ups:
                        wake_up = wake_ups[receiver] = Signal()
                        lanes.create_task(self._serve(receiver, wake_up=wake_up, stop=stop))
                for wake_up in wake_ups.values():
                    wake_up.set()
                await self._recorded.wait(timeout_s=_POLL_INTERVAL_S)
            for wake_up in wake_ups.values():
                wake_up.set()

    async def send_due(self, receiver: str) -> float:
        """Send one batch of what is due for a receiver; return in how many seconds to look again.

        Raises:
            StoreUnavailableError: the database is away; what was sent and could not be recorded
                is sent again once the claim has run out.
        """
        wait_s = await self._database.read(partial(_due_in_s, receiver=receiver))
        if wait_s > 0:
            return wait_s
        claimed, now = await self._database.transact(partial(_claim, receiver=receiver))
        if not claimed:
            return _CLAIMED_BY_OTHERS_S
        results = await asyncio.gather(*(self._send(delivery, now=now) for delivery in claimed))
        reach("webhooks.after_send")

        async def write(transaction: Transaction) -> None:
            settled_at = await transaction.now()
            await settle_deliveries(transaction, results, now=settled_at)

        await self._database.transact(write)
        return 0.0

    async def _find_receivers(self) -> Sequence[str]:
        try:
            return await self._database.read(list_receivers)
        except StoreUnavailableError as error:
            log.warning("webhooks_postponed", reason=str(error))
            return []

    async def _serve(self, receiver: str, *, wake_up: Signal, stop: asyncio.Event) -> None:
        while not stop.is_set():
            wake_up.clear()
            try:
                wait_s = await self.send_due(receiver)
            except StoreUnavailableError as error:
                log.warning("webhooks_postponed", receiver=receiver, reason=str(error))
                wait_s = _POLL_INTERVAL_S
            if not stop.is_set():
                await wake_up.wait(timeout_s=wait_s)

    async def _send(self, delivery: WebhookDelivery, *, now: Instant) -> WebhookResult:
        try:
            async with asyncio.timeout(RECEIVER_TIMEOUT_S):
                status = await self._post(delivery, now=now)
        except TimeoutError:
            error = f"no answer in {RECEIVER_TIMEOUT_S:g} s"
            return self._failed(delivery, error=error, now=now)
        except (httpx.HTTPError, httpx.InvalidURL) as failure:
            error = f"{type(failure).__name__}: {failure}"
            return self._failed(delivery, error=error, now=now)
        except Exception as failure:
            # A mistake of ours, met by this delivery: it must not take its neighbours with it.
            log.exception(
                "webhook_broken", order_no=delivery.order_no, message_id=delivery.message_id
            )
            error = f"{type(failure).__name__}: {failure}"
            return self._failed(delivery, error=error, now=now)
        if not httpx.codes.is_success(status):
            phrase = httpx.codes.get_reason_phrase(status)
            return self._failed(delivery, error=f"HTTP {status} {phrase}".rstrip(), now=now)
        log.info(
            "webhook_sent",
            order_no=delivery.order_no,
            message_id=delivery.message_id,
            type=delivery.type,
            receiver=delivery.receiver,
        )
        return WebhookResult(
            delivery_id=delivery.delivery_id,
            attempts=delivery.attempts,
            state="sent",
            next_attempt_at=now,
            error=None,
        )

    async def _post(self, delivery: WebhookDelivery, *, now: Instant) -> int:
        """Post the delivery and return the status: all of the answer that counts."""
        headers = signed_headers(
            message_id=delivery.message_id,
            timestamp_s=now // MICROSECONDS_PER_SECOND,
            body=delivery.body,
            secrets=self._policy.secrets,
        )
        async with self._client.stream(
            "POST",
            delivery.receiver,
            content=delivery.body,
            headers=headers,
            timeout=RECEIVER_TIMEOUT_S,
            follow_redirects=False,
        ) as answer:
            await _drain(answer)
        return answer.status_code

    def _failed(self, delivery: WebhookDelivery, *, error: str, now: Instant) -> WebhookResult:
        pause_s = pause_before_attempt(
            delivery.attempts + 1,
            jitter=self._draw_jitter(),
            base_s=self._policy.retry_base_s,
            max_s=self._policy.retry_max_s,
        )
        next_attempt_at = after(now, seconds=pause_s)
        gives_up = next_attempt_at > after(delivery.created_at, seconds=self._policy.retry_for_s)
        log.warning(
            "webhook_given_up" if gives_up else "webhook_failed",
            order_no=delivery.order_no,
            message_id=delivery.message_id,
            type=delivery.type,
            receiver=delivery.receiver,
            attempt=delivery.attempts + 1,
            error=error,
        )
        return WebhookResult(
            delivery_id=delivery.delivery_id,
            attempts=delivery.attempts,
            state="failed" if gives_up else "pending",
            next_attempt_at=next_attempt_at,
            error=error[:_DISPLAYED_ERROR_LENGTH_MAX],
        )


def signed_headers(
    *, message_id: str, timestamp_s: int, body: bytes, secrets: Sequence[str]
) -> dict[str, str]:
    """Return the headers of Standard Webhooks 1.0 for a body, signed with every secret."""
    moment = datetime.fromtimestamp(timestamp_s, tz=UTC)
    # A foreign sender may have given the event an id that no header can hold.
    webhook_id = message_id.encode("ascii", "backslashreplace").decode()
    signatures = [
        Webhook(secret).sign(msg_id=webhook_id, timestamp=moment, data=body.decode())
        for secret in secrets
    ]
    return {
        "content-type": "application/json",
        "webhook-id": webhook_id,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": " ".join(signatures),
    }


async def release_webhook_claims(transaction: Transaction) -> int:
    """Let every open delivery be made at once; return how many would have waited.

    Only for a start that knows itself alone: whoever claimed them is dead. A claim looks like a
    pause between two tries, so pauses end as well; the receiver is tried once more, no harm done.
    """
    return await release_deliveries(transaction, now=await transaction.now())


async def _due_in_s(transaction: ReadTransaction, *, receiver: str) -> float:
    """Return in how many seconds a delivery to the receiver may be made."""
    next_due = await find_next_due(transaction, receiver=receiver)
    if next_due is None:
        return _POLL_INTERVAL_S
    wait_s = (next_due - await transaction.now()) / MICROSECONDS_PER_SECOND
    return min(_POLL_INTERVAL_S, max(0.0, wait_s))


async def _claim(
    transaction: Transaction, *, receiver: str
) -> tuple[Sequence[WebhookDelivery], Instant]:
    """Claim what is due for the receiver; return it, and the time."""
    now = await transaction.now()
    claimed = await claim_deliveries(
        transaction,
        receiver=receiver,
        now=now,
        until=after(now, seconds=CLAIM_S),
        limit_count=_BATCH_SIZE_MAX,
    )
    return claimed, now


async def _drain(answer: httpx.Response) -> None:
    """Read a short answer to its end, so that the connection can be used again; leave the rest."""
    length = 0
    with contextlib.suppress(httpx.HTTPError, TimeoutError):
        async with asyncio.timeout(DRAIN_TIMEOUT_S):
            async for chunk in answer.aiter_raw():
                length += len(chunk)
                if length > _DRAINED_LENGTH_MAX:
                    return
