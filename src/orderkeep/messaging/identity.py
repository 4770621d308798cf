"""What makes two messages one: the sender's message id, else the business key, else a hash.

Invariant: the identity depends on nothing but the message and its queue, so a copy has the same one
in every process and after every crash; and the identity of a message that carries an identity as
its id is that identity, so a retry or a replay stays the message it was.
"""

from hashlib import sha256

from orderkeep.messaging.column_text import is_clean

# A UUID takes 36, our longest business keys about 100; what is longer is hashed.
IDENTITY_LENGTH_MAX = 128

_HASH_PREFIX = "sha256:"


def message_identity(
    *, queue: str, body: bytes, sender_message_id: bytes | None, business_key: str | None
) -> str:
    """Return the identity of a message, 1 to 128 printable characters.

    Args:
        queue: The queue it came from.
        body: Its body, as it came.
        sender_message_id: None or empty where the sender gave none.
        business_key: What the body itself is known by; None or empty where there is no such thing.
    """
    if sender_message_id:
        return _clean_or_hash(sender_message_id, kind=b"message id")
    if business_key:
        return _clean_or_hash(business_key.encode(errors="surrogatepass"), kind=b"business key")
    return _hash(b"body", queue.encode(), body)


def _clean_or_hash(raw: bytes, *, kind: bytes) -> str:
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return _hash(kind, raw)
    return text if is_clean(text, length_max=IDENTITY_LENGTH_MAX) else _hash(kind, raw)


def _hash(*parts: bytes) -> str:
    # Each part is hashed for itself, so that no part can pose as the end of the one before it.
    return _HASH_PREFIX + sha256(b"".join(sha256(part).digest() for part in parts)).hexdigest()
