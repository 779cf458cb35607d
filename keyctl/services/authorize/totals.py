"""Add up the live keys around a new or changed one, read only where a rule will ask."""

from collections.abc import Container, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from sqlalchemy import Connection

from keyctl import durations
from keyctl.config.document import everywhere
from keyctl.config.settings import Settings
from keyctl.db import queries
from keyctl.policy.allocations import GUARANTEED
from keyctl.policy.documents import Policy
from keyctl.policy.facts import Facts, Sums
from keyctl.records import Key

_MOST: Final = 1000
_NOTHING = Sums()


def lock_everywhere(connection: Connection, settings: Settings) -> None:
    """Make two creations wait for each other where the configuration limits the number of all keys."""
    limits = [everywhere(settings, of_team=of_team).max_keys for of_team in (True, False)]
    if limits != [None, None]:
        queries.lock_allocations(connection)


def read(connection: Connection, facts: Facts) -> Facts:
    """Return *facts* with the sums that rules will ask for.

    The owners' rows are locked, so nobody can add to them before this transaction ends.
    """
    team, organization, everybody = Sums(), Sums(), Sums()
    but = (facts.key.id,)
    if facts.team is not None and _asks(facts, facts.layers.team):
        team = added_up(
            queries.allocations(connection, now=facts.now, but=but, team_id=facts.team.id)
        )
    if facts.organization is not None and _asks(facts, facts.layers.organization):
        organization = added_up(
            queries.allocations(
                connection, now=facts.now, but=but, organization_id=facts.organization.id
            )
        )
    if facts.layers.everywhere is not None and facts.layers.everywhere.max_keys is not None:
        everybody = added_up(queries.allocations(connection, now=facts.now, but=but))
    issued, most = _issued(connection, facts)
    facts = replace(facts, issued=issued, most_issued=most)
    return replace(facts, team_sums=team, organization_sums=organization, all_sums=everybody)


@dataclass(slots=True, kw_only=True)
class RunningSums:
    """The sums around many keys that are made and changed together, each owner's asked for once.

    The keys with the ids in *but* are changed or ended: each counts again when `count` is told what
    becomes of it.
    """

    now: datetime
    but: Container[str] = ()
    _sums: dict[tuple[str, str], Sums] = field(default_factory=dict)
    _counted: list[tuple[str | None, str | None, "queries.Allocation"]] = field(
        default_factory=list
    )
    _added: dict[tuple[str, str], Sums] = field(default_factory=dict)

    def read(self, connection: Connection, facts: Facts) -> Facts:
        """Return *facts* with the sums that rules will ask for, as `read` of this module does."""
        team = organization = everybody = _NOTHING
        if facts.team is not None and _asks(facts, facts.layers.team):
            team = self._sum(connection, "team_id", facts.team.id)
        if facts.organization is not None and _asks(facts, facts.layers.organization):
            organization = self._sum(connection, "organization_id", facts.organization.id)
        if facts.layers.everywhere is not None and facts.layers.everywhere.max_keys is not None:
            everybody = self._sum(connection, "", "")
        if team is organization is everybody is _NOTHING:
            return facts  # as it is: many keys are judged, most where nothing is added up
        return replace(facts, team_sums=team, organization_sums=organization, all_sums=everybody)

    def count(self, key: Key) -> None:
        """Count *key* among the live ones from here on."""
        own = _allocation(key)
        self._counted.append((key.team_id, key.organization_id, own))
        if len(self._counted) == _MOST:
            self._add_up()
        for scope in _scopes(key.team_id, key.organization_id):
            if scope in self._sums:
                self._sums[scope] = added_up([own], to=self._sums[scope])

    def _sum(self, connection: Connection, column: str, owner: str) -> Sums:
        scope = (column, owner)
        if (known := self._sums.get(scope)) is None:
            where = {column: owner} if column else {}
            stored = queries.allocations(connection, now=self.now, but=self.but, **where)
            counted = [
                own
                for team_id, organization_id, own in self._counted
                if scope in _scopes(team_id, organization_id)
            ]
            earlier = self._added.get(scope)
            known = self._sums[scope] = added_up([*stored, *counted], to=earlier)
        return known

    def _add_up(self) -> None:
        """Keep sums of what was counted: a fleet may count a hundred thousand keys."""
        by_scope: dict[tuple[str, str], list[queries.Allocation]] = {}
        for team_id, organization_id, own in self._counted:
            for scope in _scopes(team_id, organization_id):
                by_scope.setdefault(scope, []).append(own)
        for scope, some in by_scope.items():
            self._added[scope] = added_up(some, to=self._added.get(scope))
        self._counted.clear()


def _scopes(team_id: str | None, organization_id: str | None) -> list[tuple[str, str]]:
    owners = (("team_id", team_id), ("organization_id", organization_id), ("", ""))
    return [(column, owner) for column, owner in owners if owner is not None]


def _allocation(key: Key) -> "queries.Allocation":
    return queries.Allocation(
        max_budget=key.max_budget,
        tpm_limit=key.tpm_limit,
        rpm_limit=key.rpm_limit,
        tpm_limit_type=key.tpm_limit_type,
        rpm_limit_type=key.rpm_limit_type,
        model_tpm_limit=key.model_tpm_limit,
        model_rpm_limit=key.model_rpm_limit,
    )


def with_key(facts: Facts, key: Key) -> Facts:
    """Return *facts* with *key* among the live keys that are added up."""
    own = _allocation(key)
    return replace(
        facts,
        team_sums=added_up([own], to=facts.team_sums),
        organization_sums=added_up([own], to=facts.organization_sums),
        all_sums=added_up([own], to=facts.all_sums),
        issued=facts.issued + 1,
    )


def are_asked_for(facts: Facts) -> bool:
    """Tell whether any rule looks at a sum."""
    layers = facts.layers
    return facts.most_issued is not None or any(
        _asks(facts, policy) for policy in (layers.team, layers.organization, layers.everywhere)
    )


def added_up(taken: Iterable["queries.Allocation"], *, to: Sums | None = None) -> Sums:
    """Return what *taken* adds up to; throughput counts where it is guaranteed."""
    total = to or Sums()
    keys, budget = total.keys, total.max_budget
    tpm, rpm = total.tpm, total.rpm
    model_tpm, model_rpm = dict(total.model_tpm), dict(total.model_rpm)
    for item in taken:
        keys += 1
        budget += item.max_budget or 0
        if item.tpm_limit_type == GUARANTEED:
            tpm += item.tpm_limit or 0
            _add(model_tpm, item.model_tpm_limit)
        if item.rpm_limit_type == GUARANTEED:
            rpm += item.rpm_limit or 0
            _add(model_rpm, item.model_rpm_limit)
    return replace(
        total,
        keys=keys,
        max_budget=budget,
        tpm=tpm,
        rpm=rpm,
        model_tpm=model_tpm,
        model_rpm=model_rpm,
    )


def _add(total: dict[str, int], limits: dict[str, int]) -> None:
    for model, limit in limits.items():
        total[model] = total.get(model, 0) + limit


def _asks(facts: Facts, policy: Policy | None) -> bool:
    guaranteed = GUARANTEED in (facts.key.tpm_limit_type, facts.key.rpm_limit_type)
    return guaranteed or (
        policy is not None
        and (policy.max_keys is not None or policy.budget_allocation == "guaranteed")
    )


def _issued(connection: Connection, facts: Facts) -> tuple[int, int | None]:
    """Return how many keys the caller's key has made that count, and how many it may, None for any."""
    own = facts.caller.key
    most = None if own is None or own.may_issue is None else own.may_issue.get("max_keys")
    if own is None or own.may_issue is None or most is None or facts.operation != "generate":
        return 0, None
    # Locked, so that two runs cannot both take the last place.
    queries.find_key(connection, own.id, lock=True)
    period = own.may_issue.get("budget_duration")
    since = None
    if period is not None:
        since = durations.period_length(period).times(-1, facts.now)
    return queries.count_issued(connection, own.id, since=since), most
