"""Reads the file of `orderkeep skus import`: a catalogue as CSV, with every wrong line named.

The first line names the columns, in any order: `sku_id`, `title`, `price` and `currency`, and if
wanted `product_id`, `stock` and `is_active`. A file with one mistake imports nothing, so that it
can be mended and imported again as a whole.
"""

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from orderkeep.contracts.amount import minor_of_text
from orderkeep.contracts.currency import is_supported_currency
from orderkeep.contracts.text import STOCK_QUANTITY_MAX, is_identifier
from orderkeep.orders.catalogue_desk import SkuEntry
from orderkeep.refusal import Refusal

# A larger catalogue is imported in parts; one file is held in memory whole.
ROW_COUNT_MAX = 100_000

# Enough to see the pattern; a file in the wrong format would name every line.
PROBLEM_COUNT_MAX = 20

# The limit that PUT /admin/skus/{sku_id} sets, see contracts/text.py.
_TITLE_LENGTH_MAX = 200

_REQUIRED_COLUMNS = frozenset({"sku_id", "title", "price", "currency"})
_OPTIONAL_COLUMNS = frozenset({"product_id", "stock", "is_active"})

_SWITCH = {"": True, "true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}

# Where DictReader puts what a line has beyond the columns; no column can have this name.
_BEYOND = "\0"


@dataclass(frozen=True, slots=True, kw_only=True)
class SkuFileProblem:
    """One mistake.

    Attributes:
        line: As an editor numbers lines; 1 is the line with the names of the columns.
    """

    line: int
    detail: str


class SkuFileError(Exception):
    """The file cannot be imported as it is.

    Attributes:
        problems: The first `PROBLEM_COUNT_MAX` mistakes, by line.
    """

    def __init__(self, problems: tuple[SkuFileProblem, ...]) -> None:
        super().__init__("; ".join(f"line {each.line}: {each.detail}" for each in problems))
        self.problems = problems


def read_sku_file(raw: bytes) -> tuple[SkuEntry, ...]:
    """Return the entries of a file, in its order.

    An empty `stock` says nothing about stock; an empty `is_active` is yes.

    Raises:
        SkuFileError: it is no UTF-8, no CSV, has a wrong line, or names a SKU twice.
    """
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise _error_at(line, "is not UTF-8") from error
    reader = csv.DictReader(io.StringIO(text, newline=""), restkey=_BEYOND, strict=True)
    entries: dict[str, SkuEntry] = {}
    problems: list[SkuFileProblem] = []
    try:
        _check_columns(reader.fieldnames or ())
        for row in reader:
            problems.extend(
                SkuFileProblem(line=reader.line_num, detail=detail)
                for detail in _read_row(row, into=entries)
            )
            if len(problems) >= PROBLEM_COUNT_MAX:
                break
            if len(entries) > ROW_COUNT_MAX:
                raise _error_at(reader.line_num, f"is beyond {ROW_COUNT_MAX} SKUs; split the file")
    except csv.Error as error:
        # The inner reader has counted the line that it could not read.
        raise _error_at(reader.reader.line_num, f"is not CSV: {error}") from error
    if problems:
        raise SkuFileError(tuple(problems[:PROBLEM_COUNT_MAX]))
    return tuple(entries.values())


def _check_columns(columns: object) -> None:
    names = list(columns) if isinstance(columns, list | tuple) else []
    if missing := sorted(_REQUIRED_COLUMNS - set(names)):
        raise _error_at(1, f"names no column {', '.join(missing)}")
    if unknown := sorted(set(names) - _REQUIRED_COLUMNS - _OPTIONAL_COLUMNS):
        raise _error_at(1, f"names unknown columns: {', '.join(map(repr, unknown))}")
    if len(names) != len(set(names)):
        raise _error_at(1, "names a column twice")


def _read_row(row: Mapping[str, object], *, into: dict[str, SkuEntry]) -> Iterator[str]:
    """Add the row's entry, or yield what is wrong with it."""
    if _BEYOND in row or None in row.values():
        yield "has not as many values as there are columns"
        return
    fields = {name: str(value).strip() for name, value in row.items()}
    details = list(_wrong_fields(fields))
    if fields["sku_id"] in into:
        details.append(f"names the SKU {fields['sku_id']} a second time")
    if details:
        yield from details
        return
    into[fields["sku_id"]] = SkuEntry(
        sku_id=fields["sku_id"],
        product_id=fields.get("product_id") or None,
        title=fields["title"],
        unit_price_minor=minor_of_text(fields["price"]),
        currency=fields["currency"],
        is_active=_SWITCH[fields.get("is_active", "").lower()],
        stock=int(fields["stock"]) if fields.get("stock") else None,
    )


def _wrong_fields(fields: Mapping[str, str]) -> Iterator[str]:
    for name in ("sku_id", "product_id"):
        text = fields.get(name, "")
        if not is_identifier(text) and (text or name == "sku_id"):
            yield f"{name} {text!r} is not 1 to 64 of letters, digits and ._:-"
    if not 1 <= len(fields["title"]) <= _TITLE_LENGTH_MAX or "\0" in fields["title"]:
        yield f"title is not 1 to {_TITLE_LENGTH_MAX} characters without NUL"
    if not _is_price(fields["price"]):
        yield f"price {fields['price']!r} is not an amount such as 12.50, up to 9999999999.99"
    if not is_supported_currency(fields["currency"]):
        yield f"currency {fields['currency']!r} is not an ISO 4217 currency with two decimals"
    if not _is_stock(fields.get("stock", "")):
        yield f"stock {fields['stock']!r} is not a whole number from 0 to {STOCK_QUANTITY_MAX}"
    if fields.get("is_active", "").lower() not in _SWITCH:
        yield f"is_active {fields['is_active']!r} is neither true nor false"


def _is_price(text: str) -> bool:
    try:
        minor_of_text(text)
    except (ValueError, Refusal):
        return False
    return True


def _is_stock(text: str) -> bool:
    if not text:
        return True
    # isdecimal() takes digits of every script, and int() would read a number of any length.
    is_digits = text.isascii() and text.isdecimal() and len(text) <= len(str(STOCK_QUANTITY_MAX))
    return is_digits and int(text) <= STOCK_QUANTITY_MAX


def _error_at(line: int, detail: str) -> SkuFileError:
    return SkuFileError((SkuFileProblem(line=line, detail=detail),))
