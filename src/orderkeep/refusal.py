"""The refusal: business said no, with a code that never changes."""

from collections.abc import Mapping


class Refusal(Exception):  # noqa: N818 (a refusal is an answer, not an error)
    """A request that was understood and turned down.

    It knows nothing of HTTP or queues: `web/problems.py` gives each code its status, and
    `messaging/settling.py` sets the message aside that met it.

    Attributes:
        code: Stable machine-readable name, such as `out_of_stock`.
        detail: One sentence for a person: what, which, and what to do next.
        members: What else the answer carries, as plain JSON values.
    """

    def __init__(
        self, code: str, detail: str, *, members: Mapping[str, object] | None = None
    ) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.members: Mapping[str, object] = members or {}


def invalid(pointer: str, detail: str) -> Refusal:
    """Return the refusal of a request, with where it is wrong.

    Args:
        pointer: A JSON pointer into the body, or the place and name of a parameter; empty is all of
            the body.
        detail: What is wrong there.
    """
    errors = [{"pointer": pointer, "detail": detail}]
    where = pointer or "the body"
    return Refusal("invalid_request", f"{where}: {detail}", members={"errors": errors})
