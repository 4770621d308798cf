"""`orderkeep demo`: simulated shoppers at a running service."""

from typing import TYPE_CHECKING, Annotated

import typer

from orderkeep.cli.environment import read_settings_quietly
from orderkeep.cli.exits import ExitCode, WrongUsageError
from orderkeep.cli.terminal import AsJson, answer_console, examples, note_console, print_json

if TYPE_CHECKING:
    from orderkeep.demo import DemoOptions, DemoSummary
    from orderkeep.demo.run import Tokens
    from orderkeep.settings import Settings

app = typer.Typer()

# Longer than a visit; each begins with a fresh token.
_TOKEN_LIFE_S = 3600

# Addresses on which a server listens everywhere; a client calls this machine instead.
_LOCAL_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (nothing listens here)


@app.command(
    rich_help_panel="Serve",
    epilog=examples(
        "orderkeep demo",
        "orderkeep demo --shoppers 50 --seconds 30 --url http://127.0.0.1:9000",
    ),
)
def demo(
    *,
    shoppers: Annotated[
        int, typer.Option("--shoppers", min=1, max=1000, help="How many at once.")
    ] = 20,
    seconds: Annotated[
        float, typer.Option("--seconds", min=0.1, help="For how long they come.")
    ] = 10.0,
    url: Annotated[
        str | None,
        typer.Option("--url", help="Where the service is; by default where `run` listens here."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Let simulated shoppers into a running service, and tell what they saw.

    They fill carts, order, pay, pay late, cancel and walk away. Goods named demo-... are put on
    sale first. The service must take tokens signed with this command's secret: run both with the
    same data directory or ORDERKEEP_JWT_SECRET. Exits with 1 if a shopper saw what none may see.
    """
    from orderkeep.demo import DemoOptions
    from orderkeep.demo.report import DemoProgressBar, summary_json, summary_tables

    settings = read_settings_quietly()
    with DemoProgressBar(note_console(), duration_s=seconds) as on_progress:
        options = DemoOptions(
            url=url or _own_url(settings),
            shopper_count=shoppers,
            duration_s=seconds,
            on_progress=on_progress,
        )
        summary = _run(options, settings)
    if as_json:
        print_json(summary_json(summary))
    else:
        answer_console().print(summary_tables(summary))
    if summary.surprise_count:
        raise typer.Exit(ExitCode.WRONG)


def _run(options: "DemoOptions", settings: "Settings") -> "DemoSummary":
    import asyncio
    import time

    from orderkeep.demo import run_demo
    from orderkeep.demo.catalogue import CatalogueError
    from orderkeep.demo.shop_client import VisitCutShortError

    try:
        return asyncio.run(
            run_demo(
                options,
                tokens=_token_maker(settings),
                draw=_Draw(),
                clock=time.monotonic,
            )
        )
    except VisitCutShortError as error:
        message = (
            f"no service answers at {options.url} ({error}):"
            " start one with `orderkeep run`, or name another with --url"
        )
        raise WrongUsageError(message) from error
    except CatalogueError as error:
        message = (
            f"{error}. If it does not know the caller, start both with the same data directory"
            " or ORDERKEEP_JWT_SECRET"
        )
        raise WrongUsageError(message) from error


class _Draw:
    """The dice of this process, as the demo takes them."""

    def random(self) -> float:
        """Return a number of at least 0.0 and below 1.0."""
        from orderkeep.wiring import chance

        return chance.draw_jitter()

    def getrandbits(self, k: int, /) -> int:
        """Return a number of `k` random bits, 256 at most."""
        from orderkeep.wiring import chance

        drawn = chance.draw_secret()
        assert k <= 8 * len(drawn)
        return int.from_bytes(drawn) >> (8 * len(drawn) - k)


def _token_maker(settings: "Settings") -> "Tokens":
    from orderkeep.instant import after
    from orderkeep.web.tokens import sign_token
    from orderkeep.wiring import chance
    from orderkeep.wiring.keys import find_jwt_secret_beside, token_key

    key = token_key(settings, jwt_secret=find_jwt_secret_beside(settings))

    def make(user_id: str, scopes: tuple[str, ...]) -> str:
        expires_at = after(chance.now(), seconds=_TOKEN_LIFE_S)
        return sign_token(key, user_id=user_id, scopes=scopes, expires_at=expires_at)

    return make


def _own_url(settings: "Settings") -> str:
    host = _LOCAL_ADDRESS.get(settings.http_host, settings.http_host)
    shown_host = f"[{host}]" if ":" in host else host
    return f"http://{shown_host}:{settings.http_port}"
