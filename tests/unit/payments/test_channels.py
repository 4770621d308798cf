"""Channels: who is believed, and what becomes of a refund."""

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from standardwebhooks import Webhook

from orderkeep.payments.channels.channel import (
    Notification,
    RefundFailed,
    RefundOrder,
    RefundSucceeded,
)
from orderkeep.payments.channels.known_channels import known_channels
from orderkeep.payments.channels.sandbox import SandboxChannel, trade_no_of
from orderkeep.payments.channels.signed import SignedChannel
from orderkeep.refusal import Refusal


def _secret(letter: bytes) -> str:
    return "whsec_" + base64.b64encode(letter * 32).decode()


OLD_SECRET = _secret(b"o")
NEW_SECRET = _secret(b"n")
BODY = json.dumps({"payment_no": "P1", "amount": "100.00", "reason": "päid"}).encode()
ORDER = RefundOrder(refund_no="R1", trade_no="T1", amount_minor=10_000, currency="CNY")


def _signed(
    body: bytes = BODY, *, secret: str = OLD_SECRET, age_s: float = 0.0, **changed: str
) -> Notification:
    # The library reads the wall clock, and nothing else can sign for now.
    moment = datetime.now(UTC) - timedelta(seconds=age_s)  # noqa: TID251
    headers = {
        "webhook-id": "n1",
        "webhook-timestamp": str(int(moment.timestamp())),
        "webhook-signature": Webhook(secret).sign("n1", moment, body.decode()),
    }
    headers.update({name.replace("_", "-"): value for name, value in changed.items()})
    return Notification(headers=headers, body=body)


@pytest.fixture
def channel() -> SignedChannel:
    return SignedChannel("bank", secrets=[OLD_SECRET, NEW_SECRET])


@pytest.mark.parametrize("secret", [OLD_SECRET, NEW_SECRET])
def test_any_of_its_secrets_proves_the_channel(channel: SignedChannel, secret: str):
    channel.verify(_signed(secret=secret))


def test_one_good_signature_among_others_is_enough(channel: SignedChannel):
    good = _signed(secret=NEW_SECRET).headers["webhook-signature"]
    other = _signed(secret=_secret(b"x")).headers["webhook-signature"]

    channel.verify(_signed(webhook_signature=f"v2,abc {other} {good}"))


@pytest.mark.parametrize("age_s", [290, -290])
def test_a_clock_may_be_off_by_nearly_300_s(channel: SignedChannel, age_s: int):
    channel.verify(_signed(age_s=age_s))


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"secret": _secret(b"x")}, id="a secret that is not the channel's"),
        pytest.param({"age_s": 310}, id="older than 300 s"),
        # Signed when the test runs, and looked at a moment later.
        pytest.param({"age_s": -360}, id="newer than 300 s"),
        pytest.param({"webhook_id": "n2"}, id="another id"),
        pytest.param({"webhook_id": ""}, id="no id"),
        pytest.param({"webhook_timestamp": "1"}, id="another time"),
        pytest.param({"webhook_timestamp": ""}, id="no time"),
        pytest.param({"webhook_timestamp": "nan"}, id="a time that is no number"),
        pytest.param({"webhook_timestamp": "1e9"}, id="a time that is no whole number"),
        pytest.param({"webhook_timestamp": "9" * 12}, id="a time beyond every calendar"),
        pytest.param({"webhook_signature": ""}, id="no signature"),
        pytest.param({"webhook_signature": "v1"}, id="a signature of another shape"),
        pytest.param({"webhook_signature": "v1,a,b"}, id="a signature in three parts"),
        pytest.param({"webhook_signature": "v1,é"}, id="a signature outside ASCII"),
        pytest.param({"webhook_signature": "v1,a"}, id="a signature that is not base64"),
    ],
)
def test_what_the_channel_did_not_sign_lately_is_refused(
    channel: SignedChannel, changed: dict[str, Any]
):
    with pytest.raises(Refusal) as refused:
        channel.verify(_signed(**changed))

    assert refused.value.code == "unauthenticated"


@pytest.mark.parametrize(
    "body",
    [
        BODY.replace(b"100", b"101"),
        BODY + b" ",
        BODY[:-1],
        b"\xff" + BODY,
        json.dumps(json.loads(BODY), indent=1).encode(),
        b"",
    ],
    ids=["one byte changed", "one more", "one less", "not UTF-8", "the same JSON", "nothing"],
)
def test_another_body_than_the_signed_one_is_refused(channel: SignedChannel, body: bytes):
    signed = _signed()

    with pytest.raises(Refusal, match="unauthenticated"):
        channel.verify(Notification(headers=signed.headers, body=body))


def test_a_notification_without_headers_is_refused(channel: SignedChannel):
    with pytest.raises(Refusal, match="unauthenticated"):
        channel.verify(Notification(headers={}, body=BODY))


def test_a_time_with_a_fraction_is_refused_though_the_library_signs_its_whole_seconds(
    channel: SignedChannel,
):
    signed = _signed()
    moment = signed.headers["webhook-timestamp"]

    with pytest.raises(Refusal, match="unauthenticated"):
        channel.verify(_signed(webhook_timestamp=f"{moment}.5"))


def test_a_secret_that_was_taken_away_proves_nothing():
    channel = SignedChannel("bank", secrets=[NEW_SECRET])

    with pytest.raises(Refusal, match="unauthenticated"):
        channel.verify(_signed(secret=OLD_SECRET))


def test_a_channel_without_a_secret_cannot_be():
    with pytest.raises(ValueError, match="channel bank has no secret"):
        SignedChannel("bank", secrets=[])


async def test_an_outside_channel_gives_nothing_back_and_says_what_to_do(channel: SignedChannel):
    answer = await channel.refund(ORDER)

    assert answer == RefundFailed(
        reason="channel bank has no connection for refunds: give back trade T1 there by hand"
    )


async def test_the_sandbox_gives_back_under_a_number_that_stays_the_same():
    answers = [await SandboxChannel().refund(ORDER), await SandboxChannel().refund(ORDER)]

    assert answers == [RefundSucceeded(channel_refund_no="SBX-R1")] * 2


def test_a_payment_in_the_sandbox_has_one_trade():
    assert trade_no_of("P1") == "SBX-P1"


def test_the_sandbox_takes_no_notifications():
    with pytest.raises(Refusal, match="not_found"):
        SandboxChannel().verify(_signed())


def test_channels_are_those_with_secrets_and_the_sandbox_where_it_is_on():
    secrets = {"bank": [OLD_SECRET], "wallet": [NEW_SECRET]}

    with_sandbox = known_channels(sandbox_is_on=True, secrets_by_channel=secrets)
    without = known_channels(sandbox_is_on=False, secrets_by_channel=secrets)

    assert sorted(with_sandbox) == ["bank", "sandbox", "wallet"]
    assert sorted(without) == ["bank", "wallet"]


def test_no_outside_channel_can_take_the_sandboxs_name():
    with pytest.raises(ValueError, match="no outside channel can be named sandbox"):
        known_channels(sandbox_is_on=False, secrets_by_channel={"sandbox": [OLD_SECRET]})
