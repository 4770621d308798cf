"""The key that makes a repeated request the same request."""

from collections.abc import Sequence

import pytest

from orderkeep.orders.idempotency_key import KeyKind, choose_key, read_key
from orderkeep.refusal import Refusal

# Every visible ASCII character.
VISIBLE = "".join(chr(code) for code in range(0x21, 0x7F))


def test_a_token_is_the_key() -> None:
    assert choose_key(token="ot1.5", headers=[]) == (KeyKind.TOKEN, "ot1.5")


def test_a_header_is_the_key() -> None:
    assert choose_key(token=None, headers=["k-1"]) == (KeyKind.HEADER, "k-1")


@pytest.mark.parametrize(
    ("token", "headers", "code"),
    [
        pytest.param(None, [], "idempotency_key_missing", id="neither"),
        pytest.param("t", ["k"], "idempotency_key_ambiguous", id="both"),
        pytest.param("t", [""], "idempotency_key_ambiguous", id="both, one of them empty"),
        pytest.param(None, ["k", "l"], "idempotency_key_ambiguous", id="two headers"),
        pytest.param(None, ["k", "k"], "idempotency_key_ambiguous", id="one header twice"),
        pytest.param(None, [""], "idempotency_key_invalid", id="an empty header"),
    ],
)
def test_a_request_without_exactly_one_key_is_refused(
    token: str | None, headers: Sequence[str], code: str
) -> None:
    with pytest.raises(Refusal) as refused:
        choose_key(token=token, headers=headers)

    assert refused.value.code == code


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("k", "k"),
        ('"k"', "k"),
        ('"', '"'),
        ('""k""', '"k"'),
        ('"k', '"k'),
        ('k"', 'k"'),
        (VISIBLE, VISIBLE),
        (f'"{VISIBLE}"', VISIBLE),
        ("k" * 255, "k" * 255),
        ('"' + "k" * 255 + '"', "k" * 255),
    ],
)
def test_a_key_in_quotes_is_the_same_key_as_without(text: str, key: str) -> None:
    assert read_key(text) == key


@pytest.mark.parametrize(
    "text",
    ["", '""', " ", "a b", '"a b"', "a\tb", "a\n", "\x7f", "\x1f", "ключ", "é", "k" * 256],
)
def test_what_is_not_1_to_255_visible_ascii_characters_is_no_key(text: str) -> None:
    with pytest.raises(Refusal) as refused:
        read_key(text)

    assert refused.value.code == "idempotency_key_invalid"
