"""What a caller may do, by the words of the token's scope."""

import pytest

from orderkeep.contracts.caller import Caller


@pytest.mark.parametrize(
    ("scopes", "is_operator", "is_operator_reader", "is_message_sender"),
    [
        (set(), False, False, False),
        ({"operator"}, True, True, False),
        ({"operator:read"}, False, True, False),
        ({"messages"}, False, False, True),
        ({"operators", "OPERATOR", "message"}, False, False, False),
    ],
)
def test_each_scope_allows_what_it_says_and_no_more(
    scopes: set[str], *, is_operator: bool, is_operator_reader: bool, is_message_sender: bool
) -> None:
    caller = Caller(user_id="user123", scopes=frozenset(scopes))

    assert caller.is_operator is is_operator
    assert caller.is_operator_reader is is_operator_reader
    assert caller.is_message_sender is is_message_sender
