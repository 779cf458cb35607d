"""What a coalition of callers holds, computed from the rows alone: no code of keyctl decides here.

An element is what one held secret gives: the purses that bound it, the models and routes that it
reaches, numbers, what it keeps, budgets, and until when.  One lies below another if it is no more in
any of these.  Elements never combine.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any

from sqlalchemy import Connection, text

MODELS = ("gpt-4o", "gpt-4", "o1", "o3")
ROUTES = ("/v1/chat/completions", "/v1/files", "/key/generate", "/key/info", "/team/new")
OF_TYPE = {
    "default": {"/v1/chat/completions", "/key/generate", "/key/info", "/team/new"},
    "llm_api": {"/v1/chat/completions", "/v1/files"},
    "management": {"/key/generate", "/key/info", "/team/new"},
    "read_only": {"/key/info"},
}
NUMBERS = ("rpm_limit", "tpm_limit", "tpd_limit", "max_parallel_requests")
MAPS = ("model_rpm_limit", "model_tpm_limit")
GATEWAY_MAPS = ("mcp_rpm_limit", "tag_rpm_limit")
KEPT = ("guardrails", "tags")
GATEWAY_KEPT = ("policies", "enforced_params", "denied_passthrough_routes")
GATEWAY_LISTS = ("prompts", "allowed_cache_controls", "allowed_passthrough_routes")
EVER = datetime(9999, 1, 1)  # noqa: DTZ001  # compared as the database keeps them
EVERYTHING = float("inf")
# What lies within an organization.
WITHIN = {"organization_id:acme": ("organization_id:acme", "team_id:web")}
DAYS = {"s": 1 / 86_400, "h": 1 / 24, "d": 1}


@dataclass(frozen=True)
class Element:
    """What one secret gives whoever holds it."""

    name: str
    purses: frozenset[str]
    models: frozenset[str]
    routes: frozenset[str]
    caps: tuple[tuple[str, float], ...]
    kept: frozenset[str]
    lists: tuple[frozenset[str] | None, ...]  # None: open
    model_budgets: tuple[tuple[str, float, float], ...]
    budgets: tuple[tuple[float, float], ...]  # dollars, days; infinitely many days: for ever
    until: datetime

    def lies_below(self, other: "Element") -> bool:
        """Tell whether this is no more than *other* in anything."""
        return (
            self.purses >= other.purses
            and self.models <= other.models
            and self.routes <= other.routes
            and all(dict(self.caps).get(name, EVERYTHING) <= most for name, most in other.caps)
            and self.kept >= other.kept
            and all(
                theirs is None or (mine is not None and mine <= theirs)
                for mine, theirs in zip(self.lists, other.lists, strict=True)
            )
            and all(
                any(
                    amount <= most and days >= least
                    for name, amount, days in (
                        *self.model_budgets,
                        *(("", amount, days) for amount, days in self.budgets),
                    )
                    if name in (model, "")
                )
                for model, most, least in other.model_budgets
            )
            and all(
                any(amount <= most and days >= least for amount, days in self.budgets)
                for most, least in other.budgets
            )
            and self.until <= other.until
        )


@dataclass(frozen=True)
class Right:
    """A role that one may act in: whose, where, until when."""

    principal: str
    role: str
    scope: str
    until: datetime


def holdings(
    connection: Connection, secret_ids: Collection[str], *, now: datetime
) -> tuple[set[Element], set[Right]]:
    """Return what these secrets give together: each by itself, and the rights of those that administer."""
    elements: set[Element] = set()
    rights: set[Right] = set()
    for row in _rows(connection, secret_ids, now=now):
        end = _end(row)
        owners = _owners(connection, row)
        elements.add(_element(row, owners, _limits_of(row), until=end))
        if not row["administers"]:
            continue
        if row["may_issue"]:
            bounds = json.loads(row["may_issue"])
            life = bounds.get("duration")
            until = now + timedelta(days=_days(life)) if life else EVER
            elements.add(
                _element(row, owners, {**_limits_of(row), **_issuable(bounds)}, until=until)
            )
        rights |= set(_rights(connection, row, end))
    return elements, rights


def _rows(
    connection: Connection, secret_ids: Collection[str], *, now: datetime
) -> Iterator[Mapping[str, Any]]:
    query = text(
        "SELECT s.id AS secret_id, s.administers, s.not_after, s.state, k.* FROM secrets s"
        " JOIN keys k ON k.id = s.key_id"
        " WHERE s.id = :id AND s.state <> 'revoked' AND k.deleted_at IS NULL"
    )
    for secret_id in sorted(secret_ids):
        for row in connection.execute(query, {"id": secret_id}).mappings():
            # Who blocked it may let it in again, unless it was an admin.
            if row["blocked_by_admin"] or _end(row) <= now:
                continue
            yield dict(row)


def _end(row: Mapping[Any, Any]) -> datetime:
    ends = [_moment(row[name]) for name in ("not_after", "expires") if row[name] is not None]
    return min(ends, default=EVER)


def _moment(value: Any) -> datetime:
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    return moment.replace(tzinfo=None)


def _owners(connection: Connection, row: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    found: dict[str, Mapping[str, Any]] = {}
    for kind, table in (("user", "users"), ("team", "teams"), ("organization", "organizations")):
        owner_id = row[f"{kind}_id"]
        if owner_id is not None:
            query = text(f"SELECT * FROM {table} WHERE id = :id")
            found[kind] = dict(connection.execute(query, {"id": owner_id}).mappings().one())
    return found


def _limits_of(row: Mapping[str, Any]) -> dict[str, Any]:
    gateway = json.loads(row["gateway"])
    return {
        "models": json.loads(row["models"]),
        "allowed_routes": json.loads(row["allowed_routes"]),
        "key_type": row["key_type"],
        **{name: row[name] for name in NUMBERS},
        "types": {name: row[f"{name}_type"] for name in ("rpm_limit", "tpm_limit")},
        "maps": {
            **{name: json.loads(row[name]) for name in MAPS},
            **{name: gateway.get(name) or {} for name in GATEWAY_MAPS},
        },
        "lists": [gateway.get(name) for name in GATEWAY_LISTS],
        "kept": [
            *(f"{name}:{item}" for name in KEPT for item in json.loads(row[name])),
            *(f"{name}:{item}" for name in GATEWAY_KEPT for item in gateway.get(name) or []),
        ],
        "model_budgets": json.loads(row["model_max_budget"]),
        "max_budget": None if row["max_budget"] is None else row["max_budget"] / 10**9,
        "budget_duration": row["budget_duration"],
        "windows": json.loads(row["budget_limits"]),
    }


def _issuable(bounds: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "models": bounds.get("models") or [],
        # A bound that is not set bounds nothing, as with the upper bounds of a policy.
        "allowed_routes": bounds.get("allowed_routes") or list(ROUTES),
        "key_type": "default",
        **{name: bounds.get(name) for name in NUMBERS},
        "max_budget": bounds.get("max_budget"),
        "budget_duration": bounds.get("budget_duration"),
        "windows": [],
        "types": {},
        "maps": {},
        "lists": [None for _ in GATEWAY_LISTS],
        "model_budgets": {},
    }


def _element(
    row: Mapping[str, Any],
    owners: Mapping[str, Mapping[str, Any]],
    limits: Mapping[str, Any],
    *,
    until: datetime,
) -> Element:
    lists = [limits["models"], *(json.loads(owner["models"]) for owner in owners.values())]
    models = {
        model
        for model in MODELS
        if all(not listed or any(fnmatchcase(model, name) for name in listed) for listed in lists)
    }
    routes = OF_TYPE.get(limits["key_type"], set(ROUTES))
    if listed := limits["allowed_routes"]:
        groups = {
            "llm_api_routes": "llm_api",
            "management_routes": "management",
            "info_routes": "read_only",
        }
        routes = set()
        for entry in listed:
            routes |= OF_TYPE[groups[entry]] if entry in groups else {entry} & set(ROUTES)
    budgets = [
        (float(amount), _days(period))
        for amount, period in (
            (limits["max_budget"], limits["budget_duration"]),
            *((window["max_budget"], window["budget_duration"]) for window in limits["windows"]),
        )
        if amount is not None
    ]
    caps = {
        name: float(limits[name])
        for name in NUMBERS
        if limits[name] is not None and limits["types"].get(name) != "dynamic"
    }
    for name, entries in limits["maps"].items():
        caps |= {f"{name}:{entry}": float(most) for entry, most in entries.items()}
    return Element(
        name=f"{row['secret_id']} of {row['id']} ({row['key_alias']})",
        purses=frozenset(
            f"{kind}:{owner['id']}"
            for kind, owner in owners.items()
            if owner["max_budget"] is not None or owner["rpm_limit"] is not None
        ),
        models=frozenset(models),
        routes=frozenset(routes),
        caps=tuple(sorted(caps.items())),
        kept=frozenset(limits["kept"]),
        lists=tuple(frozenset(listed) if listed else None for listed in limits["lists"]),
        model_budgets=tuple(
            (model, float(entry["max_budget"]), _days(entry.get("budget_duration")))
            for model, entry in sorted(limits["model_budgets"].items())
        ),
        budgets=tuple(sorted(budgets)),
        until=until,
    )


def _days(period: str | None) -> float:
    if period is None:
        return float("inf")
    return int(period[:-1]) * DAYS[period[-1]]


def _rights(connection: Connection, row: Mapping[str, Any], end: datetime) -> Iterator[Right]:
    user_id = row["user_id"]
    if user_id is None:
        if row["service_account"]:
            yield Right(row["id"], "service_account", f"team_id:{row['team_id']}", end)
        return
    user = connection.execute(text("SELECT role FROM users WHERE id = :id"), {"id": user_id}).one()
    yield Right(user_id, user.role, "everywhere", end)
    for table, column in (("team_members", "team_id"), ("organization_members", "organization_id")):
        query = text(f"SELECT {column} AS place, role FROM {table} WHERE user_id = :id")
        for place, role in connection.execute(query, {"id": user_id}):
            # A plain membership gives nothing that the secret's own limits do not bound.
            if role not in ("user", "internal_user"):
                yield Right(user_id, role, f"{column}:{place}", end)


def escaped(
    now_held: tuple[set[Element], set[Right]], at_start: tuple[set[Element], set[Right]]
) -> list[Element | Right]:
    """Return what is held now and lies below nothing that was held at the start."""
    elements, rights = now_held
    found: list[Element | Right] = [
        item for item in elements if not any(item.lies_below(other) for other in at_start[0])
    ]
    found += [
        right for right in rights if not any(_is_within(right, other) for other in at_start[1])
    ]
    return found


def _is_within(right: Right, other: Right) -> bool:
    """Tell whether *right* is *other*, or one that who holds *other* may give within it."""
    if right.until > other.until:
        return False
    if (right.principal, right.role, right.scope) == (other.principal, other.role, other.scope):
        return True
    if other.role == "org_admin":  # gives every role within the organization
        return right.scope in WITHIN[other.scope]
    # Who administers a team makes service accounts for it.
    return right.role == "service_account" and other.scope == right.scope and other.role == "admin"
