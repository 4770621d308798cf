"""An outside channel: it signs what it reports, by Standard Webhooks.

The signature is over the id, the time and the raw bytes of the body; a message older or newer than
300 s is refused, so a copy taken on the way is of no use later. Several secrets may be valid at
once, for a channel that changes its own. Within the 300 s a copy may come again: a repeat of
something settled changes nothing, so no list of ids seen is kept.

This release has no connection for refunds to an outside channel: every refund is answered as
failed, with a reason that tells the operator to give the money back by hand.
"""

import re
from collections.abc import Sequence

from standardwebhooks import Webhook, WebhookVerificationError

from orderkeep.payments.channels.channel import Notification, RefundFailed, RefundOrder
from orderkeep.refusal import Refusal

# Whole seconds since 1970, as the standard writes them. The library would take any text that
# Python reads as a number, and sign the whole seconds of it.
_TIMESTAMP = re.compile(r"[0-9]{1,12}")


class SignedChannel:
    """A channel that proves itself by signatures."""

    def __init__(self, name: str, *, secrets: Sequence[str]) -> None:
        """Trust whoever signs with one of the secrets.

        Args:
            name: The channel's name in payments and in the path of its notifications.
            secrets: `whsec_` and base64; any of them is valid.

        Raises:
            ValueError: there is no secret; the settings have checked what each of them holds.
        """
        if not secrets:
            message = f"channel {name} has no secret"
            raise ValueError(message)
        self._name = name
        self._verifiers = [Webhook(secret) for secret in secrets]

    def verify(self, notification: Notification) -> None:
        """Pass if one of the secrets signed this body at most 300 s ago.

        Raises:
            Refusal: `unauthenticated`.
        """
        headers = dict(notification.headers)
        is_signed = _TIMESTAMP.fullmatch(headers.get("webhook-timestamp", "")) is not None
        if not is_signed or not any(
            _accepts(verifier, notification.body, headers) for verifier in self._verifiers
        ):
            raise Refusal(
                "unauthenticated",
                f"The notification is not signed by channel {self._name} within the last 300 s.",
            )

    async def refund(self, order: RefundOrder) -> RefundFailed:
        """Decline: there is no connection to ask."""
        return RefundFailed(
            reason=(
                f"channel {self._name} has no connection for refunds:"
                f" give back trade {order.trade_no} there by hand"
            )
        )


def _accepts(verifier: Webhook, body: bytes, headers: dict[str, str]) -> bool:
    try:
        verifier.verify(body, headers, json_parse=False)
    except (WebhookVerificationError, ValueError):
        # ValueError: a body that is not UTF-8, or a signature header of another shape.
        return False
    return True
