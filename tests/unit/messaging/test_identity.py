"""A message's identity: stable, clean, and its own where the sender gave one."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from orderkeep.messaging.identity import message_identity


def identity(**given_) -> str:
    values: dict[str, Any] = {
        "queue": "q",
        "body": b"b",
        "sender_message_id": None,
        "business_key": None,
    }
    return message_identity(**(values | given_))


def test_the_senders_id_comes_first():
    assert identity(sender_message_id=b"m-1", business_key="alipay:T1") == "m-1"


def test_the_business_key_comes_second():
    assert identity(business_key="alipay:T1") == "alipay:T1"


def test_an_empty_id_is_none():
    assert identity(sender_message_id=b"", business_key="alipay:T1") == "alipay:T1"


def test_the_hash_of_queue_and_body_comes_last():
    assert identity() == identity()
    assert identity().startswith("sha256:")
    assert identity() != identity(queue="other")
    assert identity() != identity(body=b"other")


def test_queue_and_body_are_told_apart():
    assert identity(queue="qb", body=b"") != identity(queue="q", body=b"b")


def test_an_id_that_is_no_clean_text_is_hashed():
    dirty = [b"\xff", b"a\x00b", b"line\nbreak", b"\xed\xa0\x80", b"x" * 129]

    identities = {identity(sender_message_id=raw) for raw in dirty}

    assert len(identities) == len(dirty)
    assert all(each.startswith("sha256:") for each in identities)


def test_an_id_of_128_characters_is_kept():
    assert identity(sender_message_id=b"x" * 128) == "x" * 128


def test_a_key_that_is_no_clean_text_is_hashed():
    assert identity(business_key="T\ud800").startswith("sha256:")
    assert identity(business_key="T\x00") != identity(sender_message_id=b"T\x00")


@given(st.binary(max_size=300), st.text(max_size=300), st.binary(max_size=50))
def test_an_identity_is_clean_and_its_own_identity(raw: bytes, key: str, body: bytes):
    found = identity(sender_message_id=raw, business_key=key, body=body)

    assert 1 <= len(found) <= 128
    assert found.isprintable()
    assert identity(sender_message_id=found.encode(), business_key=key, body=body) == found
