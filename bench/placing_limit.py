"""The limit for placing orders: the same rows, written by the database itself, under pgbench."""

from collections.abc import Mapping
from pathlib import Path

from bench.pgbench import run_pgbench
from bench.placing_by_desk import Placed, open_desk, order_requests
from bench.stage import HOT_SKU, RECEIVER, SKU_COUNT, USER_COUNT
from orderkeep.settings import Settings
from tests.servers.postgresql import PostgresServer

_SQL = Path(__file__).with_suffix(".sql")

# The best of these is the limit: on a hot SKU more clients only wait for each other.
CLIENT_COUNTS = (8, 32)

# Keys of two requests are the same once in 2^40 pairs; the limit would answer the earlier order.
_COMMON = f"""\
\\set buyer random(0, {USER_COUNT - 1})
\\set request_number random(1, 9000000000000000000)
\\set drawn random(0, 9999999999999)
"""
_COLD = f"""\
{_COMMON}\\set first random(0, {SKU_COUNT - 1})
\\set second (7 * :first + 3) % {SKU_COUNT}
SELECT bench_place_order(
    :buyer, :request_number, :drawn,
    'MUG-' || lpad(:first::text, 4, '0'), 'MUG-' || lpad(:second::text, 4, '0')
);
"""
_HOT = f"""\
{_COMMON}SELECT bench_place_order(:buyer, :request_number, :drawn, '{HOT_SKU}', NULL);
"""


async def place_samples(settings: Settings) -> None:
    """Place an order of two lines and one of one line, to see what they write."""
    async with open_desk(settings) as desk:
        for number, is_hot in enumerate((False, True)):
            await desk.place(next(order_requests(is_hot=is_hot, first_number=number)))


def install_limit(server: PostgresServer, name: str, *, samples_name: str) -> None:
    """Make the function that places an order as the database alone would.

    Args:
        server: Where both databases are.
        name: The database to place orders in.
        samples_name: The database that holds the samples, in the order in which they were placed.
    """
    sql = _SQL.read_text(encoding="utf-8")
    for word, value in _words(server, samples_name).items():
        sql = sql.replace(f"@{word}@", value)
    assert "@" not in sql, "a word of the function was left open"
    server.query(sql, database=name)


def place_by_pgbench(
    url: str, *, is_hot: bool, client_count: int, warm_up_s: int, measured_s: int
) -> Placed:
    """Keep so many clients placing orders until the time is up."""
    done = run_pgbench(
        url,
        _HOT if is_hot else _COLD,
        client_count=client_count,
        warm_up_s=warm_up_s,
        measured_s=measured_s,
    )
    return Placed(order_count=done.transaction_count, rate=done.rate, latency_ms=[])


def _words(server: PostgresServer, name: str) -> Mapping[str, str]:
    check, created, _, created_of_one = server.query(
        "SELECT type, route, encode(body, 'hex') AS body, encode(headers, 'hex') AS headers"
        " FROM order_outbox ORDER BY id",
        database=name,
    )
    (request, _) = server.query("SELECT body_hash FROM order_requests", database=name)
    return {
        "body_hash": request["body_hash"],
        **{f"receiver_{part}": text for part, text in RECEIVER.items()},
        **{f"check_{part}": check[part] for part in ("type", "route", "body", "headers")},
        **{f"created_{part}": created[part] for part in ("type", "route", "headers")},
        "created_body_of_two": created["body"],
        "created_body_of_one": created_of_one["body"],
    }
