"""`python -m bench [NAME ...]`: ask every question, or the named ones, and show the answers.

The programs run one after the other; all of them together are stopped after five minutes. What
they found is printed side by side and kept in `bench/results/latest.json`. The exit code is 1 if a
program failed or found something wrong (an order lost or doubled, a closing too early). A bar that
was missed is said, and is no failure: it may be the machine's.
"""

import signal
import sys
import traceback
from types import FrameType, ModuleType
from typing import Any

from bench import closing_lateness, orders_over_http, outbox_dispatch
from bench.figures import keep, machine, say
from orderkeep.instant import rfc3339
from orderkeep.wiring import chance

PROGRAMS: dict[str, ModuleType] = {
    program.NAME: program for program in (orders_over_http, outbox_dispatch, closing_lateness)
}

# All of them together take three to four minutes on two cores that do nothing else.
TIME_LIMIT_S = 300


def main(names: list[str]) -> int:
    """Run the programs and return the exit code."""
    unknown = sorted(set(names) - PROGRAMS.keys())
    if unknown:
        say(f"no such program: {', '.join(unknown)}; there are {', '.join(PROGRAMS)}")
        return 2
    # Both end the program as an exception does: the services it has started are ended as well.
    signal.signal(signal.SIGALRM, _give_up)
    signal.signal(signal.SIGTERM, _give_up)
    signal.alarm(TIME_LIMIT_S)
    wanted = names or list(PROGRAMS)
    found: dict[str, Any] = {}
    for number, name in enumerate(wanted, start=1):
        say(f"[{number} of {len(wanted)}] {name}")
        try:
            found[name] = PROGRAMS[name].run()
        except GaveUpError as error:
            say(str(error))
            break
        except Exception:  # noqa: BLE001 (shown; the other questions are still worth asking)
            say(traceback.format_exc())
    signal.alarm(0)
    _show(found)
    failed = [name for name in wanted if name not in found]
    for name in failed:
        print(f"\n{name} FAILED: see above.")
    return 1 if failed or any(results.get("is_wrong") for results in found.values()) else 0


class GaveUpError(Exception):
    """The time is up, or somebody wants the run to end."""


def _give_up(signal_number: int, _frame: FrameType | None) -> None:
    reason = f"after {TIME_LIMIT_S} s" if signal_number == signal.SIGALRM else "as it was told to"
    message = f"stopped {reason}: what has not been measured is left out"
    raise GaveUpError(message)


def _show(found: dict[str, Any]) -> None:
    measured_on = machine()
    keep("latest", {"measured_at": rfc3339(chance.now()), "machine": measured_on, **found})
    print("\n" + "; ".join(measured_on.values()))
    for name, results in found.items():
        print(PROGRAMS[name].show(results))
    print("\nKept in bench/results/latest.json.")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
