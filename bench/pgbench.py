"""PostgreSQL's own load generator: what the database can do when nothing of ours is in the way."""

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bench.figures import SkippedError

# A thread for each of the two cores that it shares with the server; more only take turns.
_THREAD_COUNT_MAX = 2

_PROGRESS = re.compile(r"^progress: ([\d.]+) s, ([\d.]+) tps", re.MULTILINE)
_DONE = re.compile(r"^number of transactions actually processed: (\d+)", re.MULTILINE)
_FAILED = re.compile(r"^number of failed transactions: (\d+)", re.MULTILINE)

# Beyond the time that it is to run for.
_END_S_MAX = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PgbenchRun:
    """What one run did.

    Attributes:
        transaction_count: All of them, those of the warm-up too.
        rate: Transactions per second after the warm-up.
    """

    transaction_count: int
    rate: float


def run_pgbench(
    url: str, script: str, *, client_count: int, warm_up_s: int, measured_s: int
) -> PgbenchRun:
    """Run the script, with statements prepared, over and over in each of the clients.

    Raises:
        SkippedError: it is not installed.
        RuntimeError: it failed, or one of its transactions did.
    """
    program = shutil.which("pgbench")
    if program is None:
        message = "pgbench is missing: it is in PostgreSQL's package"
        raise SkippedError(message)
    with tempfile.TemporaryDirectory(prefix="orderkeep-bench-") as directory:
        path = Path(directory) / "script.sql"
        path.write_text(script, encoding="utf-8")
        duration_s = warm_up_s + measured_s
        finished = subprocess.run(  # noqa: S603 (found on the path, our own arguments)
            [
                *(program, "--no-vacuum", "--protocol=prepared", "--progress=1"),
                *(f"--client={client_count}", f"--jobs={min(client_count, _THREAD_COUNT_MAX)}"),
                *(f"--time={duration_s}", f"--file={path}", url),
            ],
            capture_output=True,
            text=True,
            timeout=duration_s + _END_S_MAX,
            check=False,
        )
    failed = _FAILED.search(finished.stdout)
    if finished.returncode or failed is None or failed[1] != "0":
        message = f"pgbench failed:\n{finished.stdout[-1000:]}{finished.stderr[-1000:]}"
        raise RuntimeError(message)
    done = _DONE.search(finished.stdout)
    assert done is not None
    return PgbenchRun(
        transaction_count=int(done[1]), rate=_rate(finished.stderr, warm_up_s=warm_up_s)
    )


def _rate(progress: str, *, warm_up_s: int) -> float:
    """Return the rate over the intervals behind the warm-up: plans and caches are made by then."""
    counted_s = 0.0
    transaction_count = 0.0
    begun_s = 0.0
    for ended, rate in _PROGRESS.findall(progress):
        interval_s = float(ended) - begun_s
        begun_s = float(ended)
        if begun_s - interval_s / 2 > warm_up_s:
            counted_s += interval_s
            transaction_count += interval_s * float(rate)
    return transaction_count / counted_s
