"""The one way JSON from outside is read: HTTP bodies and queue bodies alike.

Python's own reader takes the last of two equal keys, reads NaN, guesses encodings and dies of deep
nesting with a RecursionError; msgspec keeps the last key as well. Here all of that is refused,
before anything is built from it where it could do harm. Numbers with a fraction or an exponent
come as `Decimal`, never as binary floating point, within limits that keep arithmetic on them cheap.
"""

import json
import re
from collections import Counter
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import NoReturn, TypeVar

import msgspec

from orderkeep.contracts.pattern_words import plain_words
from orderkeep.refusal import Refusal

T = TypeVar("T")

# The deepest body of the contract has four levels; Python's reader needs some hundreds to fail.
DEPTH_MAX = 32

# Reading an integer costs the square of its length, so a body of 1 MiB could otherwise hold a
# process for seconds. This is the limit that CPython and msgspec set themselves; the longest number
# of the contract has 13 characters.
DIGITS_MAX = 4_300

# What a double can hold ends at 1.8e308 and 4.9e-324; a Decimal of a larger exponent is cheap to
# read, but fills the memory as soon as it becomes an integer.
EXPONENT_MAX = 324

# Of what a client sent, an error repeats no more than this.
_SHOWN_LENGTH_MAX = 64

_BYTE_ORDER_MARK = "\ufeff"
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_ALL_SQUARE = bytes.maketrans(b"{}", b"[]")
_NOT_A_BRACKET = bytes(byte for byte in range(256) if byte not in b"[]{}")
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_PATH_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]")
_NAMED_MEMBER = re.compile(r"Object (?:contains unknown|missing required) field `(.*)`", re.DOTALL)


class MalformedJsonError(Refusal):
    """The bytes are not JSON, or not JSON that is safe to read."""

    def __init__(self, detail: str) -> None:
        super().__init__("malformed_json", detail)


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong with a body.

    Attributes:
        pointer: Where, as an RFC 6901 JSON pointer; "" is the whole body.
        detail: What, for a person.
    """

    pointer: str
    detail: str


class InvalidShapeError(Refusal):
    """The JSON is sound, but not what was asked for.

    Attributes:
        problems: At least one.
    """

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        errors = [{"pointer": it.pointer, "detail": it.detail} for it in problems]
        detail = "; ".join(f"{it.pointer or 'the body'}: {it.detail}" for it in problems)
        super().__init__("invalid_request", detail, members={"errors": errors})
        self.problems = problems


def parse(raw: bytes) -> object:
    """Return the value of a JSON text: dict, list, str, int, Decimal, bool or None.

    Raises:
        MalformedJsonError: it is not UTF-8, begins with a byte order mark, is not JSON, holds NaN
            or an infinity, has a key twice in one object, nests deeper than `DEPTH_MAX`, or has a
            number beyond `DIGITS_MAX` or `EXPONENT_MAX`.
    """
    # The count of opening brackets, strings included, bounds the depth: enough for nearly all.
    if raw.count(b"[") + raw.count(b"{") > DEPTH_MAX and not _is_shallow(raw):
        message = f"nested deeper than {DEPTH_MAX} levels, or brackets that do not match"
        raise MalformedJsonError(message)
    value = _parse_quickly(raw)
    return _parse_carefully(raw) if value is _UNDECIDED else value


def parse_storable(raw: bytes) -> object:
    """Return the value of a JSON text whose every string a database can store.

    Raises:
        MalformedJsonError: see `parse`.
        InvalidShapeError: a string or a key holds NUL or a lone surrogate.
    """
    value = parse(raw)
    # Neither can be written raw in JSON that passed, so without an escape there is none.
    if b"\\u" in raw:
        problem = find_unstorable_text(value)
        if problem is not None:
            raise InvalidShapeError((problem,))
    return value


def convert(value: object, type: type[T]) -> T:  # noqa: A002 (msgspec's own word for it)
    """Return a parsed value as the given type, strictly: "1" is no number, and true is not 1.

    Args:
        value: What `parse` or `parse_storable` returned.
        type: Anything msgspec knows, usually a Struct.

    Raises:
        InvalidShapeError: it does not fit; the first problem is named.
    """
    try:
        return msgspec.convert(value, type, strict=True)
    except msgspec.ValidationError as error:
        raise InvalidShapeError((_problem_of(str(error)),)) from None
    except UnicodeEncodeError:
        # A lone surrogate where msgspec compares text with names: a key, or one of a set of words.
        problem = find_unstorable_text(value) or Problem(pointer="", detail="unreadable text")
        raise InvalidShapeError((problem,)) from None


def decode(raw: bytes, type: type[T]) -> T:  # noqa: A002 (as in `convert`)
    """Return a JSON text as the given type, with text that can be stored.

    Raises:
        MalformedJsonError: see `parse`.
        InvalidShapeError: see `parse_storable` and `convert`.
    """
    return convert(parse_storable(raw), type)


def find_unstorable_text(value: object, *, pointer: str = "") -> Problem | None:
    """Return where a value holds NUL or a lone surrogate, or None if it nowhere does.

    PostgreSQL stores no NUL in text, and a lone surrogate has no UTF-8 form at all.

    Args:
        value: What `parse` returned.
        pointer: Where the value stands in the body.
    """
    if isinstance(value, str):
        if _UNSTORABLE.search(value):
            return Problem(pointer=pointer, detail="holds NUL or a lone surrogate")
        return None
    members: list[tuple[str, object]] = []
    if isinstance(value, dict):
        members = list(value.items())
    elif isinstance(value, list):
        members = [(str(index), member) for index, member in enumerate(value)]
    for name, member in members:
        if _UNSTORABLE.search(name):
            return Problem(pointer=pointer, detail="has a key with NUL or a lone surrogate")
        found = find_unstorable_text(member, pointer=f"{pointer}/{escape_pointer(name)}")
        if found is not None:
            return found
    return None


def escape_pointer(name: str) -> str:
    """Return a member's name as one step of a JSON pointer (RFC 6901, section 3)."""
    return name.replace("~", "~0").replace("/", "~1")


def shown(text: str) -> str:
    """Return foreign text as an error may repeat it: cut short, and encodable whatever it holds."""
    cut = text if len(text) <= _SHOWN_LENGTH_MAX else f"{text[:_SHOWN_LENGTH_MAX]}…"
    return cut.encode("utf-8", "backslashreplace").decode()


def _parse_quickly(raw: bytes) -> object:
    """Return the value if it is certain that nothing has to be refused, else `_UNDECIDED`.

    A key that stands twice is dropped once by msgspec, and with it a colon: written out again, the
    value has fewer colons than the text. Only an escaped colon could make up for that, so a text
    with such escapes is read carefully, as is every text that msgspec refuses.
    """
    try:
        value = _QUICK_DECODER.decode(raw)
        colon_count = _ENCODER.encode(value).count(b":")
    except (msgspec.DecodeError, MalformedJsonError, ValueError):
        return _UNDECIDED
    return value if colon_count == raw.count(b":") and b"\\u" not in raw else _UNDECIDED


def _parse_carefully(raw: bytes) -> object:
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        message = f"byte {error.start} is not UTF-8"
        raise MalformedJsonError(message) from None
    try:
        value: object = _CAREFUL_DECODER.decode(text)
    except json.JSONDecodeError as error:
        if text.startswith(_BYTE_ORDER_MARK):
            message = "begins with a byte order mark"
        else:
            message = f"{error.msg} at character {error.pos}"
        raise MalformedJsonError(message) from None
    return value


def _is_shallow(raw: bytes) -> bool:
    # Without strings only brackets tell the depth; each round removes the innermost pairs.
    brackets = _STRING.sub(b"", raw).translate(_ALL_SQUARE, _NOT_A_BRACKET)
    for _ in range(DEPTH_MAX):
        brackets = brackets.replace(b"[]", b"")
    return not brackets


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice = next(name for name, count in counts.items() if count > 1)
        message = f"the key {shown(twice)!r} stands twice in one object"
        raise MalformedJsonError(message)
    return members


def _integer(text: str) -> int:
    if len(text.lstrip("-")) > DIGITS_MAX:
        _refuse_number()
    try:
        return int(text)
    except ValueError:
        # The interpreter may be set to a lower limit (PYTHONINTMAXSTRDIGITS).
        _refuse_number()


def _decimal(text: str) -> Decimal:
    if len(text) > DIGITS_MAX:
        _refuse_number()
    try:
        number = Decimal(text)
    except InvalidOperation:
        # Even Decimal has no room for an exponent of 19 digits.
        _refuse_number()
    if not -EXPONENT_MAX <= number.adjusted() <= EXPONENT_MAX:
        _refuse_number()
    return number


def _refuse_number() -> NoReturn:
    message = f"a number of over {DIGITS_MAX} digits or beyond 1e±{EXPONENT_MAX}"
    raise MalformedJsonError(message)


def _refuse_constant(name: str) -> NoReturn:
    message = f"{name} is no JSON number"
    raise MalformedJsonError(message)


_UNDECIDED = object()
_QUICK_DECODER = msgspec.json.Decoder(float_hook=_decimal)
_ENCODER = msgspec.json.Encoder()
_CAREFUL_DECODER = json.JSONDecoder(
    object_pairs_hook=_object,
    parse_int=_integer,
    parse_float=_decimal,
    parse_constant=_refuse_constant,
)


def _problem_of(message: str) -> Problem:
    """Return msgspec's "WHAT - at `$.a[0].b`" as a problem."""
    what, _, path = message.rpartition(" - at `$")
    if not what:
        what, path = message, ""
    # A key of a mapping shows as `[...]`: which one is not told, so the pointer ends before it.
    steps = _PATH_STEP.findall(path.partition("[...]")[0].rstrip("`"))
    pointer = "".join(f"/{escape_pointer(name or index)}" for name, index in steps)
    member = _NAMED_MEMBER.fullmatch(what)
    if member is None:
        return Problem(pointer=pointer, detail=plain_words(what))
    name = shown(member[1])
    detail = "is missing" if what.startswith("Object missing") else "is not known"
    return Problem(pointer=f"{pointer}/{escape_pointer(name)}", detail=detail)
