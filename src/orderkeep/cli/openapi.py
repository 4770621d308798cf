"""`orderkeep openapi`: the description of the HTTP API."""

from typing import TYPE_CHECKING

import typer

from orderkeep.cli.environment import read_settings_quietly
from orderkeep.cli.terminal import examples, print_bytes

if TYPE_CHECKING:
    from orderkeep.settings import Settings

app = typer.Typer()

# The document does not depend on it, and no secret is made for it.
_NO_SECRET = "0" * 32


@app.command(rich_help_panel="Look", epilog=examples("orderkeep openapi > openapi.json"))
def openapi() -> None:
    """Print the OpenAPI document of the HTTP API, as /openapi.json answers it."""
    import asyncio

    import msgspec

    document = asyncio.run(_document(read_settings_quietly()))
    print_bytes(msgspec.json.format(document, indent=2) + b"\n")


async def _document(settings: "Settings") -> bytes:
    import httpx

    from orderkeep.wiring.parts import Role
    from orderkeep.wiring.shop import build_shop
    from orderkeep.wiring.storage import open_brokers, open_database, relay_of

    # Nothing of what is built is started: no file is opened, no request is sent.
    database = open_database(settings)
    try:
        async with httpx.AsyncClient() as client:
            shop = build_shop(
                settings,
                roles=frozenset({Role.SERVE}),
                database=database,
                brokers=open_brokers(settings, database),
                jwt_secret=_NO_SECRET,
                client=client,
                relay=relay_of(None),
            )
            return shop.app.openapi_json
    finally:
        await database.close()
