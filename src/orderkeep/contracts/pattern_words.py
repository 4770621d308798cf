"""What is said of text that does not match a pattern: words, where msgspec shows the pattern."""

from typing import Any, get_args

import msgspec

from orderkeep.contracts.amount import AMOUNT_MINOR_MAX, AmountText, text_of_minor
from orderkeep.contracts.text import CurrencyCode, ForeignNumber, Identifier


def _message_of(annotation: Any) -> str:  # noqa: ANN401 (an annotation has no type of its own)
    """Return what msgspec says of text that does not match the type's pattern."""
    (meta,) = (one for one in get_args(annotation) if isinstance(one, msgspec.Meta))
    return f"Expected `str` matching regex {meta.pattern!r}"


_WORDS = {
    _message_of(
        AmountText
    ): f"is not an amount such as 12.50, up to {text_of_minor(AMOUNT_MINOR_MAX)}",
    _message_of(Identifier): "is not 1 to 64 of letters, digits and ._:-",
    _message_of(ForeignNumber): "is not 1 to 128 visible characters",
    _message_of(CurrencyCode): "is not three capital letters, such as CNY",
}


def plain_words(message: str) -> str:
    """Return msgspec's message, or the words for it where it shows a pattern of ours."""
    return _WORDS.get(message, message)
