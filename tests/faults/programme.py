"""Everything that can go wrong, done to a shop of real processes and real servers.

    python -m tests.faults --seed 7 --only points --minutes 10 --json faults.json

The parts are in `parts.py`. A seed draws the same schedule each time: which faults, in which order,
with which pauses, and at which failure point which process dies. `--minutes` is the time of all
parts together, each its share of it; starting, coming to rest and looking come on top.
"""

import argparse
import json
import random  # noqa: TID251 (the seed is drawn, and printed)
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from tests.acceptance.fleet_stage import say, work_folder
from tests.faults.parts import PARTS
from tests.faults.run_part import run_part
from tests.faults.shop import Servers, own_servers
from tests.faults.tally import Tally, total_of
from tests.repo.checkout import commit_of_checkout

MINUTES = sum(part.minutes for part in PARTS.values())


def _empty(servers: Servers) -> None:
    """Let the broker forget what the part before has left."""
    servers.rabbitmq.kill()
    servers.rabbitmq.wipe()
    servers.rabbitmq.start()


def run_parts(names: Sequence[str], *, seed: int, minutes: float, commit: str) -> list[Tally]:
    """Run parts one after the other, each whatever came of the one before."""
    share = minutes / sum(PARTS[name].minutes for name in names)
    tallies = []
    with work_folder("orderkeep-faults-") as folder:
        # PostgreSQL runs as another user, and has to get to its data.
        folder.chmod(0o755)
        with own_servers(folder) as servers:
            for name in names:
                part = PARTS[name]
                try:
                    _empty(servers)
                    tally, _ = run_part(
                        servers,
                        part,
                        seed=seed,
                        seconds=part.minutes * share * 60.0,
                        commit=commit,
                    )
                    tally.hold_to_bounds()
                except Exception as error:  # noqa: BLE001 (the other parts have something to tell)
                    say("".join(traceback.format_exception(error)))
                    tally = Tally(name=name, seed=seed, commit=commit, unexpected=1)
                    tally.findings.append(f"UNEXPECTED: it broke: {error!r}")
                tallies.append(tally)
                sys.stdout.write(f"{tally.table()}\n\n")
                sys.stdout.flush()
        if not all(tally.is_clean for tally in tallies):
            say(f"the logs are kept in {folder}.kept")
            folder.rename(f"{folder}.kept")
            folder.mkdir()
    return tallies


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it from the command line; return 0 when nothing was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults")
    parser.add_argument("--minutes", type=float, default=None, help="of faults, all parts together")
    parser.add_argument("--seed", type=int, default=None, help="drawn and printed by default")
    parser.add_argument("--only", choices=PARTS, action="append", help="one part, or several")
    parser.add_argument("--json", type=Path, default=None, help="where to write the report as well")
    chosen = parser.parse_args(arguments)
    # As an exception does: every process and server that was started ends with it.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    seed = random.randrange(2**32) if chosen.seed is None else chosen.seed  # noqa: S311
    names = chosen.only or list(PARTS)
    minutes = chosen.minutes or sum(PARTS[name].minutes for name in names)
    commit = commit_of_checkout()
    sys.stdout.write(f"seed {seed}, commit {commit}\n")
    sys.stdout.flush()
    tallies = run_parts(names, seed=seed, minutes=minutes, commit=commit)
    total = total_of(tallies)
    sys.stdout.write(f"{total.table()}\n")
    if chosen.json is not None:
        chosen.json.parent.mkdir(parents=True, exist_ok=True)
        document = {
            "seed": seed,
            "commit": commit,
            "minutes": minutes,
            "total": total.document(),
            "parts": [tally.document() for tally in tallies],
        }
        chosen.json.write_text(json.dumps(document, indent=1) + "\n")
    return 0 if all(tally.is_clean for tally in tallies) else 1
