"""Idempotency keys: the unique row that makes one key one order, across any number of processes."""

from collections.abc import Collection, Mapping

from msgspec import Struct
from sqlalchemy import delete, select, update
from sqlalchemy.dialects.postgresql import insert

from orderkeep.database.statement import RowStatement, row_value
from orderkeep.database.transaction import Transaction
from orderkeep.orders.order import OrderNumber
from orderkeep.orders.tables import ORDER_REQUESTS as REQUESTS


class RequestKey(Struct, frozen=True, order=True):
    """What makes a request the same request: kinds and users never mix."""

    user_id: str
    kind: str
    key: str


class Claim(Struct, frozen=True, kw_only=True):
    """What a key stands for: the order it made, and the body it made it from."""

    order_no: OrderNumber
    body_hash: str


_KEY_COLUMNS = (REQUESTS.c.user_id, REQUESTS.c.kind, REQUESTS.c.key)

_IS_KEY = tuple(column == row_value(f"the_{column.name}", column.type) for column in _KEY_COLUMNS)

_CLAIM = RowStatement(
    insert(REQUESTS)
    .values({column.name: row_value(column.name, column.type) for column in REQUESTS.columns})
    .on_conflict_do_nothing(index_elements=["user_id", "kind", "key"])
    .returning(*_KEY_COLUMNS)
)
_FIND = RowStatement(select(REQUESTS).where(*_IS_KEY))
_RELEASE = RowStatement(delete(REQUESTS).where(*_IS_KEY))
_CORRECT = RowStatement(
    update(REQUESTS)
    .where(*_IS_KEY)
    .values(
        order_no=row_value("new_order_no", REQUESTS.c.order_no.type),
        body_hash=row_value("new_body_hash", REQUESTS.c.body_hash.type),
    )
)


async def claim_keys(
    transaction: Transaction, claims: Mapping[RequestKey, Claim]
) -> set[RequestKey]:
    """Claim the keys, in sorted order, and return those that were free.

    A key that another transaction is claiming makes this one wait for its end: the row is the lock.
    """
    rows = await transaction.fetch_rows(
        _CLAIM,
        [
            {
                "user_id": key.user_id,
                "kind": key.kind,
                "key": key.key,
                "order_no": claims[key].order_no,
                "body_hash": claims[key].body_hash,
            }
            for key in sorted(claims)
        ],
    )
    return {RequestKey(row["user_id"], row["kind"], row["key"]) for row in rows}


async def find_claims(
    transaction: Transaction, keys: Collection[RequestKey]
) -> dict[RequestKey, Claim]:
    """Return what the keys stand for; keys that stand for nothing are left out."""
    rows = await transaction.fetch_rows(_FIND, [_named(key) for key in sorted(keys)])
    return {
        RequestKey(row["user_id"], row["kind"], row["key"]): Claim(
            order_no=OrderNumber(row["order_no"]), body_hash=row["body_hash"]
        )
        for row in rows
    }


async def release_claims(transaction: Transaction, keys: Collection[RequestKey]) -> None:
    """Give back keys claimed in this transaction whose requests were refused."""
    await transaction.execute_rows(_RELEASE, [_named(key) for key in sorted(keys)])


async def correct_claims(transaction: Transaction, claims: Mapping[RequestKey, Claim]) -> None:
    """Make keys claimed in this transaction stand for another request of the same batch."""
    await transaction.execute_rows(
        _CORRECT,
        [
            {
                **_named(key),
                "new_order_no": claims[key].order_no,
                "new_body_hash": claims[key].body_hash,
            }
            for key in sorted(claims)
        ],
    )


def _named(key: RequestKey) -> dict[str, str]:
    return {"the_user_id": key.user_id, "the_kind": key.kind, "the_key": key.key}
