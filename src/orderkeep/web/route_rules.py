"""What each route handler declares, read once when the application is built.

Deny by default: a handler that does not declare its `access` keeps the application from starting.
Litestar checks a parameter's type and drops its `msgspec.Meta`, that is, its limits: a handler's
`limit` of 1 to 100 would take 1000. The limits are read here, and checked with every request.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec
from litestar import Request
from litestar.connection import ASGIConnection
from litestar.exceptions import NotFoundException
from litestar.handlers import HTTPRouteHandler
from litestar.params import ParameterKwarg
from litestar.routes import BaseRoute, HTTPRoute
from litestar.typing import FieldDefinition

from orderkeep.contracts.caller import MESSAGES_SCOPE, OPERATOR_READ_SCOPE, OPERATOR_SCOPE
from orderkeep.contracts.pattern_words import plain_words
from orderkeep.contracts.text import is_identifier
from orderkeep.web.known_names import unknown_words
from orderkeep.web.problems import invalid_parameters

# What handlers here are given beside parameters and dependencies.
_GIVEN_BY_FRAMEWORK = ("data", "body", "request")

# Under this name a handler's `opt` keeps what was read from its declaration.
RULES = "rules"


class RouteDeclarationError(Exception):
    """A route handler is declared in a way that must not be served."""


class Access(StrEnum):
    """Who may call a handler, as its `opt["access"]` declares."""

    PUBLIC = "public"
    USER = "user"
    OPERATOR_READ = "operator:read"
    OPERATOR = "operator"
    MESSAGES = "messages"


# Any one of these scopes opens the door; None needs no scope but a valid token.
_SCOPES: Mapping[Access, tuple[str, ...]] = {
    Access.PUBLIC: (),
    Access.USER: (),
    Access.OPERATOR_READ: (OPERATOR_READ_SCOPE, OPERATOR_SCOPE),
    Access.OPERATOR: (OPERATOR_SCOPE,),
    Access.MESSAGES: (MESSAGES_SCOPE,),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterLimit:
    """The limits of one query or header parameter.

    Attributes:
        place: query or header.
        name: As the client writes it.
        type: The annotation, with its `msgspec.Meta`.
    """

    place: str
    name: str
    type: Any  # an annotation, which has no type of its own
    is_list: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteRules:
    """What was read from one handler.

    Attributes:
        scopes: Any one of them is enough; none are needed where this is empty.
        body_type: What `data` is annotated with, or None where there is no JSON body.
        has_raw_body: The handler takes the body as bytes, of any media type.
        methods: What the path takes, for the OPTIONS handler that Litestar adds; else empty.
        query_names: The query parameters that there are; None takes any.
        choices: By name, what a query parameter may be that is one of a few words.
    """

    access: Access
    scopes: frozenset[str]
    has_path_parameters: bool
    limits: tuple[ParameterLimit, ...]
    body_type: Any  # an annotation, which has no type of its own
    has_raw_body: bool = False
    methods: tuple[str, ...] = ()
    query_names: frozenset[str] | None = None
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def read_rules(routes: Iterable[BaseRoute], *, expected_hook: object) -> None:
    """Read what every handler declares and keep it in the handler's `opt`.

    Args:
        routes: Every route of the application.
        expected_hook: The `before_request` hook that enforces the rules; a handler that puts
            another in its place would be open to all.

    Raises:
        RouteDeclarationError: a handler must not be served as it is declared.
    """
    routes = tuple(routes)
    methods_by_path: dict[str, set[str]] = {}
    for route in routes:
        methods_by_path.setdefault(route.path_format, set()).update(route.methods)
    for route in routes:
        if not isinstance(route, HTTPRoute):
            message = f"{route.path}: only HTTP routes can be guarded"
            raise RouteDeclarationError(message)
        for handler in route.route_handlers:
            if handler.resolve_before_request() is not expected_hook:
                message = f"{route.path}: {handler} replaces the hook that enforces access"
                raise RouteDeclarationError(message)
            if handler.http_methods == {"OPTIONS"}:
                handler.opt[RULES] = _rules_of_options(methods_by_path[route.path_format])
            else:
                handler.opt[RULES] = _rules_of(handler, route)


def find_paths(routes: Iterable[BaseRoute], *, option: str) -> Callable[[str, str], bool]:
    """Return what tells, by method and path, whether the handler of a request has the option.

    By `opt["goes_first"]` a handler declares that what it does frees stock or brings money, by
    `opt["goes_last"]` that it makes more of both to do. The answer is needed before the request is
    routed, and of every request: one pattern for each method is all that it costs.
    """
    shapes: dict[str, list[str]] = {}
    for route in routes:
        if not isinstance(route, HTTPRoute):
            continue
        # What stands between braces is any one segment, and the rest is as it is.
        shape = re.sub(r"\\\{[^}]*\\\}", "[^/]+", re.escape(route.path_format))
        for handler in route.route_handlers:
            for method in handler.http_methods if handler.opt.get(option) else ():
                shapes.setdefault(method, []).append(shape)
    patterns = {method: re.compile("|".join(found)) for method, found in shapes.items()}

    def has_option(method: str, path: str) -> bool:
        pattern = patterns.get(method)
        return pattern is not None and pattern.fullmatch(path) is not None

    return has_option


def rules_of(connection: ASGIConnection[Any, Any, Any, Any]) -> RouteRules:
    """Return the rules of the handler that a request was routed to."""
    rules = connection.route_handler.opt[RULES]
    assert isinstance(rules, RouteRules)
    return rules


def check_parameters(request: Request[Any, Any, Any], rules: RouteRules) -> None:
    """Hold the request's parameters to their limits.

    Raises:
        NotFoundException: a part of the path is no identifier: nothing has such a name.
        Refusal: `invalid_request`, naming each wrong query or header parameter.
    """
    if rules.has_path_parameters and not all(
        isinstance(value, str) and is_identifier(value) for value in request.path_params.values()
    ):
        raise NotFoundException
    wrong: list[tuple[str, str, str]] = []
    # No text that a client sends as a parameter may hold NUL: PostgreSQL stores none.
    if b"%00" in request.scope["query_string"]:
        wrong.append(("query", "", "holds NUL"))
    elif request.scope["query_string"] and rules.query_names is not None:
        wrong.extend(
            ("query", name, unknown_words(name, rules.query_names))
            for name in dict.fromkeys(request.query_params)
            if name not in rules.query_names
        )
        wrong.extend(_wrong_choices(request, rules.choices))
    for limit in rules.limits:
        given = _given(request, limit)
        if not given:
            continue
        if len(given) > 1 and not limit.is_list:
            # Which one counts would depend on who reads them.
            wrong.append((limit.place, limit.name, "is given more than once"))
            continue
        try:
            msgspec.convert(given if limit.is_list else given[-1], limit.type, strict=False)
        except msgspec.ValidationError as error:
            words = plain_words(str(error).partition(" - at `$")[0])
            wrong.append((limit.place, limit.name, words))
    if wrong:
        raise invalid_parameters(wrong)


def _wrong_choices(
    request: Request[Any, Any, Any], choices: Mapping[str, tuple[str, ...]]
) -> Iterable[tuple[str, str, str]]:
    # Litestar would find them too, but names a parameter as its handler does.
    for name, words in choices.items():
        given = request.query_params.getall(name, [])
        if len(given) > 1:
            yield "query", name, "is given more than once"
        elif given and given[0] not in words:
            yield "query", name, unknown_words(given[0], words)


def _given(request: Request[Any, Any, Any], limit: ParameterLimit) -> Sequence[str]:
    values = request.query_params if limit.place == "query" else request.headers
    return values.getall(limit.name, [])


def _rules_of_options(methods: Iterable[str]) -> RouteRules:
    # Litestar's own answer knows the methods of one route, and a path may have several routes. The
    # gate serves HEAD wherever there is GET.
    names = set(methods)
    return RouteRules(
        access=Access.PUBLIC,
        scopes=frozenset(),
        has_path_parameters=False,
        limits=(),
        body_type=None,
        methods=tuple(sorted(names | {"HEAD"} if "GET" in names else names)),
    )


def _rules_of(handler: HTTPRouteHandler, route: HTTPRoute) -> RouteRules:
    declared = handler.opt.get("access")
    if declared not in set(Access):
        message = (
            f"{route.path}: {handler} declares access {declared!r};"
            f" opt must have one of {', '.join(Access)}"
        )
        raise RouteDeclarationError(message)
    access = Access(declared)
    parameters = handler.parsed_fn_signature.parameters
    data = parameters.get("data")
    queries = _queries_of(handler, route)
    return RouteRules(
        access=access,
        scopes=frozenset(_SCOPES[access]),
        has_path_parameters=bool(route.path_parameters),
        limits=tuple(_limits_of(handler, route)),
        body_type=None if data is None else _without_markers(data.raw),
        has_raw_body="body" in parameters,
        query_names=frozenset(queries) if _is_closed(handler) else None,
        choices={name: words for name, type_ in queries.items() if (words := _words_of(type_))},
    )


def _is_closed(handler: HTTPRouteHandler) -> bool:
    # A misspelt filter would find what nobody asked for. Probes and scrapers, which are not asked
    # who they are, may add to an address what they like.
    return "GET" in handler.http_methods and bool(handler.opt.get("knows_its_query"))


def _queries_of(handler: HTTPRouteHandler, route: HTTPRoute) -> dict[str, object]:
    """Return the type of each query parameter, by the name that a client writes."""
    injected = {*handler.resolve_dependencies(), *route.path_parameters, *_GIVEN_BY_FRAMEWORK}
    limits = (
        limit_of(name, declared)
        for name, declared in handler.parsed_fn_signature.parameters.items()
        if name not in injected
    )
    return {limit.name: limit.type for limit in limits if limit.place == "query"}


def _words_of(annotation: object) -> tuple[str, ...]:
    """Return the words of a type that has only a few, or nothing for another type."""
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        return tuple(annotation)
    members = get_args(annotation)
    if get_origin(annotation) is Literal:
        return members
    # What may be left out, or has markers beside it.
    return next((words for member in members if (words := _words_of(member))), ())


def _limits_of(handler: HTTPRouteHandler, route: HTTPRoute) -> Iterable[ParameterLimit]:
    injected = {*handler.resolve_dependencies(), *route.path_parameters, *_GIVEN_BY_FRAMEWORK}
    for name, declared in handler.parsed_fn_signature.parameters.items():
        if name not in injected and _has_limits(declared.raw):
            yield limit_of(name, declared)


def limit_of(name: str, field: FieldDefinition) -> ParameterLimit:
    """Return where a client writes a handler's parameter, and within which limits."""
    marker = field.kwarg_definition
    place, shown_name = "query", name
    if isinstance(marker, ParameterKwarg):
        place = "header" if marker.header else marker.param_type.value
        shown_name = marker.header or marker.query or marker.name or name
    return ParameterLimit(
        place=place,
        name=shown_name,
        type=_without_markers(field.raw),
        is_list=field.is_non_string_sequence,
    )


def _without_markers(annotation: object) -> object:
    """Return the annotation with no metadata but msgspec's own.

    msgspec hashes a type each time it meets it, and Litestar's markers take 200 µs to hash.
    """
    if get_origin(annotation) is not Annotated:
        return annotation
    plain, *metadata = get_args(annotation)
    limits = [one for one in metadata if isinstance(one, msgspec.Meta)]
    plain = _without_markers(plain)
    return Annotated[(plain, *limits)] if limits else plain


def _has_limits(annotation: object) -> bool:
    if isinstance(annotation, msgspec.Meta):
        return True
    members = (*get_args(annotation), *getattr(annotation, "__metadata__", ()))
    return any(_has_limits(member) for member in members)
