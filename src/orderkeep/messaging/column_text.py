"""Text from outside, made fit for a text column of any engine.

A NUL, a lone surrogate or a megabyte in an error's words must not keep a message from being set
aside: what is kept exactly is kept as bytes, what is kept as text is made clean here.
"""

from traceback import format_exception_only

_CUT = "…"


def is_clean(text: str, *, length_max: int) -> bool:
    """Return whether the text can stand in a text column, a header and a log line as it is."""
    return 0 < len(text) <= length_max and text.isprintable()


def clean_start(text: str, *, length_max: int) -> str:
    """Return the text with the unprintable escaped, cut at the end if it is too long."""
    cleaned = _clean(text[: length_max + 1])
    return cleaned if len(cleaned) <= length_max else cleaned[: length_max - 1] + _CUT


def clean_end(text: str, *, length_max: int) -> str:
    """Return the text with the unprintable escaped, cut at the start if it is too long.

    The end of a traceback is what tells the most.
    """
    cleaned = _clean(text[-length_max - 1 :])
    return cleaned if len(cleaned) <= length_max else _CUT + cleaned[1 - length_max :]


def error_words(error: BaseException) -> str:
    """Return the error's name and words, even of one that fails to tell them."""
    return "".join(format_exception_only(error)).strip()


def _clean(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(
        character
        if character.isprintable() or character in "\n\t"
        else character.encode("unicode_escape").decode()
        for character in text
    )
