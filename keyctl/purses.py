"""Tell which budgets a request with a key is charged to, and must find room in.  Pure.

The budget of an owner's own row is named by its table and id.  Every other one, a window, a
model's, a member's, a tier's, has a *meter* beside that: its spend is a row of the table `meters`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import sha256
from typing import Any, Final, NamedTuple

from keyctl import durations, money
from keyctl.errors import KeyctlError
from keyctl.records import (
    ForeignValueError,
    Key,
    Member,
    Organization,
    Presented,
    Principal,
    Team,
    Tier,
    User,
)

_LONGEST: Final = 300
# What a budget without a meter is called in answers.
OWN: Final = "max_budget"
Holder = Key | Team | User | Organization | Member
_TABLES: Final[Mapping[type, str]] = {
    Key: "keys",
    Team: "teams",
    User: "users",
    Organization: "organizations",
}


class PurseName(NamedTuple):
    """Which budget: the owner's table and id, and a meter's name for any but the owner's own."""

    table: str
    object_id: str
    meter: str = ""

    @property
    def counts_tokens(self) -> bool:
        """Tell whether it counts tokens, not nano-dollars."""
        return self.meter.startswith("tokens:")


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a metered budget allows; that of an owner's own is read from its row.  Nano-dollars or tokens."""

    limit: int | None
    period: str | None
    anchor: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """A budget as it was read: what it allows, what is spent of it, and when that begins anew.

    One of a *model* is for requests for that model only.
    """

    name: PurseName
    limit: int
    spend: int = 0
    period: str | None
    anchor: datetime
    end: datetime | None = None
    model: str | None = None

    @property
    def terms(self) -> Terms | None:
        """Return what a charge must know of it; None where the owner's row tells."""
        if not self.name.meter:
            return None
        return Terms(limit=self.limit, period=self.period, anchor=self.anchor)

    def is_over(self, *, now: datetime) -> bool:
        """Tell whether the period that *spend* is of has ended at *now*: then it counts as new."""
        return self.period is not None and (self.end is None or self.end <= now)

    def is_spent(self, *, now: datetime) -> bool:
        """Tell whether nothing is left of it at *now*."""
        return (0 if self.is_over(now=now) else self.spend) >= self.limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Meter:
    """What is spent of a metered budget, in a period of this length that ends then."""

    spend: int
    budget_duration: str | None
    budget_reset_at: datetime | None

    def spent_at(self, now: datetime) -> int:
        """Return what is spent in the period that is *now*: one that is over counts as new."""
        end = self.budget_reset_at
        is_over = self.budget_duration is not None and (end is None or end <= now)
        return 0 if is_over else self.spend


def charged(found: Presented) -> list[tuple[str, Key | Principal]]:
    """Return the key and its owners, each with its table: whose spend every request adds to."""
    owners = (
        ("keys", found.key),
        ("teams", found.team),
        ("users", found.user),
        ("organizations", found.organization),
    )
    return [(table, record) for table, record in owners if record is not None]


def budgets(found: Presented, meters: Mapping[PurseName, Meter] | None = None) -> list[Budget]:
    """Return every budget that requests with this key are charged to, with what is spent of each.

    Without *meters*, nothing is spent of those that have one.

    Raises:
        ForeignValueError: A document of the key or an owner holds what keyctl never writes there.
    """
    own = [own_budget(record) for _, record in charged(found)]
    result = [budget for budget in own if budget is not None]
    return result + [spent(budget, meters or {}) for budget in _metered(found)]


def spent(budget: Budget, meters: Mapping[PurseName, Meter]) -> Budget:
    """Return a metered *budget* with what its meter says is spent of it."""
    meter = meters.get(budget.name)
    if meter is None:
        return budget
    return replace(budget, spend=meter.spend, end=meter.budget_reset_at)


def is_of_model(named: str | None, model: str | None) -> bool:
    """Tell whether what is set for the model *named*, or for all, holds for *model*.

    A provider's prefix does not matter.
    """
    if named is None:
        return True
    return model is not None and named in (model, model.rpartition("/")[2])


def own_purse(record: Key | Principal) -> PurseName:
    """Return the name of the budget of an owner's own row."""
    return PurseName(_TABLES[type(record)], record.id)


def own_budget(record: Key | Principal) -> Budget | None:
    """Return the budget of an owner's own row, None where the owner has none."""
    if record.max_budget is None:
        return None
    return Budget(
        name=own_purse(record),
        limit=record.max_budget,
        spend=record.spend,
        period=record.budget_duration,
        anchor=record.budget_anchor_at or record.created_at,
        end=record.budget_reset_at,
    )


def member_purse(team_id: str, user_id: str) -> PurseName:
    """Return the name of what a member may spend with all keys of the team."""
    return PurseName("teams", team_id, _meter(f"member:{user_id}"))


def _meter(name: str) -> str:
    """Return *name*, or what stands for it where ids and models make it too long for its column."""
    if len(name) <= _LONGEST:
        return name
    return f"{name[:200]}#{sha256(name.encode()).hexdigest()}"


def _metered(found: Presented) -> Iterator[Budget]:
    for record in (found.key, found.team, found.user, found.organization, found.member):
        if record is not None:
            yield from metered(record, found.tiers)


def metered(record: Holder, tiers: Mapping[str, Tier]) -> Iterator[Budget]:
    """Yield the budgets of one of these that have a meter, as if nothing were spent.

    Raises:
        ForeignValueError: A document of it holds what keyctl never writes there.
    """
    if isinstance(record, Member):
        name = member_purse(record.team_id, record.user_id)
        yield from _of_member(name, record)
        if tier := tiers.get(record.budget_id or ""):
            yield from _of_tier(tier, name.table, name.object_id, f"{name.meter}/")
        return
    table = _TABLES[type(record)]
    if not isinstance(record, User):
        yield from _of_own(table, record)
    if isinstance(record, Key | User) and (tier := tiers.get(record.budget_id or "")):
        yield from _of_tier(tier, table, record.id)


def of_tier(tier: Tier) -> Iterator[Budget]:
    """Yield what a tier allows each who names it, under the end of its meter's name.

    Raises:
        ForeignValueError: A document of it holds what keyctl never writes there.
    """
    return _of_tier(tier, "", "")


def _of_own(table: str, owner: Key | Team | Organization) -> Iterator[Budget]:
    """Yield the windows, the budgets of single models, and the tokens of a day."""
    for window in () if isinstance(owner, Organization) else owner.budget_limits:
        limit, period = _limit("budget_limits", window)
        if limit is None or period is None:
            raise ForeignValueError("budget_limits")
        yield Budget(
            name=PurseName(table, owner.id, f"window:{period}"),
            limit=limit,
            period=period,
            anchor=owner.created_at,
        )
    yield from _of_models(table, owner.id, owner.model_max_budget, owner.created_at)
    yield from _of_tokens(table, owner.id, "", owner.tpd_limit, owner.created_at)


def _of_member(name: PurseName, member: Member) -> Iterator[Budget]:
    if member.max_budget is not None:
        yield Budget(
            name=name,
            limit=member.max_budget,
            period=member.budget_duration,
            anchor=member.budget_anchor_at or member.created_at,
        )


def _of_models(
    table: str, object_id: str, models: Mapping[str, Any], anchor: datetime, prefix: str = ""
) -> Iterator[Budget]:
    for model, budget in models.items():
        limit, period = _limit("model_max_budget", budget)
        if limit is not None:
            yield Budget(
                name=PurseName(table, object_id, _meter(f"{prefix}model:{model}")),
                limit=limit,
                period=period,
                anchor=anchor,
                model=model,
            )


def _limit(column: str, document: Any) -> tuple[int | None, str | None]:
    """Return the amount and the period of a budget inside a document; amounts there are dollars."""
    try:
        amount, period = document.get("max_budget"), document.get("budget_duration")
        if period is not None:
            durations.parse_period(period)
        return (None if amount is None else money.to_nano(amount)), period
    except (ArithmeticError, AttributeError, TypeError, KeyctlError):
        raise ForeignValueError(column) from None


def _of_tokens(
    table: str, object_id: str, prefix: str, limit: int | None, anchor: datetime
) -> Iterator[Budget]:
    if limit is not None:
        name = PurseName(table, object_id, _meter(f"tokens:{prefix}daily"))
        yield Budget(name=name, limit=min(limit, money.MAX_NANO), period="daily", anchor=anchor)


def _of_tier(tier: Tier, table: str, object_id: str, prefix: str = "") -> Iterator[Budget]:
    """Yield what a tier allows one of those who name it; each has its own meters."""
    anchor = tier.budget_anchor_at or tier.created_at
    prefix = f"{prefix}tier:{tier.id}"
    if tier.max_budget is not None:
        yield Budget(
            name=PurseName(table, object_id, _meter(prefix)),
            limit=tier.max_budget,
            period=tier.budget_duration,
            anchor=anchor,
        )
    yield from _of_models(table, object_id, tier.model_max_budget, anchor, f"{prefix}/")
    yield from _of_tokens(table, object_id, f"{prefix}/", tier.tpd_limit, anchor)
