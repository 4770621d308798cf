"""The currencies amounts may be in: those of ISO 4217 that have two decimals."""

from orderkeep.refusal import Refusal

# ISO 4217, list one (current currency and funds): every code with a minor unit of 2, without the
# funds codes (BOV, CHE, CHW, COU, MXV, USN), which nobody pays in. Amounts are stored in
# hundredths, so JPY or KWD would be off by a power of ten for everyone who reads them.
TWO_DECIMAL_CURRENCIES = frozenset(
    """
    AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF
    CHF CNY COP CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD
    HKD HNL HTG HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA
    MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN
    QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP
    TRY TTD TWD TZS UAH USD UYU UZS VED VES WST XCD XCG YER ZAR ZMW ZWG
    """.split()  # noqa: SIM905 (as a list it would take six times the lines)
)


def is_supported_currency(currency: str) -> bool:
    """Return whether prices may be set in the currency."""
    return currency in TWO_DECIMAL_CURRENCIES


def check_currency(currency: str) -> None:
    """Refuse a currency in which no price may be set.

    Raises:
        Refusal: `unsupported_currency`.
    """
    if not is_supported_currency(currency):
        detail = f"{currency} is not an ISO 4217 currency with two decimals; use one that is"
        raise Refusal("unsupported_currency", detail, members={"currency": currency})
