"""The short way to a handler gives the answers that the long way gives, and only where it may."""

from typing import Annotated, Any

import httpx
import pytest
from litestar import Litestar, Request, get, post
from litestar.datastructures import State
from litestar.params import FromPath, FromQuery, HeaderParameter, JSONBody
from litestar.types import ControllerRouterHandler

from orderkeep.contracts.caller import Caller
from orderkeep.contracts.json_answer import JsonAnswer
from orderkeep.contracts.text import Identifier
from orderkeep.database.transaction import StoreOverloadedError, StoreUnavailableError
from orderkeep.refusal import Refusal
from orderkeep.web.route_rules import RouteDeclarationError
from tests.unit.web.small_shop import AnyDesk, PlaceBody, PlacedAnswer, Shop

BODY = b'{"items":[{"sku_id":"a","quantity":1}]}'
JSON = {"Content-Type": "application/json"}

Tag = Annotated[Identifier | None, HeaderParameter(name="X-Tag")]


async def _place(
    request: Request[Caller, object, State],
    data: JSONBody[PlaceBody],
    desk: AnyDesk,
    tag: Tag = None,
) -> JsonAnswer[PlacedAnswer]:
    await desk.call((data, tag, request.headers.getall("X-Tag", [])))
    answer = PlacedAnswer(user_id=request.user.user_id, line_count=len(data.items))
    return JsonAnswer(answer, headers={"Location": "/here"})


HANDLERS: list[ControllerRouterHandler] = [
    post("/short", opt={"access": "user", "is_asked_most": True})(_place),
    post("/long", opt={"access": "user"}, name="long")(_place),
]


@pytest.fixture
def shop() -> Shop:
    return Shop(route_handlers=HANDLERS)


@pytest.fixture
def by_litestar(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of all requests that Litestar has served."""
    served: list[str] = []
    serve = Litestar.__call__

    async def counted(self: Litestar, scope: Any, receive: Any, send: Any) -> None:
        served.append(scope["path"])
        await serve(self, scope, receive, send)

    monkeypatch.setattr(Litestar, "__call__", counted)
    return served


def _without_name(answer: httpx.Response) -> tuple[int, dict[str, str], bytes]:
    headers = {name: value for name, value in answer.headers.items() if name != "x-request-id"}
    return answer.status_code, headers, answer.content


CASES: dict[str, dict[str, Any]] = {
    "placed": {"content": BODY},
    "with a header": {"content": BODY, "headers": {"X-Tag": "red"}},
    "a header beyond its limits": {"content": BODY, "headers": {"X-Tag": "r d"}},
    "a header twice": {"content": BODY, "headers": [("X-Tag", "red"), ("X-Tag", "blue")]},
    "no body": {"content": b""},
    "no JSON": {"content": b"{"},
    "another shape": {"content": b'{"items":[]}'},
    "too long": {"content": b" " * 65_537},
    "another media type": {"content": BODY, "headers": {"Content-Type": "text/plain"}},
    "no media type": {"content": BODY, "headers": {"Content-Type": ""}},
    "NUL in the query": {"content": BODY, "params": {"a": "\0"}},
    "no caller": {"content": BODY, "headers": {"Authorization": ""}},
    "two callers": {"content": BODY, "headers": [("Authorization", "Bearer x")]},
}


@pytest.mark.parametrize("case", CASES)
async def test_both_ways_answer_alike(case: str, shop: Shop, by_litestar: list[str]) -> None:
    asked = CASES[case]
    given = asked.get("headers", {})
    headers = [*JSON.items(), *shop.headers().items()]
    if isinstance(given, dict):
        headers = [one for one in headers if one[0] not in given]
        headers += [one for one in given.items() if one[1]]
    else:
        headers += given
    async with shop.client() as client:
        short, long = [
            await client.post(f"/api/v1/{path}", **{**asked, "headers": headers})
            for path in ("short", "long")
        ]

    assert by_litestar == ["/api/v1/long"]
    assert _without_name(short) == _without_name(long)
    assert len(shop.desk.calls) in {0, 2}
    assert shop.desk.calls[:1] == shop.desk.calls[1:]


@pytest.mark.parametrize(
    "error",
    [
        Refusal("out_of_stock", "None left.", members={"items": []}),
        StoreUnavailableError("away"),
        StoreOverloadedError("full"),
        LookupError("a bug"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_what_a_handler_raises_is_answered_alike(error: Exception, shop: Shop) -> None:
    shop.desk.error = error
    async with shop.client() as client:
        short, long = [
            await client.post(f"/api/v1/{path}", content=BODY, headers={**JSON, **shop.headers()})
            for path in ("short", "long")
        ]

    assert short.status_code >= 400
    assert _without_name(short) == _without_name(long)


@pytest.mark.parametrize(
    ("method", "path", "host"),
    [
        ("POST", "/api/v1/short/", "shop"),
        ("POST", "//api/v1/short", "shop"),
        ("POST", "/api/v1/short", "sh op"),
        ("OPTIONS", "/api/v1/short", "shop"),
        ("GET", "/api/v1/short", "shop"),
    ],
)
async def test_what_is_spelled_differently_goes_the_long_way(
    method: str, path: str, host: str, shop: Shop, by_litestar: list[str]
) -> None:
    async with shop.client() as client:
        await client.request(
            method, f"http://shop{path}", content=BODY, headers={**shop.headers(), "Host": host}
        )

    assert by_litestar == [path]


async def _in_path(
    request: Request[Caller, object, State], data: JSONBody[PlaceBody], name: FromPath[str]
) -> JsonAnswer[None]:
    del request, data, name
    return JsonAnswer(None)


async def _in_query(
    request: Request[Caller, object, State], data: JSONBody[PlaceBody], name: FromQuery[str]
) -> JsonAnswer[None]:
    del request, data, name
    return JsonAnswer(None)


async def _in_number(
    request: Request[Caller, object, State],
    data: JSONBody[PlaceBody],
    number: Annotated[int | None, HeaderParameter(name="X-Number")] = None,
) -> JsonAnswer[None]:
    del request, data, number
    return JsonAnswer(None)


async def _in_default(
    request: Request[Caller, object, State],
    data: JSONBody[PlaceBody],
    colour: Annotated[str, HeaderParameter(name="X-Colour")] = "blue",
) -> JsonAnswer[None]:
    del request, data, colour
    return JsonAnswer(None)


async def _hook(_request: Request[Any, Any, Any]) -> None:
    """Be called after the answer."""


async def _no_body(request: Request[Caller, object, State]) -> JsonAnswer[None]:
    del request
    return JsonAnswer(None)


OPTIONS = {"access": "user", "is_asked_most": True}


@pytest.mark.parametrize(
    ("handler", "words"),
    [
        (post("/a/{name:str}", opt=OPTIONS)(_in_path), "nothing in its path"),
        (post("/a", opt=OPTIONS)(_in_query), "cannot be given name"),
        (post("/a", opt=OPTIONS)(_in_number), "cannot be given X-Number"),
        (post("/a", opt=OPTIONS)(_in_default), "cannot be given X-Colour"),
        (post("/a", opt=OPTIONS, after_response=_hook)(_place), "hooks"),
        (get("/a", opt=OPTIONS)(_no_body), "not asked with a JSON body"),
    ],
)
def test_what_cannot_be_served_on_the_short_way_keeps_the_application_from_starting(
    handler: ControllerRouterHandler, words: str
) -> None:
    with pytest.raises(RouteDeclarationError, match=words):
        Shop(route_handlers=[handler]).build()
