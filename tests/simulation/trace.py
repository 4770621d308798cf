"""What happened in a world, in order: one line each, and one hash of all of them."""

from hashlib import blake2b

from tests.simulation.virtual_loop import VirtualLoop


class Trace:
    """The lines of one world. Two runs are the same run if their digests are equal."""

    def __init__(self, loop: VirtualLoop, *, is_shown: bool = False) -> None:
        self._loop = loop
        self._hash = blake2b(digest_size=16)
        self._is_shown = is_shown

    def note(self, *words: object) -> None:
        """Add a line; words must not depend on addresses or on the order of a set."""
        line = f"{self._loop.now_s:.6f} {' '.join(map(str, words))}\n"
        self._hash.update(line.encode())
        if self._is_shown:
            print(line, end="")  # noqa: T201 (asked for on the command line)

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()
