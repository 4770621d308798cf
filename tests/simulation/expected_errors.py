"""Which errors of the product a simulated world explains: all others are mistakes (I19)."""

from orderkeep.database.transaction import StoreUnavailableError
from orderkeep.messaging.broker import BrokerUnavailableError, LeaseLostError
from orderkeep.messaging.consumer import BadMessageError
from orderkeep.payments.channels.channel import ChannelUnavailableError
from orderkeep.refusal import Refusal

# What a fault brings, and what a request or a planted message deserves. A row that breaks a rule
# of the schema is not among them: nothing that a world plants comes so far.
_EXPECTED = (
    StoreUnavailableError,
    BrokerUnavailableError,
    LeaseLostError,
    ChannelUnavailableError,
    Refusal,
    BadMessageError,
)


def is_expected(error: BaseException) -> bool:
    """Return whether faults bring the error, or it says no."""
    return isinstance(error, _EXPECTED)
