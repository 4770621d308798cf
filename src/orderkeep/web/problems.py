"""Every error as a problem document (RFC 9457): the one table from code to status.

Whatever a route raises ends here. A refusal keeps its code and its words. What nobody foresaw is
logged with its traceback and answered as `internal`, with nothing of it but the request id.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException
from litestar.types import Scope

from orderkeep.database.transaction import StoreOverloadedError, StoreUnavailableError
from orderkeep.refusal import Refusal

log = structlog.get_logger()

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:orderkeep:problem:"


@dataclass(frozen=True, slots=True)
class ProblemKind:
    """How a code is answered.

    Attributes:
        retry_after_s: When the same request may succeed; None where waiting changes nothing.
    """

    status: int
    title: str
    retry_after_s: int | None = None


KINDS: Mapping[str, ProblemKind] = {
    "malformed_json": ProblemKind(400, "The body is not JSON that can be read"),
    "invalid_cursor": ProblemKind(400, "The cursor is not one of this list"),
    "idempotency_key_missing": ProblemKind(400, "An idempotency key is needed"),
    "idempotency_key_ambiguous": ProblemKind(400, "Two idempotency keys were given"),
    "idempotency_key_invalid": ProblemKind(400, "The idempotency key is not valid"),
    "unauthenticated": ProblemKind(401, "The caller is not known"),
    "insufficient_scope": ProblemKind(403, "The caller may not do this"),
    "not_found": ProblemKind(404, "There is no such thing"),
    "method_not_allowed": ProblemKind(405, "The method is not allowed here"),
    "body_too_large": ProblemKind(413, "The body is too large"),
    "unsupported_media_type": ProblemKind(415, "The body has a media type that is not read here"),
    "out_of_stock": ProblemKind(409, "There is not enough stock"),
    "token_expired": ProblemKind(409, "The order token is not good any more"),
    "in_progress": ProblemKind(409, "The same request is being worked on", 1),
    "order_not_pending": ProblemKind(409, "The order is not waiting for payment"),
    "price_changed": ProblemKind(409, "A price has changed"),
    "order_not_ready": ProblemKind(409, "The order is not known here yet", 1),
    "stock_exists": ProblemKind(409, "The SKU has stock already"),
    "case_resolved": ProblemKind(409, "The case is resolved already"),
    "dead_letter_not_open": ProblemKind(409, "The dead letter is settled already"),
    "dead_letter_unreadable": ProblemKind(409, "The dead letter cannot be read"),
    "message_not_remembered": ProblemKind(409, "The message is too old to prove that it is new"),
    "message_took_effect": ProblemKind(409, "The message has taken effect"),
    "version_mismatch": ProblemKind(412, "The order has changed"),
    "invalid_request": ProblemKind(422, "The request is not valid"),
    "unknown_sku": ProblemKind(422, "A SKU is not in the catalogue"),
    "idempotency_key_reused": ProblemKind(422, "The idempotency key stands for another request"),
    "mixed_currencies": ProblemKind(422, "The items have more than one currency"),
    "unsupported_currency": ProblemKind(422, "The currency is not supported"),
    "amount_too_large": ProblemKind(422, "The amount is too large"),
    "unknown_channel": ProblemKind(422, "The payment channel is not known"),
    "too_many_requests": ProblemKind(429, "Too many requests", 1),
    "internal": ProblemKind(500, "The request failed"),
    "overloaded": ProblemKind(503, "Too much is going on", 1),
    "database_unavailable": ProblemKind(503, "The database cannot serve now", 2),
}

# What Litestar raises by itself, by status: routing, body size, parameters.
_CODES_BY_STATUS = {
    400: "invalid_request",
    401: "unauthenticated",
    403: "insufficient_scope",
    404: "not_found",
    405: "method_not_allowed",
    413: "body_too_large",
    415: "unsupported_media_type",
    422: "invalid_request",
    429: "too_many_requests",
    503: "overloaded",
}

_DETAILS = {
    "not_found": "There is nothing at this path.",
    "method_not_allowed": "This path does not take this method; Allow names those it takes.",
    "body_too_large": "A body may have at most 65536 bytes.",
    "internal": "The request failed for a reason of ours; the request id finds it in the logs.",
}

_STANDARD_MEMBERS = frozenset({"type", "title", "status", "detail", "code", "request_id"})


class UnauthenticatedError(Refusal):
    """The caller cannot be told from anybody else.

    Attributes:
        challenge: What WWW-Authenticate says.
    """

    def __init__(self, detail: str, *, challenge: str) -> None:
        """Refuse with the given challenge."""
        super().__init__("unauthenticated", detail)
        self.challenge = challenge


class InsufficientScopeError(Refusal):
    """The caller is known, and may not do this.

    Attributes:
        challenge: What WWW-Authenticate says.
    """

    def __init__(self, scopes: Sequence[str]) -> None:
        """Refuse for want of any one of the scopes."""
        detail = f"The token needs the scope {' or '.join(scopes)}."
        super().__init__("insufficient_scope", detail)
        self.challenge = f'Bearer error="insufficient_scope", scope="{scopes[-1]}"'


class ClientGoneError(Exception):
    """The client closed its connection in the middle of its request: nobody waits for an answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """An answer that is an error, ready to send."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def problem_of(refusal: Refusal, *, request_id: str) -> Problem:
    """Return the document that tells of a refusal.

    A code that is not in the table is a mistake of ours, answered as `internal`.
    """
    kind = KINDS.get(refusal.code)
    if kind is None:
        log.error("problem_code_unknown", code=refusal.code, request_id=request_id)
        return problem_of(_internal(), request_id=request_id)
    headers = {}
    if kind.retry_after_s is not None:
        headers["Retry-After"] = str(kind.retry_after_s)
    if isinstance(refusal, UnauthenticatedError | InsufficientScopeError):
        headers["WWW-Authenticate"] = refusal.challenge
    elif refusal.code == "unauthenticated":
        headers["WWW-Authenticate"] = "Bearer"
    document = {
        "type": TYPE_PREFIX + refusal.code,
        "title": kind.title,
        "status": kind.status,
        "detail": refusal.detail,
        "code": refusal.code,
        "request_id": request_id,
    }
    document.update(
        (name, value) for name, value in refusal.members.items() if name not in _STANDARD_MEMBERS
    )
    return Problem(status=kind.status, headers=headers, body=msgspec.json.encode(document))


def refusal_of(error: Exception, *, scope: Scope, request_id: str) -> Refusal:
    """Return the refusal that any error amounts to; log what a person should look into."""
    match error:
        case Refusal():
            return error
        case StoreOverloadedError():
            log.warning("database_overloaded", request_id=request_id, reason=str(error))
            return Refusal("overloaded", "Too much asks the database at once; try again shortly.")
        case StoreUnavailableError():
            log.warning("database_unavailable", request_id=request_id, reason=str(error))
            return Refusal("database_unavailable", "The database cannot serve now; try again.")
        case ClientGoneError():
            log.debug("client_gone", request_id=request_id)
            return Refusal("malformed_json", "The body did not arrive whole.")
        case ValidationException():
            return _refusal_of_parameters(error, scope=scope)
        case HTTPException() if error.status_code in _CODES_BY_STATUS:
            code = _CODES_BY_STATUS[error.status_code]
            return Refusal(code, _DETAILS.get(code, error.detail))
        case _:
            log.error(
                "request_failed",
                request_id=request_id,
                method=scope.get("method"),
                path=scope.get("path_template") or scope.get("path"),
                exc_info=error,
            )
            return _internal()


def answer_problem(request: Request, error: Exception) -> Response[bytes]:  # type: ignore[type-arg]  # reason: Litestar's exception handlers meet requests of every kind
    """Answer any error that a route, or Litestar on the way to it, has raised."""
    request_id = request_id_of(request.scope)
    refusal = refusal_of(error, scope=request.scope, request_id=request_id)
    problem = problem_of(refusal, request_id=request_id)
    headers = dict(problem.headers)
    if refusal.code == "method_not_allowed" and isinstance(error, HTTPException):
        methods = {*(error.headers or {}).get("allow", "").split(", ")}
        # The gate serves HEAD wherever there is GET.
        headers["Allow"] = ", ".join(sorted(methods | {"HEAD"} if "GET" in methods else methods))
    return Response(
        problem.body, status_code=problem.status, headers=headers, media_type=MEDIA_TYPE
    )


def request_id_of(scope: Scope) -> str:
    """Return the id that the gate gave the request."""
    return str(scope["state"].get("request_id", ""))


def _internal() -> Refusal:
    return Refusal("internal", _DETAILS["internal"])


def _refusal_of_parameters(error: ValidationException, *, scope: Scope) -> Refusal:
    """Return the refusal that names each wrong parameter, as Litestar found them."""
    found = error.extra if isinstance(error.extra, Sequence) else []
    problems = [one for one in found if isinstance(one, dict)]
    if any(one.get("source") == "path" for one in problems):
        return Refusal("not_found", _DETAILS["not_found"])
    if any(one.get("key") == "data" for one in problems):
        # Other bodies are read, and refused, by `JsonRequest`: this one is not there.
        return Refusal("malformed_json", "The body is empty; a JSON document is expected.")
    if not problems:
        return Refusal("invalid_request", error.detail)
    del scope
    return invalid_parameters(
        [
            (str(getattr(one.get("source"), "value", "query")), str(one.get("key")), one["message"])
            for one in problems
        ]
    )


def invalid_parameters(wrong: Sequence[tuple[str, str, str]]) -> Refusal:
    """Return the refusal for wrong parameters.

    A location has no leading slash, so that none can be taken for a JSON pointer into the body.

    Args:
        wrong: For each, where it stands (query, header), its name, and what is wrong.
    """
    errors = [{"pointer": f"{place}/{name}", "detail": detail} for place, name, detail in wrong]
    detail = "; ".join(f"{place} parameter {name}: {words}" for place, name, words in wrong)
    return Refusal("invalid_request", detail, members={"errors": errors})
