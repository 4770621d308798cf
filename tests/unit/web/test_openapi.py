"""The document says what the handlers say, and the page that shows it needs nobody else."""

import json
import re
from typing import Annotated, Any

import httpx
import pytest
from litestar import get, post
from litestar.params import HeaderParameter

from orderkeep.web.openapi import openapi_json
from orderkeep.web.problems import KINDS
from tests.unit.web.small_shop import Shop


@pytest.fixture
def document(shop: Shop) -> dict:
    return json.loads(shop.build().openapi_json)


def test_the_document_is_openapi_3_1_of_this_release(document: dict) -> None:
    assert document["openapi"] == "3.1.0"
    assert document["info"]["title"] == "Orderkeep"
    assert document["info"]["version"] == "9.8.7"


def test_every_path_is_there_and_no_page(document: dict) -> None:
    assert set(document["paths"]) == {
        "/api/v1/orders",
        "/api/v1/orders/{order_no}",
        "/api/v1/orders/{order_no}/cancel",
        "/api/v1/public",
        "/api/v1/read",
        "/api/v1/write",
        "/api/v1/messages",
        "/api/v1/raw",
        "/health/live",
        "/health/ready",
        "/metrics",
    }


def test_an_operation_tells_who_may_call_it(document: dict) -> None:
    paths = document["paths"]

    assert paths["/api/v1/public"]["get"]["security"] == []
    assert paths["/api/v1/orders"]["get"]["security"] == [{"bearer": []}]
    assert paths["/api/v1/read"]["get"]["security"] == [{"bearer": ["operator", "operator:read"]}]
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"


def test_an_operation_tells_which_errors_it_has(document: dict) -> None:
    place = document["paths"]["/api/v1/orders"]["post"]
    public = document["paths"]["/api/v1/public"]["get"]

    assert set(place["responses"]) == {"201", "400", "401", "413", "415", "422", "default"}
    assert set(public["responses"]) == {"200", "default"}
    assert place["responses"]["422"] == {"$ref": "#/components/responses/Problem"}
    problem = document["components"]["responses"]["Problem"]
    assert list(problem["content"]) == ["application/problem+json"]


def test_an_operation_tells_what_its_handler_declares_for_the_document() -> None:
    @post(
        "/crates",
        opt={
            "access": "user",
            "answer_headers": ("Location", "ETag"),
            "conflicts": True,
            "required_header": "Idempotency-Key",
        },
    )
    async def make_crate(
        key: Annotated[str | None, HeaderParameter(name="Idempotency-Key")] = None,
        version: Annotated[str | None, HeaderParameter(name="If-Match")] = None,
    ) -> None: ...

    @get("/crates", opt={"access": "user", "answer_headers": ("ETag",)})
    async def show_crate(
        version: Annotated[str | None, HeaderParameter(name="If-None-Match")] = None,
    ) -> None: ...

    document = json.loads(openapi_json([make_crate, show_crate], dependencies={}, version="9.8.7"))

    make, show = document["paths"]["/crates"]["post"], document["paths"]["/crates"]["get"]
    assert set(make["responses"]["201"]["headers"]) == {"Location", "ETag"}
    assert {"409", "412"} <= set(make["responses"])
    assert {one["name"]: one["required"] for one in make["parameters"]} == {
        "Idempotency-Key": True,
        "If-Match": False,
    }
    assert set(show["responses"]["200"]["headers"]) == {"ETag"}
    assert set(show["responses"]["304"]["headers"]) == {"ETag"}
    assert not {"409", "412"} & set(show["responses"])


def test_a_parameter_has_its_limits(document: dict) -> None:
    parameters = {
        parameter["name"]: parameter["schema"]
        for parameter in document["paths"]["/api/v1/orders"]["get"]["parameters"]
    }
    [order_no] = document["paths"]["/api/v1/orders/{order_no}"]["get"]["parameters"]

    assert parameters["limit"] == {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}
    assert parameters["user_id"]["type"] == "string"
    assert parameters["user_id"]["pattern"].startswith("^[A-Za-z0-9._:-]{1,64}$")
    assert parameters["X-Tag"]["pattern"] == parameters["user_id"]["pattern"]
    assert order_no["schema"]["pattern"] == "^[A-Za-z0-9._:-]{1,64}$"


def test_operations_are_named_as_their_functions(document: dict) -> None:
    names = [
        operation["operationId"]
        for item in document["paths"].values()
        for operation in item.values()
    ]

    assert "place_order" in names
    assert len(set(names)) == len(names)


def test_every_code_is_listed(document: dict) -> None:
    assert set(document["x-problem-codes"]) == set(KINDS)


def test_every_reference_leads_somewhere(document: dict) -> None:
    references = set(re.findall(r'"\$ref": "([^"]+)"', json.dumps(document)))
    assert references

    for reference in references:
        found: Any = document
        for name in reference.removeprefix("#/").split("/"):
            found = found[name]


async def test_the_document_is_served_and_stays_the_same(client: httpx.AsyncClient) -> None:
    first = await client.get("/openapi.json")
    second = await client.get("/openapi.json")

    assert first.headers["Content-Type"] == "application/json"
    assert first.content == second.content


@pytest.mark.parametrize(
    ("path", "media_type"),
    [
        ("/docs", "text/html; charset=utf-8"),
        ("/docs/docs.css", "text/css; charset=utf-8"),
        ("/docs/docs.js", "text/javascript; charset=utf-8"),
    ],
)
async def test_the_page_loads_nothing_from_elsewhere(
    client: httpx.AsyncClient, path: str, media_type: str
) -> None:
    answer = await client.get(path)

    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == media_type
    assert re.findall(r"(?i)https?:|//[a-z]+\.|url\(|@import|import\(", answer.text) == []
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


async def test_whatever_the_page_loads_is_there(client: httpx.AsyncClient) -> None:
    page = (await client.get("/docs")).text
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page)

    answers = [await client.get(path) for path in loaded]

    assert sorted(loaded) == ["/docs/docs.css", "/docs/docs.js", "/openapi.json"]
    assert [answer.status_code for answer in answers] == [200, 200, 200]
