"""What a world that is wrong says of itself."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Breach:
    """An invariant that did not hold.

    Attributes:
        invariant: I1 to I19; see docs/proof/simulation.md.
        subject: The order, SKU, message or queue.
    """

    invariant: str
    subject: str
    detail: str
    at_s: float

    def __str__(self) -> str:
        return f"{self.invariant} {self.subject}: {self.detail} (virtual {self.at_s:.3f} s)"
