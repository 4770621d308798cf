"""The reference of the HTTP API lists every call, and who may make it."""

import json
import subprocess
from typing import Any

from tests.repo.checkout import BIN
from tests.repo.written_tables import REFERENCE, check_part, code, table

METHODS = ("get", "post", "put", "patch", "delete")


def who_may_call(operation: dict[str, Any]) -> str:
    """Return whom an operation of the OpenAPI document lets in, in words."""
    if not operation["security"]:
        return "anybody"
    (scopes,) = operation["security"][0].values()
    return " or ".join(code(scope) for scope in scopes) or "any user"


def test_every_call_stands_in_the_reference() -> None:
    printed = subprocess.run(
        [str(BIN / "orderkeep"), "openapi"], check=True, capture_output=True, text=True, env={}
    )
    document = json.loads(printed.stdout)
    calls = sorted(
        (operation.get("tags", [""])[0], path, METHODS.index(method), method, operation)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if method in METHODS
    )

    check_part(
        REFERENCE / "http.md",
        writer=__file__,
        text=table(
            ("call", "does", "open to"),
            [
                (code(f"{method.upper()} {path}"), operation["summary"], who_may_call(operation))
                for _, path, _, method, operation in calls
            ],
        ),
    )
