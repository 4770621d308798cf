"""`uvicorn bench.peers.celery_shop.web:app`: orders over HTTP."""

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated

import jwt
from fastapi import Depends, FastAPI, Header, HTTPException, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, ConfigDict
from sqlalchemy import orm

from bench.peers.celery_shop import orders
from bench.peers.celery_shop.models import Session
from bench.peers.celery_shop.settings import HAS_OUTBOX, JWT_SECRET, PAYMENT_TIMEOUT_S
from bench.peers.celery_shop.tasks import close_order, open_payment

app = FastAPI()


def _session() -> Iterator[orm.Session]:
    with Session() as session:
        yield session


# It never waits: it needs no thread.
async def _user_id(
    credentials: Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())],
) -> str:
    try:
        claims = jwt.decode(
            credentials.credentials, JWT_SECRET, algorithms=["HS256"], audience="orderkeep"
        )
    except jwt.InvalidTokenError as error:
        raise HTTPException(401, "the token is no good") from error
    user_id: str = claims["sub"]
    return user_id


class LineAnswer(BaseModel):
    """One line of an order."""

    model_config = ConfigDict(from_attributes=True)

    sku_id: str
    title: str
    unit_price_minor: int
    quantity: int
    subtotal_minor: int


class OrderAnswer(BaseModel):
    """An order, as it is answered."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    status: str
    version: int
    total_amount_minor: int
    currency: str
    created_at: datetime
    expires_at: datetime
    lines: list[LineAnswer]


@app.post("/api/v1/orders", status_code=201, response_model=OrderAnswer)
def place_order(
    wanted: orders.WantedOrder,
    response: Response,
    session: Annotated[orm.Session, Depends(_session)],
    user_id: Annotated[str, Depends(_user_id)],
    idempotency_key: Annotated[str, Header()],
) -> object:
    """Place an order, once for each key."""
    try:
        order, is_new = orders.place_order(session, wanted, user_id=user_id, key=idempotency_key)
    except orders.RefusedError as error:
        raise HTTPException(409, str(error)) from error
    if not is_new:
        response.headers["Idempotent-Replayed"] = "true"
    elif not HAS_OUTBOX:
        close_order.apply_async((order.id,), countdown=PAYMENT_TIMEOUT_S)
        open_payment.delay(order.id)
    return order


@app.get("/health/ready")
async def is_ready() -> None:
    """Answer that requests are answered."""
