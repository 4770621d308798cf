"""`orderkeep token`: a bearer token for the HTTP API, for people and scripts at hand."""

from typing import TYPE_CHECKING, Annotated

import typer

from orderkeep.cli.environment import read_settings_quickly
from orderkeep.cli.exits import WrongUsageError
from orderkeep.cli.terminal import examples, print_text, warn
from orderkeep.contracts.caller import MESSAGES_SCOPE, OPERATOR_READ_SCOPE, OPERATOR_SCOPE

if TYPE_CHECKING:
    from orderkeep.settings import Settings

app = typer.Typer()

TTL_S_DEFAULT = 3600

# Ten years: who asks for more has confused seconds with something else.
TTL_S_MAX = 10 * 365 * 24 * 3600

_KNOWN_SCOPES = (OPERATOR_SCOPE, OPERATOR_READ_SCOPE, MESSAGES_SCOPE)


@app.command(
    rich_help_panel="Serve",
    epilog=examples(
        "orderkeep token --user ann",
        "orderkeep token --user bob --scope operator --scope messages --ttl 600",
        'curl -H "Authorization: Bearer $(orderkeep token --user ann)" '
        "http://127.0.0.1:8080/api/v1/orders",
    ),
)
def token(
    *,
    user: Annotated[str, typer.Option("--user", help="The user id it stands for.")],
    scope: Annotated[
        list[str] | None,
        typer.Option(
            "--scope",
            help="What it opens beside the user's own: operator, operator:read or messages."
            " May be given several times.",
        ),
    ] = None,
    ttl: Annotated[
        int,
        typer.Option("--ttl", min=1, max=TTL_S_MAX, help="For how many seconds it is good."),
    ] = TTL_S_DEFAULT,
) -> None:
    """Print a bearer token, and nothing else.

    It is signed with ORDERKEEP_JWT_SECRET, else with the secret in the data directory.
    """
    from orderkeep.data_directory import has_secret
    from orderkeep.instant import after
    from orderkeep.web.tokens import sign_token
    from orderkeep.wiring import chance
    from orderkeep.wiring.keys import find_jwt_secret_beside, token_key

    settings = read_settings_quickly()
    had_secret = has_secret(settings.data_dir)
    key = token_key(settings, jwt_secret=find_jwt_secret_beside(settings))
    scopes = scope or []
    try:
        signed = sign_token(
            key, user_id=user, scopes=scopes, expires_at=after(chance.now(), seconds=ttl)
        )
    except ValueError as error:
        raise WrongUsageError(str(error)) from None
    _warn_of_secret(settings, had_secret=had_secret)
    for unknown in [each for each in scopes if each not in _KNOWN_SCOPES]:
        warn(f"the scope {unknown!r} opens nothing here; known are {', '.join(_KNOWN_SCOPES)}")
    print_text(signed)


def _warn_of_secret(settings: "Settings", *, had_secret: bool) -> None:
    """Tell of a secret that the service may not have: it would take no token of this one."""
    from orderkeep.data_directory import secret_file

    if settings.jwt_secret is not None:
        return
    file = secret_file(settings.data_dir).absolute()
    if not had_secret:
        warn(
            f"there was no secret, so a new one was made in {file}: only a service with this data"
            " directory takes the token; else set ORDERKEEP_DATA_DIR to the service's own, or"
            " ORDERKEEP_JWT_SECRET"
        )
    elif not settings.is_embedded:
        warn(
            f"signed with the secret in {file}: only an `orderkeep run` with this data directory"
            " takes the token; for `orderkeep serve` give the ORDERKEEP_JWT_SECRET that it has"
        )
