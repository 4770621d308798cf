"""An order's version as an entity tag."""

import pytest

from orderkeep.orders.version_tag import find_expected_version, is_none_match, version_tag
from orderkeep.refusal import Refusal


def test_a_version_is_a_strong_tag() -> None:
    assert version_tag(12) == '"12"'


@pytest.mark.parametrize("header", ['"2"', 'W/"2"', ' "2" ', '"1", "2"', '"1",W/"2"', "*", " * "])
def test_a_client_has_a_version_that_its_tags_name(header: str) -> None:
    assert is_none_match(header, version=2)


@pytest.mark.parametrize("header", [None, "", '"1"', '"22"', '"02"', "2", '"1", "3"'])
def test_a_client_has_no_version_that_its_tags_do_not_name(header: str | None) -> None:
    assert not is_none_match(header, version=2)


@pytest.mark.parametrize("header", [None, "*", " * "])
def test_a_request_without_a_condition_expects_any_version(header: str | None) -> None:
    assert find_expected_version(header) is None


@pytest.mark.parametrize("header", ['"3"', ' "3" '])
def test_a_condition_expects_the_version_of_its_tag(header: str) -> None:
    assert find_expected_version(header) == 3


@pytest.mark.parametrize(
    "header",
    [
        "",
        "3",
        'W/"3"',
        '"x"',
        '""',
        '"-3"',
        '"3.0"',
        '"03"',
        '"1234567890"',
        '"\N{ARABIC-INDIC DIGIT THREE}"',
    ],
)
def test_a_condition_that_names_no_version_can_match_none(header: str) -> None:
    with pytest.raises(Refusal) as refused:
        find_expected_version(header)

    assert refused.value.code == "version_mismatch"
