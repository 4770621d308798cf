"""Nobody who sends a wrong text is shown a regular expression of ours."""

import pytest

from orderkeep.contracts.amount import AmountText
from orderkeep.contracts.strict_json import InvalidShapeError, convert
from orderkeep.contracts.text import CurrencyCode, ForeignNumber, Identifier


@pytest.mark.parametrize(
    ("type_", "text", "words"),
    [
        (AmountText, "12.5", "is not an amount such as 12.50, up to 9999999999.99"),
        (AmountText, "-1.00", "is not an amount such as 12.50, up to 9999999999.99"),
        (Identifier, "a b", "is not 1 to 64 of letters, digits and ._:-"),
        (ForeignNumber, "a b", "is not 1 to 128 visible characters"),
        (CurrencyCode, "cny", "is not three capital letters, such as CNY"),
    ],
)
def test_a_wrong_text_is_told_in_words(type_: type, text: str, words: str) -> None:
    with pytest.raises(InvalidShapeError) as refused:
        convert({"price": text}, dict[str, type_])  # type: ignore[valid-type]  # a type that varies

    assert [problem.detail for problem in refused.value.problems] == [words]
