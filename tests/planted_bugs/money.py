"""Mistakes in how money goes back."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from orderkeep.payments import carry_out_refunds
from orderkeep.payments.channels.channel import RefundOrder
from tests.planted_bugs.plant import Plant
from tests.simulation.process import RUNNING


@contextmanager
def _refund_without_key() -> Iterator[None]:
    def order(*, refund_no: str, **rest: Any) -> RefundOrder:
        process = RUNNING.get()
        assert process is not None, "the product runs in a process"
        return RefundOrder(refund_no=f"{refund_no}-{process.chance.draw_nonce()}", **rest)

    with patch.object(carry_out_refunds, "RefundOrder", order):
        yield


PLANTS = (
    Plant(
        name="refund-without-key",
        says="each time the channel is asked for a refund, it is asked under a new number",
        caught_by={"I3": "trade .* went back", "I5": "should be held of its money"},
        planted=_refund_without_key,
    ),
)
