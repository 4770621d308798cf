"""How bodies of messages are read and written, whatever their queue."""

import msgspec
import pytest

from orderkeep.contracts.message_body import Members, read_body, write_body
from orderkeep.contracts.text import read_free_text, read_quantity
from orderkeep.messaging.consumer import BadMessageError


@pytest.mark.parametrize(
    ("raw", "reason", "detail"),
    [
        (b"{", "malformed_json", "Expecting property name"),
        (b'{"a":1,"a":2}', "malformed_json", "the key 'a' stands twice"),
        (b"[" * 100_000, "malformed_json", "nested deeper than 32 levels"),
        (b"\xff\x00", "malformed_json", "byte 0 is not UTF-8"),
        (b"[]", "invalid_body", "the body is not an object"),
        (b"null", "invalid_body", "the body is not an object"),
        (
            b'"' + b"a" * 1_048_575 + b'"',
            "invalid_body",
            "the body has 1048577 bytes; at most 1048576 are read",
        ),
    ],
    ids=["cut", "twice", "deep", "bytes", "list", "null", "large"],
)
def test_what_is_no_object_is_set_aside_with_the_reason(
    raw: bytes, reason: str, detail: str
) -> None:
    with pytest.raises(BadMessageError) as bad:
        read_body(raw)

    assert bad.value.reason == reason
    assert bad.value.detail.startswith(detail)


def test_a_body_of_one_mebibyte_is_read() -> None:
    raw = b'{"a":"' + b"a" * (1_048_576 - 8) + b'"}'

    read_body(raw)


@pytest.mark.parametrize("missing", [{}, {"name": None}, {"name": ""}])
def test_null_and_empty_text_count_as_missing(missing: dict[str, object]) -> None:
    members = Members(missing)

    assert members.find("name", read_free_text) is None
    assert members.find_members("name").find("x", read_free_text) is None
    with pytest.raises(BadMessageError, match="/name: is missing"):
        members.get("name", read_free_text)
    with pytest.raises(BadMessageError, match="/name: is missing"):
        members.get_list("name")


def test_what_is_wrong_is_named_by_its_pointer() -> None:
    members = Members({"a/b~": {"n": 0}, "list": [{}, {"n": "x"}]})
    inner = members.find_members("a/b~")
    second = members.get_list("list")[1]

    with pytest.raises(BadMessageError) as in_object:
        inner.get("n", read_quantity)
    with pytest.raises(BadMessageError) as in_list:
        second.find("n", read_quantity)

    assert in_object.value.reason == "invalid_body"
    assert in_object.value.detail == "/a~1b~0/n: expected a whole number from 1 to 9999"
    assert in_list.value.detail == "/list/1/n: expected a whole number from 1 to 9999"


def test_zero_and_false_are_not_missing() -> None:
    members = Members({"zero": 0, "no": False, "list": []})

    for name in ("zero", "no", "list"):
        with pytest.raises(BadMessageError, match=f"/{name}: expected text"):
            members.find(name, read_free_text)


@pytest.mark.parametrize("value", ["text", 1, [1], True])
def test_a_member_that_should_be_an_object_is_no_other_thing(value: object) -> None:
    with pytest.raises(BadMessageError, match="/data: expected an object"):
        Members({"data": value}).find_members("data")


def test_a_member_that_should_be_a_list_of_objects_is_no_other_thing() -> None:
    with pytest.raises(BadMessageError, match="/items: expected a list"):
        Members({"items": {}}).get_list("items")
    with pytest.raises(BadMessageError, match="/items: expected an object"):
        Members({"items": [{}, 1]}).get_list("items")


def test_members_are_written_in_their_order_without_those_that_are_none() -> None:
    body = write_body({"b": 1, "a": None, "c": msgspec.Raw(b"1.00"), "d": "订"})

    assert body == '{"b":1,"c":1.00,"d":"订"}'.encode()
