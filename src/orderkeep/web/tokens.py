"""Bearer tokens as we sign them: for the command line, the demo and tests.

Apart from `auth.py`, which needs the web framework to check them: a command that prints a token
should not have to load one.
"""

from collections.abc import Collection
from dataclasses import dataclass, field

import jwt

from orderkeep.contracts.text import is_identifier
from orderkeep.instant import MICROSECONDS_PER_SECOND, Instant

# One algorithm, named here and never taken from a token.
ALGORITHM = "HS256"


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenKey:
    """What tokens are signed and verified with.

    Attributes:
        secret: The HS256 key, at least 32 bytes.
        audience: What `aud` must name.
        issuer: What `iss` must be; None lets any pass.
    """

    secret: str = field(repr=False)
    audience: str
    issuer: str | None = None


def sign_token(key: TokenKey, *, user_id: str, scopes: Collection[str], expires_at: Instant) -> str:
    """Return a bearer token that `TokenAuthenticator` takes until it expires.

    Raises:
        ValueError: user_id is no identifier, or a scope is not one word.
    """
    if not is_identifier(user_id):
        message = f"{user_id!r} is no user id: 1 to 64 letters, digits and ._:-"
        raise ValueError(message)
    if any(not scope or len(scope.split()) != 1 for scope in scopes):
        message = "a scope is one word"
        raise ValueError(message)
    claims: dict[str, object] = {
        "sub": user_id,
        "aud": key.audience,
        "exp": expires_at // MICROSECONDS_PER_SECOND,
    }
    if scopes:
        claims["scope"] = " ".join(scopes)
    if key.issuer is not None:
        claims["iss"] = key.issuer
    return jwt.encode(claims, key.secret, algorithm=ALGORITHM)
