"""A route that does not say who may call it, or gets around who may, is not served."""

import pytest
from litestar import Request, WebSocket, get, websocket
from litestar.types import ControllerRouterHandler

from orderkeep.web.route_rules import RouteDeclarationError
from tests.unit.web.small_shop import Shop


@get("/undeclared")
async def undeclared() -> None:
    """Say nothing of access."""


@get("/misspelt", opt={"access": "operators"})
async def misspelt() -> None:
    """Ask for a scope that nobody has."""


async def let_everybody_in(_request: Request) -> None:
    """Ask for nothing."""


@get("/hooked", opt={"access": "operator"}, before_request=let_everybody_in)
async def hooked() -> None:
    """Put another hook in the place of the one that guards."""


@websocket("/socket", opt={"access": "public"})
async def socket(socket: WebSocket) -> None:
    """Be no HTTP route."""


@pytest.mark.parametrize("handler", [undeclared, misspelt, hooked, socket])
def test_a_route_that_cannot_be_guarded_keeps_the_application_from_starting(
    shop: Shop, handler: ControllerRouterHandler
) -> None:
    shop.route_handlers = [handler]

    with pytest.raises(RouteDeclarationError):
        shop.build()
