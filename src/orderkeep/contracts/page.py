"""Pages of lists: how many items, and the opaque cursor to the next.

A cursor holds the sort key of the last item shown. It is not signed: it can name nothing that the
query behind it would not show anyway, and every part is checked for its type and range.
"""

import base64
from typing import Annotated, overload

import msgspec

from orderkeep.refusal import Refusal

PAGE_LIMIT_DEFAULT = 20
PAGE_LIMIT_MAX = 100

PageLimit = Annotated[int, msgspec.Meta(ge=1, le=PAGE_LIMIT_MAX)]

# Two identifiers of 64 and two numbers, in JSON and base64, need less than 300.
_CURSOR_LENGTH_MAX = 512

# What a column holds: 64 bits, and text without NUL. (A lone surrogate is no UTF-8 to begin with.)
_Number = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_Text = Annotated[str, msgspec.Meta(pattern="^[^\\x00]*$")]
_DECODER = msgspec.json.Decoder(tuple[_Number | _Text, ...])


def encode_cursor(*parts: str | int) -> str:
    """Return a cursor of the given parts of a sort key."""
    text = msgspec.json.encode(parts)
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


@overload
def decode_cursor(text: str, first: type[int], /) -> tuple[int]: ...
@overload
def decode_cursor(text: str, first: type[str], /) -> tuple[str]: ...
@overload
def decode_cursor(text: str, first: type[int], second: type[int], /) -> tuple[int, int]: ...
@overload
def decode_cursor(text: str, first: type[int], second: type[str], /) -> tuple[int, str]: ...
@overload
def decode_cursor(text: str, first: type[str], second: type[int], /) -> tuple[str, int]: ...
@overload
def decode_cursor(text: str, first: type[str], second: type[str], /) -> tuple[str, str]: ...
def decode_cursor(text: str, *types: type[int] | type[str]) -> tuple[str | int, ...]:
    """Return the parts of a cursor, which are of the given types.

    Raises:
        Refusal: `invalid_cursor`.
    """
    parts = _read(text)
    if len(parts) != len(types):
        raise _invalid_cursor()
    if any(type(part) is not its_type for part, its_type in zip(parts, types, strict=True)):
        raise _invalid_cursor()
    return parts


def _read(text: str) -> tuple[str | int, ...]:
    if len(text) > _CURSOR_LENGTH_MAX:
        raise _invalid_cursor()
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        return _DECODER.decode(raw)
    except (ValueError, msgspec.DecodeError):
        raise _invalid_cursor() from None


def _invalid_cursor() -> Refusal:
    detail = "the cursor is not one this list gave out; begin again without one"
    return Refusal("invalid_cursor", detail)
