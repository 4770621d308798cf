"""What to think of the SQLite file of the embedded engine. PURE."""

from collections.abc import Iterator

from orderkeep.database.sqlite_connection import SQLITE_VERSION_MIN
from orderkeep.database.sqlite_facts import SqliteFacts
from orderkeep.wiring.doctor.examination import Examination, fine, skipped, wrong


def examine_library(version: tuple[int, int, int]) -> Examination:
    """Return whether the SQLite of this Python has all that is needed."""
    name = "database.version"
    found = f"SQLite {_dotted(version)}"
    if version < SQLITE_VERSION_MIN:
        return wrong(
            name,
            f"{found} is too old: {_dotted(SQLITE_VERSION_MIN)} or newer is needed",
            remedy="use a Python that is built with a newer SQLite",
        )
    return fine(name, found)


def examine_file(facts: SqliteFacts, *, synchronous: str | None) -> Iterator[Examination]:
    """Yield whether what is committed is on the disk.

    Args:
        facts: What the file says.
        synchronous: How far a commit waits for the disk; None where nobody could ask.
    """
    if facts.journal_mode == "wal":
        yield fine("database.journal_mode", "the file's journal mode is wal")
    else:
        yield skipped(
            "database.journal_mode",
            f"the file's journal mode is {facts.journal_mode}: `orderkeep run` sets it to wal, and"
            " has not opened it yet; if it stays so, the file is on a file system of a network, and"
            " belongs on a disk of this machine",
        )
    if synchronous is None:
        return
    if synchronous in {"FULL", "EXTRA"}:
        yield fine(
            "database.synchronous", f"a commit waits for the disk (synchronous={synchronous})"
        )
    else:
        yield wrong(
            "database.synchronous",
            f"a commit does not wait for the disk (synchronous={synchronous}): a power cut takes"
            " orders that were answered",
            remedy="this release sets FULL on every connection, so this is a bug: report it",
        )


def _dotted(version: tuple[int, int, int]) -> str:
    return ".".join(map(str, version))
