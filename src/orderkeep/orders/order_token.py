"""One-time order tokens: issued by the API, good for one order by one user.

A token is not stored when it is issued. It carries its time of issue and a signature, and becomes
a row only when an order claims it, in the order's own transaction; see docs/decisions/0007.
"""

import hashlib
import hmac

from orderkeep.instant import Instant

_VERSION = "ot1"

# 128 bits of the signature: as strong as the key guessing needs, and short to carry around.
_SIGNATURE_LENGTH = 32


def issue_token(*, user_id: str, issued_at: Instant, nonce: str, secret: bytes) -> str:
    """Return a token for the user.

    Args:
        nonce: Letters and digits, drawn by the caller, so that two tokens never are the same.
        secret: The key that every process of the service shares.
    """
    body = f"{_VERSION}.{issued_at:x}.{nonce}"
    return f"{body}.{_signature(body, user_id=user_id, secret=secret)}"


def find_issued_at(token: str, *, user_id: str, secret: bytes) -> Instant | None:
    """Return when the token was issued to this user, or None if it never was."""
    body, _, signature = token.rpartition(".")
    expected = _signature(body, user_id=user_id, secret=secret)
    if not hmac.compare_digest(signature.encode(), expected.encode()):
        return None
    _version, issued_at, _nonce = body.split(".")
    return Instant(int(issued_at, 16))


def _signature(body: str, *, user_id: str, secret: bytes) -> str:
    signed = f"order-token\n{user_id}\n{body}".encode()
    return hmac.new(secret, signed, hashlib.sha256).hexdigest()[:_SIGNATURE_LENGTH]
