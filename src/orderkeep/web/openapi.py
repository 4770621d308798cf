"""The OpenAPI 3.1 document, from the handlers themselves.

Litestar tells what goes in and out; from what handlers declare (`route_rules`) comes what it does
not know: who may call, the limits of parameters, and that every error is a problem document.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias, get_args

import msgspec
from litestar import Litestar
from litestar.di import Provide
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, License, SecurityScheme, Server
from litestar.routes import HTTPRoute
from litestar.types import ControllerRouterHandler, Method

from orderkeep.web.json_request import JsonRequest
from orderkeep.web.problems import KINDS, MEDIA_TYPE
from orderkeep.web.route_rules import RULES, Access, RouteRules, read_rules

# A part of the document, as JSON has it.
Json: TypeAlias = dict[str, Any]

_DESCRIPTION = """\
Orders from checkout to their one and only end. Errors are `application/problem+json`, each with a
stable `code`. Amounts are strings with two decimals, times are RFC 3339 in UTC. Lists answer
`{items, next_cursor}`, with `next_cursor` null at the end. Clients ignore members they do not know.
"""

_PROBLEM_RESPONSE = {"$ref": "#/components/responses/Problem"}
_ANSWER_HEADERS: Mapping[str, Json] = {
    name: {"description": description, "schema": {"type": "string"}}
    for name, description in {
        "Location": "Where it is found from now on.",
        "ETag": "Its version, in quotes, as `If-Match` and `If-None-Match` take it.",
        "Idempotent-Replayed": "`true` where the key had made the order before; else left out.",
    }.items()
}
_IDENTIFIER_SCHEMA = {"type": "string", "pattern": "^[A-Za-z0-9._:-]{1,64}$"}


def openapi_json(
    route_handlers: Sequence[ControllerRouterHandler],
    *,
    dependencies: Mapping[str, Provide],
    version: str,
) -> bytes:
    """Return the document of the given handlers, as JSON."""
    # An application of its own: the one that serves would also serve Litestar's pages, which load
    # their scripts from elsewhere.
    application = Litestar(
        route_handlers,
        dependencies=dict(dependencies),
        request_class=JsonRequest,
        logging_config=None,
        openapi_config=OpenAPIConfig(
            title="Orderkeep",
            version=version,
            description=_DESCRIPTION,
            license=License(name="Apache-2.0", identifier="Apache-2.0"),
            servers=[Server(url="/")],
            use_handler_docstrings=True,
            render_plugins=[JsonRenderPlugin()],
            operation_id_creator=_operation_names(),
            components=Components(
                security_schemes={
                    "bearer": SecurityScheme(
                        type="http",
                        scheme="bearer",
                        bearer_format="JWT",
                        description="`sub`, `aud` and `exp` are required; `scope` opens the rest.",
                    )
                }
            ),
        ),
    )
    document: Json = application.openapi_schema.to_schema()
    documented = [
        (route, handler)
        for route in application.routes
        if isinstance(route, HTTPRoute)
        for handler in route.route_handlers
        if handler.resolve_include_in_schema()
    ]
    read_rules({route for route, _ in documented}, expected_hook=None)
    for route, handler in documented:
        for method in handler.http_methods:
            operation = document["paths"][route.path_format][method.lower()]
            _complete(operation, rules=_rules_of(handler))
            _add_declared(operation, option=handler.opt)
    components = document["components"]
    components["schemas"].update(_exact_schemas(documented))
    components["schemas"]["Problem"] = _problem_schema()
    components["responses"] = {
        "Problem": {
            "description": "What went wrong, with a stable code",
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
    }
    document["x-problem-codes"] = {
        code: {"status": kind.status, "title": kind.title} for code, kind in KINDS.items()
    }
    return msgspec.json.encode(document)


def _exact_schemas(documented: Iterable[tuple[HTTPRoute, HTTPRouteHandler]]) -> Json:
    """Return the schema of each body and answer by its name, as msgspec enforces it.

    Litestar's own schemas lack the limits of what may be null.
    """
    structs: dict[str, type[msgspec.Struct]] = {}
    for _, handler in documented:
        returned = handler.parsed_fn_signature.return_type.raw
        for found in (*_structs_in(_rules_of(handler).body_type), *_structs_in(returned)):
            structs[found.__name__] = found
    _, schemas = msgspec.json.schema_components(
        structs.values(),
        schema_hook=_schema_of_any,
        ref_template="#/components/schemas/{name}",
    )
    return {name: {**schema, "title": name} for name, schema in schemas.items()}


def _schema_of_any(_annotation: object) -> Json:
    # What is no type of msgspec's own is annotated as `object`.
    return {"description": "Any JSON."}


def _structs_in(annotation: object) -> Iterable[type[msgspec.Struct]]:
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        yield annotation
    for member in get_args(annotation):
        yield from _structs_in(member)


def _operation_names() -> Callable[[HTTPRouteHandler, Method, Sequence[object]], str]:
    """Return a way to name operations as their functions are named, for generated clients."""
    taken: set[str] = set()

    def name_of(handler: HTTPRouteHandler, method: Method, parts: Sequence[object]) -> str:
        name = handler.handler_name
        if name in taken:
            name = "_".join([name, method.lower(), *(str(part) for part in parts)])
        taken.add(name)
        return name

    return name_of


def _rules_of(handler: HTTPRouteHandler) -> RouteRules:
    rules = handler.opt[RULES]
    assert isinstance(rules, RouteRules)
    return rules


def _complete(operation: Json, *, rules: RouteRules) -> None:
    """Add to an operation what Litestar does not know of it."""
    operation["security"] = (
        [] if rules.access is Access.PUBLIC else [{"bearer": sorted(rules.scopes)}]
    )
    if rules.has_raw_body:
        operation["requestBody"] = {"required": True, "content": {"application/json": {}}}
    for parameter in operation.get("parameters", []):
        _limit(parameter, rules=rules)
    responses: Json = operation["responses"]
    # Litestar's own error document, which is never answered.
    responses.pop("400", None)
    for status in _error_statuses(rules, has_parameters="parameters" in operation):
        responses.setdefault(str(status), _PROBLEM_RESPONSE)
    responses["default"] = _PROBLEM_RESPONSE


def _add_declared(operation: Json, *, option: Mapping[str, Any]) -> None:
    """Add what a handler declares for the document alone.

    Args:
        option: `answer_headers` of its success, `conflicts` where it may answer 409, and
            `required_header` where it does nothing without one.
    """
    responses: Json = operation["responses"]
    headers = {name: _ANSWER_HEADERS[name] for name in option.get("answer_headers", ())}
    if headers:
        success = next(status for status in responses if status.startswith("2"))
        responses[success]["headers"] = headers
    if option.get("conflicts"):
        responses["409"] = _PROBLEM_RESPONSE
    given = {one["name"]: one for one in operation.get("parameters", [])}
    if "If-Match" in given:
        responses["412"] = _PROBLEM_RESPONSE
    if "If-None-Match" in given:
        responses["304"] = {"description": "It is of that version still", "headers": headers}
    if "required_header" in option:
        given[option["required_header"]]["required"] = True


def _limit(parameter: Json, *, rules: RouteRules) -> None:
    if parameter["in"] == "path":
        parameter["schema"] = {**parameter["schema"], **_IDENTIFIER_SCHEMA}
    parameter["schema"] = _without_null(parameter["schema"], "oneOf")
    for limit in rules.limits:
        if (limit.place, limit.name.lower()) == (parameter["in"], parameter["name"].lower()):
            schema = _without_null(msgspec.json.schema(limit.type), "anyOf")
            default = parameter["schema"].get("default")
            parameter["schema"] = schema if default is None else {**schema, "default": default}


def _without_null(schema: Json, keyword: str) -> Json:
    # A parameter that is absent is absent: there is no way to send null.
    options = [one for one in schema.get(keyword, []) if one != {"type": "null"}]
    return options[0] if len(options) == 1 else schema


def _error_statuses(rules: RouteRules, *, has_parameters: bool) -> Iterable[int]:
    if rules.access is not Access.PUBLIC:
        yield 401
    if rules.scopes:
        yield 403
    if rules.has_path_parameters:
        yield 404
    if rules.body_type is not None:
        yield from (400, 415)
    if rules.body_type is not None or rules.has_raw_body:
        yield 413
    if rules.body_type is not None or has_parameters:
        yield 422


def _problem_schema() -> Json:
    text = {"type": "string"}
    return {
        "type": "object",
        "required": ["type", "title", "status", "detail", "code", "request_id"],
        "properties": {
            "type": {"type": "string", "examples": ["urn:orderkeep:problem:out_of_stock"]},
            "title": text,
            "status": {"type": "integer"},
            "detail": text,
            "code": {
                "type": "string",
                "description": f"More may come. Now: {', '.join(KINDS)}.",
                "examples": ["out_of_stock"],
            },
            "request_id": text,
            "errors": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["pointer", "detail"],
                    "properties": {
                        "pointer": {
                            "type": "string",
                            "description": (
                                "A JSON pointer into the body, or `query/NAME` or `header/NAME`."
                            ),
                        },
                        "detail": text,
                    },
                },
            },
        },
    }
