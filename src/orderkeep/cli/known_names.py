"""Names that a person gives as options, of which there are only so many."""

from typing import Literal

from orderkeep.cli.exits import WrongUsageError

Kind = Literal["queue", "route", "action"]


def check_known(option: str, name: str | None, kind: Kind) -> None:
    """Let a name pass that is known, or is not given.

    Raises:
        WrongUsageError: nothing is called so; the message has the name that is nearest.
    """
    if name is None:
        return
    from orderkeep.web.known_names import ACTIONS, QUEUES, ROUTES, unknown_words

    known = {"queue": QUEUES, "route": ROUTES, "action": ACTIONS}[kind]
    if name not in known:
        message = f"{option}: {name!r} {unknown_words(name, known)}"
        raise WrongUsageError(message)
