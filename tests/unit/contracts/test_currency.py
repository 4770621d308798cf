"""Which currencies prices may be set in."""

import pytest

from orderkeep.contracts.currency import (
    TWO_DECIMAL_CURRENCIES,
    check_currency,
    is_supported_currency,
)
from orderkeep.refusal import Refusal

# ISO 4217, minor unit 0, 3, 4, and none.
OTHER_DECIMALS = (
    "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF"
    " BHD IQD JOD KWD LYD OMR TND CLF UYW XAU XAG XDR XTS XXX"
)


@pytest.mark.parametrize("currency", ["CNY", "EUR", "USD", "GBP", "INR", "BRL"])
def test_currencies_of_two_decimals_pass(currency: str) -> None:
    check_currency(currency)


@pytest.mark.parametrize("currency", [*OTHER_DECIMALS.split(), "ABC", "cny", ""])
def test_every_other_code_is_refused(currency: str) -> None:
    assert not is_supported_currency(currency)
    with pytest.raises(Refusal) as refused:
        check_currency(currency)

    assert refused.value.code == "unsupported_currency"


def test_the_list_holds_codes_of_three_capital_letters_only() -> None:
    assert all(len(it) == 3 and it.isascii() and it.isupper() for it in TWO_DECIMAL_CURRENCIES)
    assert len(TWO_DECIMAL_CURRENCIES) == 132
