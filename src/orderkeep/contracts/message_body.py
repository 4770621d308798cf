"""Bodies of messages: written to the letter of the contract, read more widely than that.

What other programs send is read member by member: null and "" count as missing, members that are
not known are ignored, and what is there must be right. The first thing that is wrong makes a
`BadMessageError` that says where; nothing of the body itself is repeated in it.
"""

from collections.abc import Callable, Mapping
from typing import TypeVar

import msgspec

from orderkeep.contracts.strict_json import MalformedJsonError, escape_pointer, parse
from orderkeep.messaging.consumer import BadMessageError

T = TypeVar("T")

MALFORMED_JSON = "malformed_json"
INVALID_BODY = "invalid_body"
UNKNOWN_EVENT_TYPE = "unknown_event_type"

# The longest body of the contract (an order event of 100 lines) stays below 64 KiB. What is over
# this cannot be meant for us.
BODY_BYTES_MAX = 1024 * 1024

_ENCODER = msgspec.json.Encoder()


class Members:
    """The members of one object in a foreign body, each read by a function that may refuse it.

    A reading function takes the parsed value and raises ValueError with what it expected.
    """

    def __init__(self, members: Mapping[str, object], *, pointer: str = "") -> None:
        """Read from the given object.

        Args:
            pointer: Where the object stands in the body, as a JSON pointer.
        """
        self._members = members
        self._pointer = pointer

    def find(self, name: str, read: Callable[[object], T]) -> T | None:
        """Return the named member, or None if it is missing, null or "".

        Raises:
            BadMessageError: it is there and wrong.
        """
        value = self._members.get(name)
        if value is None or value == "":
            return None
        try:
            return read(value)
        except ValueError as error:
            raise self._bad(name, str(error)) from None

    def get(self, name: str, read: Callable[[object], T]) -> T:
        """Return the named member.

        Raises:
            BadMessageError: it is missing, null, "", or wrong.
        """
        found = self.find(name, read)
        if found is None:
            raise self._bad(name, "is missing")
        return found

    def find_members(self, name: str) -> "Members":
        """Return the members of the named object; it has none if it is missing, null or "".

        Raises:
            BadMessageError: it is there, and no object.
        """
        members = self.find(name, _read_object) or {}
        return Members(members, pointer=self._at(name))

    def get_list(self, name: str) -> "tuple[Members, ...]":
        """Return the objects of the named list.

        Raises:
            BadMessageError: it is missing, no list, or holds something else than objects.
        """
        pointer = self._at(name)
        return tuple(
            Members(members, pointer=f"{pointer}/{index}")
            for index, members in enumerate(self.get(name, _read_list_of_objects))
        )

    def _at(self, name: str) -> str:
        return f"{self._pointer}/{escape_pointer(name)}"

    def _bad(self, name: str, detail: str) -> BadMessageError:
        return BadMessageError(INVALID_BODY, f"{self._at(name)}: {detail}")


def read_body(raw: bytes) -> Members:
    """Return the members of a message's body.

    Raises:
        BadMessageError: `malformed_json`; or `invalid_body` when it is too large or no object.
    """
    if len(raw) > BODY_BYTES_MAX:
        message = f"the body has {len(raw)} bytes; at most {BODY_BYTES_MAX} are read"
        raise BadMessageError(INVALID_BODY, message)
    try:
        value = parse(raw)
    except MalformedJsonError as error:
        raise BadMessageError(MALFORMED_JSON, error.detail) from None
    if not isinstance(value, dict):
        message = "the body is not an object"
        raise BadMessageError(INVALID_BODY, message)
    return Members(value)


def write_body(members: Mapping[str, object]) -> bytes:
    """Return a body with the given members in their order, without those that are None."""
    return _ENCODER.encode({name: value for name, value in members.items() if value is not None})


def _read_object(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        message = "expected an object"
        raise ValueError(message)  # noqa: TRY004 (a reading function raises ValueError)
    return value


def _read_list_of_objects(value: object) -> list[dict[str, object]]:
    if not isinstance(value, list):
        message = "expected a list"
        raise ValueError(message)  # noqa: TRY004 (a reading function raises ValueError)
    return [_read_object(member) for member in value]
