"""`python -m bench [--full] [NAME ...]`: ask every question, or the named ones; show the answers.

The programs run one after the other; all of them together are stopped after ten minutes. With
`--full` each has the size that its answer needs (`FULL_SIZES`), and those that take longer than
that (`NEEDS_FULL`) run as well; that takes hours, and is stopped after six. What they
found is printed side by side and kept in `bench/results/latest.json`. The exit code is 1 if a
program failed or found something wrong (an order lost or doubled, a closing too early). A bar that
was missed is said, and is no failure: it may be the machine's. Likewise a program that was skipped,
because a server that it needs is missing.
"""

import signal
import sys
import time
import traceback
from collections.abc import Mapping
from types import FrameType, ModuleType
from typing import Any

from bench import (
    arrival_on_servers,
    closing_lateness,
    closing_on_servers,
    dispatch_on_servers,
    flow_on_servers,
    growth_on_servers,
    orders_on_servers,
    orders_over_http,
    outbox_dispatch,
    overload_on_servers,
    payments_on_servers,
    peer_on_servers,
    soak_on_servers,
)
from bench.figures import SkippedError, keep, load, machine, say
from orderkeep.instant import rfc3339
from orderkeep.wiring import chance

PROGRAMS: dict[str, ModuleType] = {
    program.NAME: program
    for program in (
        # What matters most comes first: the end of a run that takes too long is left out.
        orders_on_servers,
        peer_on_servers,
        dispatch_on_servers,
        payments_on_servers,
        arrival_on_servers,
        closing_on_servers,
        flow_on_servers,
        orders_over_http,
        outbox_dispatch,
        closing_lateness,
        overload_on_servers,
        growth_on_servers,
        soak_on_servers,
    )
}

# All of them together take nine minutes on two cores that do nothing else.
TIME_LIMIT_S = 600
FULL_TIME_LIMIT_S = 6 * 3600


def main(arguments: list[str]) -> int:
    """Run the programs and return the exit code."""
    is_full = "--full" in arguments
    names = [argument for argument in arguments if argument != "--full"]
    unknown = sorted(set(names) - PROGRAMS.keys())
    if unknown:
        say(f"no such program: {', '.join(unknown)}; there are {', '.join(PROGRAMS)}")
        return 2
    # Both end the program as an exception does: the services it has started are ended as well.
    signal.signal(signal.SIGALRM, _give_up)
    signal.signal(signal.SIGTERM, _give_up)
    signal.alarm(FULL_TIME_LIMIT_S if is_full else TIME_LIMIT_S)
    load_before = load()
    wanted = names or [name for name, one in PROGRAMS.items() if is_full or not _needs_full(one)]
    found: dict[str, Any] = {}
    skipped: dict[str, str] = {}
    for number, name in enumerate(wanted, start=1):
        say(f"[{number} of {len(wanted)}] {name}")
        started_at_s = time.monotonic()
        try:
            found[name] = PROGRAMS[name].run(**(_full_sizes(PROGRAMS[name]) if is_full else {}))
        except GaveUpError as error:
            say(str(error))
            break
        except SkippedError as error:
            skipped[name] = str(error)
        except Exception:  # noqa: BLE001 (shown; the other questions are still worth asking)
            say(traceback.format_exc())
        say(f"  took {time.monotonic() - started_at_s:.0f} s")
    signal.alarm(0)
    _show(
        {
            "measured_at": rfc3339(chance.now()),
            "machine": {
                **machine(),
                # The run itself makes one of two or three on two cores; more is somebody else.
                "load": f"{load_before} before the run, {load()} at its end",
            },
            **found,
        }
    )
    for name, why in skipped.items():
        print(f"\n{name} SKIPPED: {why}")
    failed = [name for name in wanted if name not in found and name not in skipped]
    for name in failed:
        print(f"\n{name} FAILED: see above.")
    return 1 if failed or any(results.get("is_wrong") for results in found.values()) else 0


def _needs_full(program: ModuleType) -> bool:
    return getattr(program, "NEEDS_FULL", False)


def _full_sizes(program: ModuleType) -> dict[str, float]:
    """Return the arguments of `run` that make it as large as its answer needs."""
    return getattr(program, "FULL_SIZES", {})


class GaveUpError(Exception):
    """The time is up, or somebody wants the run to end."""


def _give_up(signal_number: int, _frame: FrameType | None) -> None:
    reason = "for want of time" if signal_number == signal.SIGALRM else "as it was told to"
    message = f"stopped {reason}: what has not been measured is left out"
    raise GaveUpError(message)


def header(results: Mapping[str, Any]) -> str:
    """Return when and on what it was measured."""
    # Programs that use servers say which.
    servers = next(
        (results[name]["servers"] for name in PROGRAMS if _has_servers(results, name)), {}
    )
    measured_on = [f"{name} {text}" for name, text in {**results["machine"], **servers}.items()]
    return "\n".join([results["measured_at"], *measured_on])


def _has_servers(results: Mapping[str, Any], name: str) -> bool:
    return "servers" in results.get(name, {})


def _show(results: dict[str, Any]) -> None:
    keep("latest", results)
    print(f"\n{header(results)}")
    for name, program in PROGRAMS.items():
        if name in results:
            print(program.show(results[name]))
    print("\nKept in bench/results/latest.json.")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
