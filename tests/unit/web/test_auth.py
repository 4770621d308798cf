"""Who may call what: every way a token can be wrong, and every scope against every door."""

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping

import httpx
import pytest

from orderkeep.instant import Instant
from orderkeep.web.auth import InvalidTokenError, TokenAuthenticator, TokenFlaw
from orderkeep.web.tokens import TokenKey, sign_token

NOW_S = 1_800_000_000
KEY = "k" * 32


def segment(part: Mapping[str, object]) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


def token_of(
    claims: Mapping[str, object],
    *,
    key: str = KEY,
    header: Mapping[str, object] | None = None,
    hash_name: str = "sha256",
) -> str:
    """Return a token made by hand, so that the library under test cannot make it right."""
    signed = f"{segment(header or {'alg': 'HS256', 'typ': 'JWT'})}.{segment(claims)}"
    digest = hmac.new(key.encode(), signed.encode(), getattr(hashlib, hash_name)).digest()
    return f"{signed}.{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"


GOOD = {"sub": "user-1", "aud": "orderkeep", "exp": NOW_S + 60}


def without(name: str) -> dict[str, object]:
    return {key: value for key, value in GOOD.items() if key != name}


async def test_a_good_token_tells_the_caller(client: httpx.AsyncClient) -> None:
    answer = await client.post(
        "/api/v1/orders",
        json={"items": [{"sku_id": "a", "quantity": 1}]},
        headers={"Authorization": f"Bearer {token_of(GOOD)}"},
    )

    assert answer.status_code == 201
    assert answer.json() == {"user_id": "user-1", "line_count": 1}


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer not-a-token",
        "Bearer a.b.c",
        "Basic dXNlcjpwYXNz",
        f"Token {token_of(GOOD)}",
        f"Bearer {token_of(GOOD)} {token_of(GOOD)}",
        f"Bearer {token_of(GOOD, key='x' * 32)}",
        f"Bearer {token_of(GOOD)[:-4]}AAAA",
        f"Bearer {token_of(GOOD, header={'alg': 'none'})}",
        f"Bearer {segment({'alg': 'none'})}.{segment(GOOD)}.",
        f"Bearer {token_of(GOOD, header={'alg': 'HS512'}, hash_name='sha512')}",
        f"Bearer {token_of(GOOD, header={'alg': 'RS256'})}",
        f"Bearer {token_of(without('exp'))}",
        f"Bearer {token_of(without('sub'))}",
        f"Bearer {token_of(without('aud'))}",
        f"Bearer {token_of({**GOOD, 'aud': 'another'})}",
        f"Bearer {token_of({**GOOD, 'exp': NOW_S - 30})}",
        f"Bearer {token_of({**GOOD, 'exp': 'tomorrow'})}",
        f"Bearer {token_of({**GOOD, 'exp': True})}",
        f"Bearer {token_of({**GOOD, 'exp': float('inf')})}",
        f"Bearer {token_of({**GOOD, 'exp': 10**400})}",
        f"Bearer {token_of({**GOOD, 'nbf': NOW_S + 31})}",
        f"Bearer {token_of({**GOOD, 'sub': ''})}",
        f"Bearer {token_of({**GOOD, 'sub': 7})}",
        f"Bearer {token_of({**GOOD, 'sub': 'user 1'})}",
        f"Bearer {token_of({**GOOD, 'sub': 'u' * 65})}",
        f"Bearer {token_of({**GOOD, 'scope': ['operator']})}",
        f"Bearer {token_of({**GOOD, 'pad': 'x' * 9000})}",
    ],
)
async def test_whoever_shows_no_good_token_is_not_known(
    client: httpx.AsyncClient, authorization: str
) -> None:
    answer = await client.get("/api/v1/orders", headers={"Authorization": authorization})

    assert answer.status_code == 401
    assert answer.json()["code"] == "unauthenticated"
    assert answer.headers["WWW-Authenticate"].startswith('Bearer error="invalid_token"')


async def test_whoever_shows_nothing_is_asked_for_a_token(client: httpx.AsyncClient) -> None:
    answer = await client.get("/api/v1/orders")

    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"


async def test_two_authorization_headers_are_one_too_many(client: httpx.AsyncClient) -> None:
    value = f"Bearer {token_of(GOOD)}"

    answer = await client.get(
        "/api/v1/orders", headers=[("Authorization", value), ("Authorization", value)]
    )

    assert answer.status_code == 401


@pytest.mark.parametrize(
    "claims",
    [
        {**GOOD, "aud": ["other", "orderkeep"]},
        {**GOOD, "exp": NOW_S - 29},
        {**GOOD, "exp": NOW_S + 0.5},
        {**GOOD, "nbf": NOW_S + 29},
        {**GOOD, "iat": NOW_S + 1000},
        {**GOOD, "scope": ""},
    ],
)
async def test_what_the_contract_allows_is_allowed(
    client: httpx.AsyncClient, claims: dict[str, object]
) -> None:
    answer = await client.get(
        "/api/v1/orders", headers={"Authorization": f"bearer  {token_of(claims)}"}
    )

    assert answer.status_code == 200


async def test_the_caller_is_asked_for_before_the_body_is_looked_at(
    client: httpx.AsyncClient,
) -> None:
    answer = await client.post("/api/v1/orders", content=b"{not json")

    assert answer.status_code == 401


DOORS = ("/public", "/orders", "/read", "/write", "/messages")


@pytest.mark.parametrize(
    ("scopes", "statuses"),
    [
        ((), (200, 200, 403, 403, 403)),
        (("operator:read",), (200, 200, 200, 403, 403)),
        (("operator",), (200, 200, 200, 200, 403)),
        (("messages",), (200, 200, 403, 403, 200)),
        (("operators", "operator:write", "OPERATOR"), (200, 200, 403, 403, 403)),
        (("operator", "messages"), (200, 200, 200, 200, 200)),
    ],
)
async def test_each_scope_opens_its_own_doors(
    client: httpx.AsyncClient, scopes: tuple[str, ...], statuses: tuple[int, ...]
) -> None:
    claims = {**GOOD, "scope": " ".join(scopes)}
    headers = {"Authorization": f"Bearer {token_of(claims)}"}

    answers = [await client.get(f"/api/v1{door}", headers=headers) for door in DOORS]

    assert tuple(answer.status_code for answer in answers) == statuses


async def test_a_scope_that_is_missing_is_named(client: httpx.AsyncClient) -> None:
    headers = {"Authorization": f"Bearer {token_of(GOOD)}"}

    answer = await client.get("/api/v1/read", headers=headers)

    assert answer.json()["code"] == "insufficient_scope"
    assert answer.json()["detail"] == "The token needs the scope operator or operator:read."
    assert answer.headers["WWW-Authenticate"] == (
        'Bearer error="insufficient_scope", scope="operator:read"'
    )


@pytest.mark.parametrize(
    "path",
    ["/api/v1//write", "/api/v1/write/", "/api/v1/%77rite", "//api/v1/write", "/api/v1/./write"],
)
async def test_no_spelling_of_a_path_gets_around_its_door(
    client: httpx.AsyncClient, path: str
) -> None:
    answer = await client.get(path, headers={"Authorization": f"Bearer {token_of(GOOD)}"})

    assert answer.status_code in {403, 404}


class Clock:
    def __init__(self) -> None:
        self.now = Instant(NOW_S * 1_000_000)

    def __call__(self) -> Instant:
        return self.now


def test_a_token_that_was_verified_before_still_expires() -> None:
    clock = Clock()
    authenticator = TokenAuthenticator(TokenKey(secret=KEY, audience="orderkeep"), now=clock)
    authorization = f"Bearer {token_of(GOOD)}".encode()
    first = authenticator.authenticate(authorization)
    assert authenticator.authenticate(authorization) is first

    clock.now = Instant((NOW_S + 60 + 30) * 1_000_000)
    with pytest.raises(InvalidTokenError) as caught:
        authenticator.authenticate(authorization)

    assert TokenFlaw.EXPIRED in caught.value.detail


def test_an_issuer_that_is_set_must_be_the_tokens() -> None:
    key = TokenKey(secret=KEY, audience="orderkeep", issuer="login.example")
    authenticator = TokenAuthenticator(key, now=Clock())

    with pytest.raises(InvalidTokenError):
        authenticator.authenticate(f"Bearer {token_of(GOOD)}".encode())
    caller = authenticator.authenticate(
        f"Bearer {token_of({**GOOD, 'iss': 'login.example'})}".encode()
    )

    assert caller.user_id == "user-1"


def test_the_memory_for_verified_tokens_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orderkeep.web.auth._CACHED_TOKENS_MAX", 2)
    key = TokenKey(secret=KEY, audience="orderkeep")
    authenticator = TokenAuthenticator(key, now=Clock())

    callers = [
        authenticator.authenticate(f"Bearer {token_of({**GOOD, 'sub': name})}".encode()).user_id
        for name in ("a", "b", "c", "a", "b", "c")
    ]

    assert callers == ["a", "b", "c", "a", "b", "c"]


def test_a_signed_token_is_one_that_we_take() -> None:
    key = TokenKey(secret=KEY, audience="orderkeep", issuer="us")
    token = sign_token(
        key,
        user_id="ann",
        scopes=["operator", "messages"],
        expires_at=Instant((NOW_S + 1) * 1_000_000),
    )

    caller = TokenAuthenticator(key, now=Clock()).authenticate(f"Bearer {token}".encode())

    assert caller.user_id == "ann"
    assert caller.scopes == {"operator", "messages"}


@pytest.mark.parametrize(("user_id", "scope"), [("a b", "operator"), ("a", "two words"), ("a", "")])
def test_a_token_nobody_would_take_is_not_signed(user_id: str, scope: str) -> None:
    key = TokenKey(secret=KEY, audience="orderkeep")

    with pytest.raises(ValueError, match=r"user id|one word"):
        sign_token(key, user_id=user_id, scopes=[scope], expires_at=Instant(0))


def test_the_key_does_not_show_itself() -> None:
    assert KEY not in repr(TokenKey(secret=KEY, audience="orderkeep"))
