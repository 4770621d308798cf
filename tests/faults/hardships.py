"""What is done to the processes of a shop, besides killing them."""

import threading
from collections.abc import Sequence
from pathlib import Path

from tests.faults.injuries import between
from tests.faults.shop import NotMadeError, Shop
from tests.faults.supervisor import FOREVER, Ward
from tests.servers.installation import ServerMissingError, install_debian_package
from tests.servers.own_process import wait_until

# Longer than a session may idle in a transaction, and than a partition is held for one that hangs.
_STOPPED_S = (4.0, 22.0)
_STOPPED_FRONT_S = (1.0, 5.0)
_STEP_S = (1.5, 3.0)

# Its database may be away, again and again.
_READY_S_MAX = 120.0
_ANSWER_S_MAX = 5.0

# Ten minutes ahead, ten minutes behind, and where it should be.
_STEPS = ("+600", "-600", "+0")

_FAKETIME = "faketime/libfaketime.so.1"
_LIBRARIES = ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib")

_pause = threading.Event()


def _chosen(wards: Sequence[Ward], strength: float) -> Ward:
    return wards[int(strength * 1000) % len(wards)]


def stop_worker(shop: Shop, strength: float) -> None:
    """Stop one that works without its knowing, and let it go on where it was."""
    _stop(shop, _chosen(shop.supervisor.with_role("work"), strength), between(_STOPPED_S, strength))


def stop_front(shop: Shop, strength: float) -> None:
    """Stop one that serves without its knowing, and let it go on where it was."""
    ward = _chosen(shop.supervisor.with_role("serve"), strength)
    _stop(shop, ward, between(_STOPPED_FRONT_S, strength))


def _stop(shop: Shop, ward: Ward, seconds: float) -> None:
    with shop.supervisor.held(ward):
        if not ward.member.is_alive:
            ward.look(shop.supervisor)
        ward.pause()
        _pause.wait(seconds)
        ward.go_on()


def step_clock_of_worker(shop: Shop, strength: float) -> None:
    """Let the clock of one that works be wrong by ten minutes, and jump back."""
    _step_clock(shop, _chosen(shop.supervisor.with_role("work"), strength), strength)


def step_clock_of_front(shop: Shop, strength: float) -> None:
    """Let the clock of one that serves be wrong by ten minutes, and jump back."""
    _step_clock(shop, _chosen(shop.supervisor.with_role("serve"), strength), strength)


def _step_clock(shop: Shop, ward: Ward, strength: float) -> None:
    library = find_faketime()
    if library is None:
        message = "no faketime here"
        raise NotMadeError(message)
    time_file = shop.fleet.folder / f"clock-{ward.member.port}"
    time_file.write_text(_STEPS[0])
    with shop.supervisor.held(ward):
        ward.kill(shop.supervisor)
        ward.member.preload = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(time_file),
            "FAKETIME_NO_CACHE": "1",
            # The clock of the wall is stepped; that of the machine never is.
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        ward.begin(FOREVER)
        _wait_until_ready(shop, ward)
        for step in _STEPS:
            time_file.write_text(step)
            _pause.wait(between(_STEP_S, strength))
        ward.member.preload = None
        ward.kill(shop.supervisor)


def find_faketime() -> Path | None:
    """Return the library that fakes a clock; installed first, if need and right be."""
    for _ in range(2):
        for folder in _LIBRARIES:
            if (path := Path(folder) / _FAKETIME).exists():
                return path
        try:
            install_debian_package("faketime")
        except ServerMissingError:
            return None
    return None


def roll(shop: Shop, _strength: float) -> None:
    """Restart every process in turn, as a deployment does: each ends what it has in hand."""
    for ward in shop.supervisor.wards:
        with shop.supervisor.held(ward):
            # One that is still beginning ends as a start is broken off, or for want of a database.
            _wait_until_ready(shop, ward)
            code = ward.stop(shop.supervisor)
            if code != 0:
                shop.wrong.append(f"{ward.member.name} was asked to end, and did so with {code}")
            ward.begin_unarmed()
            _wait_until_ready(shop, ward)


def _wait_until_ready(shop: Shop, ward: Ward) -> None:
    """Wait for one that was started; again, where it ended because its database was away."""

    def is_ready() -> bool:
        if not ward.member.is_alive:
            ward.revive(shop.supervisor)
        return ward.member.is_alive and ward.member.is_ready(within_s=_ANSWER_S_MAX)

    wait_until(is_ready, f"{ward.member.name} is ready", within_s=_READY_S_MAX)
