"""An order's version as an entity tag, and the conditions that requests put on it. Pure."""

import re

from orderkeep.refusal import Refusal

_TAG = re.compile(r'(?:W/)?"([^"]*)"')


def version_tag(version: int) -> str:
    """Return the tag of a version, as the `ETag` header has it."""
    return f'"{version}"'


def is_none_match(header: str | None, *, version: int) -> bool:
    """Return whether an `If-None-Match` header names the version: the client has it already."""
    return header is not None and (header.strip() == "*" or str(version) in _TAG.findall(header))


def find_expected_version(header: str | None) -> int | None:
    """Return the version that an `If-Match` header expects, or None if it expects nothing.

    Raises:
        Refusal: `version_mismatch`: it names no version of an order, so it can match none.
    """
    if header is None or header.strip() == "*":
        return None
    # A weak tag never matches: RFC 9110 section 13.1.1 compares strongly.
    tag = re.fullmatch(r'\s*"([1-9][0-9]{0,8})"\s*', header)
    if tag is None:
        raise Refusal(
            "version_mismatch", f"If-Match {header!r} names no version; send the ETag of the order."
        )
    return int(tag[1])
