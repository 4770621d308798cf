"""Who calls: what the token says, once it has been checked."""

from dataclasses import dataclass

OPERATOR_SCOPE = "operator"
OPERATOR_READ_SCOPE = "operator:read"
MESSAGES_SCOPE = "messages"


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """A caller with a valid token.

    Attributes:
        user_id: The token's `sub`.
        scopes: The words of the token's `scope`; those not known here mean nothing.
    """

    user_id: str
    scopes: frozenset[str] = frozenset()

    @property
    def is_operator(self) -> bool:
        """May see and change any order, and everything under `/admin`."""
        return OPERATOR_SCOPE in self.scopes

    @property
    def is_operator_reader(self) -> bool:
        """May see any order, and everything under `/admin`."""
        return self.is_operator or OPERATOR_READ_SCOPE in self.scopes

    @property
    def is_message_sender(self) -> bool:
        """May put messages of a foreign service into queues."""
        return MESSAGES_SCOPE in self.scopes
