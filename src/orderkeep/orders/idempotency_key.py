"""The key that makes a repeated request the same request: a token, or a header. Pure."""

import re
from collections.abc import Sequence
from enum import StrEnum

from orderkeep.refusal import Refusal


class KeyKind(StrEnum):
    """Where a key came from; keys of different kinds never mix."""

    TOKEN = "token"  # noqa: S105 (a name, not a secret)
    HEADER = "header"


_VISIBLE_ASCII = re.compile(r"[\x21-\x7e]{1,255}")


def choose_key(*, token: str | None, headers: Sequence[str]) -> tuple[KeyKind, str]:
    """Return the one key of a request.

    Args:
        token: The token in the body, if there is one.
        headers: Every `Idempotency-Key` header of the request.

    Raises:
        Refusal: `idempotency_key_missing`, `idempotency_key_ambiguous` or
            `idempotency_key_invalid`.
    """
    if token is not None and headers:
        raise Refusal(
            "idempotency_key_ambiguous",
            "Send a token in the body or an Idempotency-Key header, not both.",
        )
    if token is not None:
        return KeyKind.TOKEN, token
    if not headers:
        raise Refusal(
            "idempotency_key_missing",
            "Send an Idempotency-Key header, so that a repeated request takes effect once; for an"
            " order, a token from POST /api/v1/orders/tokens will do as well.",
        )
    if len(headers) > 1:
        raise Refusal("idempotency_key_ambiguous", "Send one Idempotency-Key header, not several.")
    return KeyKind.HEADER, read_key(headers[0])


def read_key(text: str) -> str:
    """Return the key that a header names; `"k"` and bare `k` are the same key.

    Raises:
        Refusal: `idempotency_key_invalid`.
    """
    key = text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text
    if _VISIBLE_ASCII.fullmatch(key) is None:
        raise Refusal(
            "idempotency_key_invalid", "An Idempotency-Key is 1 to 255 visible ASCII characters."
        )
    return key
