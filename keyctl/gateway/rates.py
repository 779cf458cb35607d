"""Hold requests and tokens a minute, and requests at the same time, within one process."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from cachetools import LRUCache

from keyctl.gateway.clock import ticks
from keyctl.purses import PurseName, is_of_model, member_purse
from keyctl.records import Presented

Kind = Literal["requests", "tokens", "parallel"]
_MINUTE: Final = 60.0
_REMEMBERED: Final = 100_000


@dataclass(frozen=True, slots=True)
class Rate:
    """One limit: whose, of what, how much, and for which model if for one only.

    `field` names it as requests and `schema fields` do.
    """

    owner: PurseName
    kind: Kind
    limit: int
    field: str
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Exceeded:
    """Why a request is not admitted, and in how many seconds it may be."""

    rate: Rate
    retry_after: float


@dataclass(slots=True)
class _Count:
    """What was counted since the minute began; of requests at the same time, how many there are."""

    begun_at: float = 0.0
    used: int = 0


@dataclass(slots=True)
class Admission:
    """A request that is under way: what it counted where."""

    parts: list[tuple[_Count, Rate, int, float]] = field(default_factory=list)


class Rates:
    """Counts for all keys and owners of one process; several processes count each for itself."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Begin with nothing counted."""
        self._lock = threading.Lock()
        self._counts: LRUCache[tuple[PurseName, Kind, str | None], _Count] = LRUCache(_REMEMBERED)

    def admit(self, rates: Sequence[Rate], tokens: int) -> Admission | Exceeded:
        """Count a request of so many *tokens* under all of *rates*, or under none if one is exceeded."""
        now = ticks()
        admission = Admission()
        with self._lock:
            for rate in rates:
                count = self._count(rate, now)
                amount = max(1, tokens) if rate.kind == "tokens" else 1
                if count.used + amount > rate.limit:
                    wait = 1.0 if rate.kind == "parallel" else count.begun_at + _MINUTE - now
                    return Exceeded(rate, max(0.0, wait))
                admission.parts.append((count, rate, amount, count.begun_at))
            for position, (count, rate, amount, begun_at) in enumerate(admission.parts):
                if rate.kind == "tokens":
                    amount = tokens  # noqa: PLW2901  # one at least had to be left, and is not counted
                    admission.parts[position] = (count, rate, amount, begun_at)
                count.used += amount
        return admission

    def end(self, admission: Admission, tokens: int) -> None:
        """End a request, which used so many *tokens*."""
        with self._lock:
            for count, rate, amount, begun_at in admission.parts:
                if rate.kind == "parallel":
                    count.used -= amount
                elif rate.kind == "tokens" and count.begun_at == begun_at:
                    count.used += tokens - amount
            admission.parts = []

    def _count(self, rate: Rate, now: float) -> _Count:
        name = (rate.owner, rate.kind, rate.model)
        count: _Count | None = self._counts.get(name)
        if count is None:
            count = self._counts[name] = _Count(begun_at=now)
        elif rate.kind != "parallel" and now >= count.begun_at + _MINUTE:
            count.begun_at, count.used = now, 0
        return count


def rates_of(found: Presented) -> tuple[Rate, ...]:
    """Return every rate that requests with this key must keep to."""
    return tuple(_rates(found))


def for_model(rates: Sequence[Rate], *names: str | None) -> Sequence[Rate]:
    """Return those of *rates* that hold for a model of one of these names."""
    return [rate for rate in rates if any(is_of_model(rate.model, name) for name in names)]


def _rates(found: Presented) -> Iterator[Rate]:
    holders: list[tuple[PurseName, Any]] = [(PurseName("keys", found.key.id), found.key)]
    if found.member is not None:
        name = member_purse(found.member.team_id, found.member.user_id)
        holders.append((name, found.member))
    owners = (
        ("teams", found.team),
        ("users", found.user),
        ("organizations", found.organization),
    )
    holders += [(PurseName(table, owner.id), owner) for table, owner in owners if owner is not None]
    for owner, holder in holders:
        yield from _of_holder(owner, holder)
        tier = found.tiers.get(getattr(holder, "budget_id", None) or "")
        if tier is not None:
            yield from _of_holder(owner._replace(meter=f"{owner.meter}/tier:{tier.id}"), tier)


def _of_holder(owner: PurseName, holder: Any) -> Iterator[Rate]:
    kinds: tuple[tuple[str, Kind], ...] = (
        ("rpm_limit", "requests"),
        ("tpm_limit", "tokens"),
        ("max_parallel_requests", "parallel"),
    )
    for name, kind in kinds:
        limit = getattr(holder, name, None)
        if limit is not None:
            yield Rate(owner, kind, limit, name)
    for name, kind in kinds[:2]:
        for model, limit in (getattr(holder, f"model_{name}", None) or {}).items():
            yield Rate(owner, kind, limit, f"model_{name}", model)
    for model, budget in (getattr(holder, "model_max_budget", None) or {}).items():
        for name, kind in kinds[:2]:
            if budget.get(name) is not None:
                # Apart from `model_rpm_limit`, which counts the same requests.
                within = owner._replace(meter=f"{owner.meter}/model_max_budget")
                yield Rate(within, kind, budget[name], "model_max_budget", model)
