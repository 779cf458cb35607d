"""What a gateway admitted, added up by what the rows said at the start: no code of keyctl decides here."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from unittest.mock import patch

from clock import Clock
from closed_world import Owners, moment, owners_in
from sqlalchemy import Connection, text

from keyctl.db.database import Database
from keyctl.gateway import Verifier, verifier

DAYS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
NANO = 10**9


@dataclass(frozen=True)
class Purse:
    """An amount that all that is charged to it together may reach, in each period from its anchor on."""

    limit: float
    period: timedelta | None
    anchor: datetime

    def number(self, now: datetime) -> int:
        """Return the number of the period at *now*."""
        return 0 if self.period is None else (now - self.anchor) // self.period


@dataclass
class Ledger:
    """Every dollar that was admitted, by purse and period, by key, and by the key that issued it."""

    purses: dict[str, Purse] = field(default_factory=dict)
    spent: dict[tuple[str, int], float] = field(default_factory=dict)
    of_keys: dict[str, list[tuple[datetime, float]]] = field(default_factory=dict)
    issued: dict[str, str] = field(default_factory=dict)  # who issued a key
    most: dict[str, float] = field(default_factory=dict)  # of all that one key issued

    def open(self, connection: Connection) -> None:
        """Note what the purses allow at the start; nobody changes them afterwards."""
        owners = owners_in(connection)
        for found in connection.execute(text("SELECT * FROM keys")).mappings():
            row = dict(found)
            for name, owner in owners.purses(row).items():
                if owner["max_budget"] is not None:
                    anchor = moment(owner["budget_anchor_at"] or owner["created_at"])
                    period = _period(owner["budget_duration"])
                    self.purses[name] = Purse(owner["max_budget"] / NANO, period, anchor)
            if row["may_issue"] is not None:
                bounds = json.loads(row["may_issue"])
                self.most[row["id"]] = bounds["max_keys"] * float(bounds["max_budget"])

    def issue(self, by: str, key_id: str) -> None:
        """Note who issued a key."""
        if by in self.most:
            self.issued[key_id] = by

    def admit(
        self, connection: Connection, secret_id: str, dollars: float, *, now: datetime
    ) -> list[str]:
        """Count what was admitted, and return each purse that had nothing left before."""
        query = text("SELECT k.* FROM keys k JOIN secrets s ON s.key_id = k.id WHERE s.id = :id")
        row = dict(connection.execute(query, {"id": secret_id}).mappings().one())
        over = [*self._charge_purses(owners_in(connection), row, dollars, now=now)]
        mine = self.of_keys.setdefault(row["id"], [])
        for most, period in _budgets(row):
            since = now - mine[0][0] if mine else timedelta(0)
            # One more period than has passed: the first one had begun before the first charge.
            periods = 1 if period is None else since // period + 2
            if sum(amount for _, amount in mine) >= most * periods:
                over.append(f"key {row['id']}: ${most} per {period}")
        mine.append((now, dollars))
        if (issuer := self.issued.get(row["id"])) is not None:
            theirs = [each for each, by in self.issued.items() if by == issuer]
            total = sum(amount for each in theirs for _, amount in self.of_keys.get(each, ()))
            if total - dollars >= self.most[issuer]:
                over.append(f"all that {issuer} issued")
        return over

    def _charge_purses(
        self, owners: Owners, row: Mapping[str, Any], dollars: float, *, now: datetime
    ) -> list[str]:
        over = []
        for name in owners.purses(row):
            purse = self.purses.get(name)
            if purse is None:
                continue
            place = (name, purse.number(now))
            if self.spent.get(place, 0) >= purse.limit:
                over.append(name)
            self.spent[place] = self.spent.get(place, 0) + dollars
        return over


def _budgets(row: Mapping[str, Any]) -> list[tuple[float, timedelta | None]]:
    windows = json.loads(row["budget_limits"])
    found = [(float(item["max_budget"]), _period(item["budget_duration"])) for item in windows]
    if row["max_budget"] is not None:
        found.append((row["max_budget"] / NANO, _period(row["budget_duration"])))
    return found


def _period(text: str | None) -> timedelta | None:
    if text is None:
        return None
    return timedelta(seconds=1) if text == "1s" else int(text[:-1]) * DAYS[text[-1]]


def admitted(url: str, key_string: str, dollars: float, *, clock: Clock, model: str) -> bool:
    """Make a request through a gateway of its own, and tell whether it was admitted."""
    # The one clock: else a gateway would live in another year than the keys.
    clocked = partial(Database, clock=clock)
    with patch.object(verifier, "Database", clocked), Verifier(url) as gateway:
        verdict = gateway.verify(key_string, model=model)
        if not verdict.valid or not verdict.reserve(dollars):
            return False
        verdict.record(dollars)
    return True
