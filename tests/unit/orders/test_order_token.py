"""One-time order tokens."""

import pytest

from orderkeep.instant import Instant
from orderkeep.orders.order_token import find_issued_at, issue_token

# 2024-01-01T10:00:00Z.
TEN = Instant(1_704_103_200_000_000)
SECRET = b"a secret of the shop"


def ann_s_token() -> str:
    return issue_token(user_id="ann", issued_at=TEN, nonce="5f3e", secret=SECRET)


def test_a_token_tells_its_user_when_it_was_issued() -> None:
    assert find_issued_at(ann_s_token(), user_id="ann", secret=SECRET) == TEN


def test_a_token_carries_its_version_its_time_and_its_nonce_in_the_clear() -> None:
    version, issued_at, nonce, signature = ann_s_token().split(".")

    assert (version, issued_at, nonce, len(signature)) == ("ot1", "60ddf71e58800", "5f3e", 32)


def test_two_tokens_of_one_moment_differ_by_their_nonce() -> None:
    other = issue_token(user_id="ann", issued_at=TEN, nonce="5f3f", secret=SECRET)

    assert other != ann_s_token()


def test_a_token_of_another_user_was_never_issued() -> None:
    assert find_issued_at(ann_s_token(), user_id="bob", secret=SECRET) is None


def test_a_token_of_another_secret_was_never_issued() -> None:
    assert find_issued_at(ann_s_token(), user_id="ann", secret=b"another") is None


@pytest.mark.parametrize("position", range(len(ann_s_token())))
def test_a_token_with_any_character_changed_was_never_issued(position: int) -> None:
    token = ann_s_token()
    changed = "0" if token[position] != "0" else "1"

    forged = token[:position] + changed + token[position + 1 :]

    assert find_issued_at(forged, user_id="ann", secret=SECRET) is None


@pytest.mark.parametrize(
    "text",
    ["", ".", "...", "ot1", "ot1.60ddf71e58800.5f3e", "ключ", "é.é", "a" * 255],
)
def test_any_other_text_was_never_issued(text: str) -> None:
    assert find_issued_at(text, user_id="ann", secret=SECRET) is None
