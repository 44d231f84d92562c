"""What a decision rests on: how far its operation was ahead, and how sure that was. No torch."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

ENOUGH = 2.0  # standard errors: about one decision in 40 by chance


class Evidence(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`margin` of the chosen operation over the next on its edge, and its standard `error`.

    The unit of both is the strategy's: probability, or loss.
    """

    margin: float
    error: float

    @property
    def z(self) -> float | None:
        """The margin in standard errors; None where the error is not known."""
        return self.margin / self.error if self.error > 0 else None

    @property
    def enough(self) -> bool:
        """Whether the decision stands out of the noise."""
        return self.z is not None and self.z > ENOUGH


def is_enough(evidence: Evidence | None) -> bool:
    """Whether a decision stands out of the noise; without evidence it does not."""
    return evidence is not None and evidence.enough


def in_words(evidence: Evidence | None) -> str:
    """`z 3.1`, marked where that is not enough; or that there is no evidence."""
    if evidence is None or evidence.z is None:
        return "no evidence"
    return f"z {evidence.z:.1f}" + ("" if evidence.enough else ", not told from chance")


def verdict(evidence: Iterable[Evidence | None]) -> str:
    """How many decisions of a search stand out of the noise, in words."""
    enough = [is_enough(one) for one in evidence]
    return f"{sum(enough)} of {len(enough)} decisions have evidence (z above {ENOUGH:g})"
