"""`orderkeep openapi`: the description of the HTTP API."""

from typing import TYPE_CHECKING

import typer

from orderkeep.cli.environment import read_settings_quietly
from orderkeep.cli.terminal import examples, print_bytes

if TYPE_CHECKING:
    from orderkeep.settings import Settings

app = typer.Typer()


@app.command(rich_help_panel="Look", epilog=examples("orderkeep openapi > openapi.json"))
def openapi() -> None:
    """Print the OpenAPI document of the HTTP API, as /openapi.json answers it."""
    import asyncio

    import msgspec

    document = asyncio.run(_document(read_settings_quietly()))
    print_bytes(msgspec.json.format(document, indent=2) + b"\n")


async def _document(settings: "Settings") -> bytes:
    from orderkeep.wiring.parts import Role
    from orderkeep.wiring.shop import unstarted_shop

    async with unstarted_shop(settings, roles=frozenset({Role.SERVE})) as shop:
        return shop.app.openapi_json
