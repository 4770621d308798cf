"""The process that replay tests kill: a replay of many, as the command line carries it out."""

import asyncio
from pathlib import Path

from orderkeep import failure_points
from orderkeep.cli import replays
from orderkeep.cli.message_changes import Wanted
from orderkeep.cli.replays import HowToReplay, ReplayPiece
from orderkeep.database.audit import Act
from orderkeep.database.sqlite import SqliteDatabase
from orderkeep.messaging.dead_letter import DeadLetterFilter
from orderkeep.messaging.sent_replay import Destination, SentFilter
from orderkeep.settings import load_settings
from orderkeep.web.replays import EditedReplay, ReplayDesk
from orderkeep.web.service_messages import Changed
from orderkeep.wiring.operator_desks import build_messages, build_replay_desk
from orderkeep.wiring.storage import build_outboxes

# So that a piece takes five messages, and the next goes on at once.
RATE_PER_S = 1000.0
PIECE_S = 0.005

HOW = HowToReplay(
    rate_per_s=RATE_PER_S,
    is_forced=False,
    is_dry_run=False,
    why="the bank is back",
    is_confirmed=True,
    as_json=False,
    question="",
    thing="",
)


async def carry_out(folder: Path, what: str) -> list[Changed]:
    """Replay all dead letters, all sent events, or an edited message, in the given data folder."""
    settings = load_settings({"ORDERKEEP_DATA_DIR": str(folder)})
    database = SqliteDatabase(folder / "orderkeep.db")
    replays.PIECE_S = PIECE_S
    try:
        messages = build_messages(settings, build_outboxes(settings), database=database)
        desk = build_replay_desk(messages)
        if what == "edited":
            return [await _edit(desk)]
        piece, which = _WHAT[what]
        wanted = Wanted(ids=None, filter=which, service=None)
        return await replays.replay_all(piece, wanted, HOW, desk, is_dry_run=False)
    finally:
        await database.close()


async def _edit(desk: ReplayDesk) -> Changed:
    body = b'{"event_type": "cart.item.removed", "user_id": "ann", "item_id": "c1"}'
    settled = await desk.replay_edited(
        EditedReplay(
            reference="cart-1",
            body=body,
            is_forced=False,
            is_dry_run=False,
            act=Act(actor="olga"),
        )
    )
    return Changed(reference="cart-1", result=settled.result)


_LETTERS: ReplayPiece = lambda desk, piece: desk.replay_dead_letters(piece)  # noqa: E731 (two of a kind)
_SENT: ReplayPiece = lambda desk, piece: desk.replay_sent(piece, to=Destination())  # noqa: E731

_WHAT = {
    "letters": (_LETTERS, DeadLetterFilter()),
    "sent": (_SENT, SentFilter()),
}


def main(folder: str, what: str, point: str) -> None:
    """Carry it out with a failure point armed."""
    failure_points.arm(failure_points.parse(point))
    asyncio.run(carry_out(Path(folder), what))
