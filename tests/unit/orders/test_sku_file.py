"""Reading the catalogue that `orderkeep skus import` takes."""

from pathlib import Path

import pytest

from orderkeep.orders.catalogue_desk import SkuEntry
from orderkeep.orders.sku_file import SkuFileError, read_sku_file

ROOT = Path(__file__).parents[3]

COLUMNS = b"sku_id,title,price,currency,stock,product_id,is_active\n"


def problems_of(raw: bytes) -> list[tuple[int, str]]:
    with pytest.raises(SkuFileError) as caught:
        read_sku_file(raw)
    return [(problem.line, problem.detail) for problem in caught.value.problems]


def test_every_column_is_read() -> None:
    raw = COLUMNS + b'tea-1,"Tea, green",48.00,CNY,200,tea,false\n'

    entries = read_sku_file(raw)

    assert entries == (
        SkuEntry(
            sku_id="tea-1",
            product_id="tea",
            title="Tea, green",
            unit_price_minor=4800,
            currency="CNY",
            is_active=False,
            stock=200,
        ),
    )


def test_columns_may_stand_in_any_order_and_the_optional_ones_may_be_missing() -> None:
    raw = "\ufeffprice,sku_id,currency,title\r\n0.05,tea-1,EUR,茶\r\n".encode()

    entries = read_sku_file(raw)

    assert entries == (
        SkuEntry(
            sku_id="tea-1",
            product_id=None,
            title="茶",
            unit_price_minor=5,
            currency="EUR",
            is_active=True,
            stock=None,
        ),
    )


def test_a_file_of_column_names_alone_has_no_entry() -> None:
    assert read_sku_file(COLUMNS) == ()


def test_every_wrong_field_of_every_line_is_named_at_once() -> None:
    raw = (
        COLUMNS
        + b"tea 1,,1.5,JPY,-1,,maybe\n"
        + b"cup,Cup,29.90,CNY,5,,\n"
        + b"cup,Cup,29.90,CNY,5,,\n"
    )

    assert problems_of(raw) == [
        (2, "sku_id 'tea 1' is not 1 to 64 of letters, digits and ._:-"),
        (2, "title is not 1 to 200 characters without NUL"),
        (2, "price '1.5' is not an amount such as 12.50, up to 9999999999.99"),
        (2, "currency 'JPY' is not an ISO 4217 currency with two decimals"),
        (2, "stock '-1' is not a whole number from 0 to 1000000000"),
        (2, "is_active 'maybe' is neither true nor false"),
        (4, "names the SKU cup a second time"),
    ]


@pytest.mark.parametrize(
    ("raw", "line", "detail"),
    [
        (b"", 1, "names no column currency, price, sku_id, title"),
        (b"sku_id,title,price\n", 1, "names no column currency"),
        (b"sku_id,title,price,currency,colour\n", 1, "names unknown columns: 'colour'"),
        (b"sku_id,title,price,currency,title\n", 1, "names a column twice"),
        (COLUMNS + b"tea,Tea,1.00,CNY\n", 2, "has not as many values as there are columns"),
        (COLUMNS + b"a,b,1.00,CNY,1,c,1,x\n", 2, "has not as many values as there are columns"),
        (COLUMNS + b"tea,\xff,1.00,CNY,1,,\n", 2, "is not UTF-8"),
        (
            COLUMNS + b"tea,Tea,99999999999.99,CNY,1,,\n",
            2,
            "price '99999999999.99' is not an amount such as 12.50, up to 9999999999.99",
        ),
        (
            COLUMNS + "tea,Tea,1.00,CNY,٣,,\n".encode(),
            2,
            "stock '٣' is not a whole number from 0 to 1000000000",
        ),
    ],
)
def test_a_file_in_another_format_is_refused(raw: bytes, line: int, detail: str) -> None:
    assert problems_of(raw) == [(line, detail)]


@pytest.mark.parametrize("raw", [COLUMNS + b'"tea\n', COLUMNS + b'"tea"x,Tea,1.00,CNY,1,,\n'])
def test_broken_quotes_are_refused(raw: bytes) -> None:
    ((line, detail),) = problems_of(raw)

    assert line == 2
    assert detail.startswith("is not CSV: ")


def test_a_nul_is_refused() -> None:
    ((line, _detail),) = problems_of(COLUMNS + b"tea,T\0ea,1.00,CNY,1,,\n")

    assert line == 2


def test_only_the_first_twenty_mistakes_are_named() -> None:
    raw = COLUMNS + b"tea,Tea,free,CNY,1,,\n" * 1_000

    assert len(problems_of(raw)) == 20


def test_the_example_in_the_repository_can_be_imported() -> None:
    entries = read_sku_file((ROOT / "examples" / "skus.csv").read_bytes())

    assert [entry.sku_id for entry in entries] == [
        "tea-jasmine-250",
        "tea-oolong-250",
        "cup-porcelain",
        "kettle-iron",
        "tray-bamboo",
        "teapot-signed",
    ]
