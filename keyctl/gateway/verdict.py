"""Say what a verification found, and take what it is to be charged."""

from collections.abc import Callable
from decimal import Decimal

from keyctl.db.queries import Presented
from keyctl.services import verify

Charge = Callable[[Decimal | float], None]


class Verdict(verify.Verdict):
    """What a presented key string is worth.  Only one that matched tells whose it is.

    `reason` is None for a valid key, else one of `malformed unknown revoked blocked expired
    team_blocked org_blocked user_blocked route_denied model_denied budget_exceeded`.
    """

    # No fields: they are no part of what is said, compared or shown.
    __slots__ = ("_charge", "_found")

    def charging(self, found: Presented, charge: Charge) -> "Verdict":
        """Return the verdict itself, now that it is about *found* and *charge* records its usage."""
        object.__setattr__(self, "_found", found)
        object.__setattr__(self, "_charge", charge)
        return self

    @property
    def found(self) -> Presented | None:
        """Return the key, its secret and its owners as the database held them; None if no key matched."""
        found: Presented | None = getattr(self, "_found", None)
        return found

    def record(self, cost: Decimal | float) -> None:
        """Add *cost* dollars to what the key, its team, user and organization have spent.

        It counts at once, and is written with the next flush.  Zero is a use without a cost.

        Raises:
            ValueError: It is no amount of money, or no key matched.
            UnavailableError: The verifier is closed.
        """
        charge: Charge | None = getattr(self, "_charge", None)
        if charge is None:
            raise ValueError(f"there is no key to charge: {self.reason}")
        charge(cost)


MALFORMED = Verdict(valid=False, reason="malformed")
UNKNOWN = Verdict(valid=False, reason="unknown")
