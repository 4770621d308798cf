"""Who calls, and whether they may: bearer tokens, checked before anything else is read.

The decision hangs on the route handler that was chosen, never on the text of the path, so no
spelling of a path gets around it.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from math import isfinite
from typing import Any

import jwt
from litestar import Request, Response

from orderkeep.contracts.caller import Caller
from orderkeep.contracts.text import is_identifier
from orderkeep.instant import MICROSECONDS_PER_SECOND, Instant
from orderkeep.web.problems import InsufficientScopeError, UnauthenticatedError
from orderkeep.web.route_rules import Access, check_parameters, rules_of
from orderkeep.web.tokens import ALGORITHM, TokenKey

# Clocks of two machines differ; the contract allows half a minute.
LEEWAY_S = 30

# Ten times a token of ours: a bound on what one header may make us compute.
_HEADER_LENGTH_MAX = 8192

# The busiest few thousand buyers; one entry takes about a kilobyte.
_CACHED_TOKENS_MAX = 4096

_BEARER = re.compile(rb"(?i:bearer) +([\w.=-]+) *", re.ASCII)


class TokenFlaw(StrEnum):
    """Why a token does not tell who calls."""

    NOT_BEARER = "the Authorization header holds no bearer token"
    TWO_HEADERS = "there is more than one Authorization header"
    NOT_OURS = "the token is not signed with our key"
    CLAIM_MISSING = "the token lacks one of exp, sub and aud"
    OTHER_AUDIENCE = "the token is for another audience"
    OTHER_ISSUER = "the token is from another issuer"
    NO_IDENTIFIER = "sub is not 1 to 64 letters, digits and ._:-"
    NO_SCOPES = "scope is not a string of words with spaces between"
    NO_TIME = "exp or nbf is not a number of seconds"
    TOO_EARLY = "the token is not valid yet"
    EXPIRED = "the token has expired"


class InvalidTokenError(UnauthenticatedError):
    """A token was sent, and it is no good."""

    def __init__(self, flaw: TokenFlaw) -> None:
        """Refuse for the given flaw."""
        super().__init__(
            f"The caller is not known: {flaw}.",
            challenge=f'Bearer error="invalid_token", error_description="{flaw}"',
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Verified:
    caller: Caller
    expires_at_s: float


class TokenAuthenticator:
    """Tells who carries a bearer token.

    A token that was verified is remembered, so a caller's next request costs no second HMAC; it is
    good no longer for that, since its expiry is compared with the clock each time.
    """

    def __init__(self, key: TokenKey, *, now: Callable[[], Instant]) -> None:
        """Verify with the given key.

        Args:
            key: The key.
            now: Reads the wall clock.
        """
        self._key = key
        self._now = now
        self._verified: dict[bytes, _Verified] = {}

    def authenticate(self, authorization: bytes | None) -> Caller:
        """Return the caller that the Authorization header stands for.

        Raises:
            UnauthenticatedError: there is no header, or no valid token in it.
        """
        if authorization is None:
            detail = "Send a bearer token in the Authorization header."
            raise UnauthenticatedError(detail, challenge="Bearer")
        verified = self._verified.get(authorization)
        if verified is None:
            verified = self._verify(authorization)
            if len(self._verified) >= _CACHED_TOKENS_MAX:
                # The oldest goes: a dict keeps the order of insertion.
                del self._verified[next(iter(self._verified))]
            self._verified[authorization] = verified
        if self._now_s() >= verified.expires_at_s + LEEWAY_S:
            del self._verified[authorization]
            raise InvalidTokenError(TokenFlaw.EXPIRED)
        return verified.caller

    def _verify(self, authorization: bytes) -> _Verified:
        found = _BEARER.fullmatch(authorization)
        if found is None or len(authorization) > _HEADER_LENGTH_MAX:
            raise InvalidTokenError(TokenFlaw.NOT_BEARER)
        try:
            claims = jwt.decode(
                found[1],
                self._key.secret,
                algorithms=[ALGORITHM],
                audience=self._key.audience,
                issuer=self._key.issuer,
                options={
                    "require": ["exp", "sub", "aud"],
                    # Compared here, with the clock that was given.
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
        except jwt.MissingRequiredClaimError:
            raise InvalidTokenError(TokenFlaw.CLAIM_MISSING) from None
        except jwt.InvalidAudienceError:
            raise InvalidTokenError(TokenFlaw.OTHER_AUDIENCE) from None
        except jwt.InvalidIssuerError:
            raise InvalidTokenError(TokenFlaw.OTHER_ISSUER) from None
        except jwt.exceptions.InvalidSubjectError:
            raise InvalidTokenError(TokenFlaw.NO_IDENTIFIER) from None
        except jwt.PyJWTError:
            raise InvalidTokenError(TokenFlaw.NOT_OURS) from None
        return self._read(claims)

    def _read(self, claims: Mapping[str, object]) -> _Verified:
        user_id, scope = claims["sub"], claims.get("scope", "")
        if not isinstance(user_id, str) or not is_identifier(user_id):
            raise InvalidTokenError(TokenFlaw.NO_IDENTIFIER)
        if not isinstance(scope, str):
            raise InvalidTokenError(TokenFlaw.NO_SCOPES)
        if "nbf" in claims and self._now_s() < _seconds_of(claims["nbf"]) - LEEWAY_S:
            raise InvalidTokenError(TokenFlaw.TOO_EARLY)
        return _Verified(
            caller=Caller(user_id=user_id, scopes=frozenset(scope.split())),
            expires_at_s=_seconds_of(claims["exp"]),
        )

    def _now_s(self) -> float:
        return self._now() / MICROSECONDS_PER_SECOND


class Admission:
    """Lets a request pass to its handler, or refuses it: caller, scope, then parameters."""

    def __init__(self, authenticator: TokenAuthenticator) -> None:
        """Admit whom the authenticator knows."""
        self._authenticator = authenticator

    async def admit(self, request: Request[Any, Any, Any]) -> Response[None] | None:
        """Admit the request; its caller is `request.user` from here on.

        The answer is None, or what to answer at once: the methods of the path, to OPTIONS.

        Litestar calls it before each handler, and before it reads a body.

        Raises:
            UnauthenticatedError: the caller is not known.
            InsufficientScopeError: the caller has none of the scopes that the handler asks for.
            NotFoundException: the path names nothing that could exist.
            Refusal: `invalid_request`: a parameter is outside its limits.
        """
        rules = rules_of(request)
        if rules.access is not Access.PUBLIC:
            caller = self._authenticator.authenticate(_authorization_of(request))
            if rules.scopes and rules.scopes.isdisjoint(caller.scopes):
                raise InsufficientScopeError(sorted(rules.scopes))
            request.scope["user"] = caller
        if rules.methods:
            return Response(None, status_code=204, headers={"Allow": ", ".join(rules.methods)})
        check_parameters(request, rules)
        return None


def _authorization_of(request: Request[Any, Any, Any]) -> bytes | None:
    found = [value for name, value in request.scope["headers"] if name == b"authorization"]
    if len(found) > 1:
        # Which one counts would depend on who reads it.
        raise InvalidTokenError(TokenFlaw.TWO_HEADERS)
    return found[0] if found else None


def _seconds_of(value: object) -> float:
    # A bool is an int to Python, and no time.
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise InvalidTokenError(TokenFlaw.NO_TIME)
    try:
        seconds = float(value)
    except OverflowError:
        raise InvalidTokenError(TokenFlaw.NO_TIME) from None
    if not isfinite(seconds):
        raise InvalidTokenError(TokenFlaw.NO_TIME)
    return seconds
