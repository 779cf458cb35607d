"""What a coalition of callers holds, computed from the rows alone: no code of keyctl decides here.

An element is what one held secret gives: the purses that bound it, the models and routes that it
reaches, numbers, what it keeps, budgets, and until when.  One lies below another if it is no more in
any of these.  Elements never combine.
"""

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any

from sqlalchemy import Connection, text

MODELS = ("gpt-4o", "gpt-4", "o1", "o3")
MANAGEMENT = frozenset({"/key/generate", "/key/info", "/team/new", "/team/member_add"})
ROUTES = ("/v1/chat/completions", "/v1/files", *sorted(MANAGEMENT))
OF_TYPE = {
    "default": {"/v1/chat/completions", *MANAGEMENT},
    "llm_api": {"/v1/chat/completions", "/v1/files"},
    "management": {*MANAGEMENT},
    "read_only": {"/key/info"},
}
NUMBERS = ("rpm_limit", "tpm_limit", "tpd_limit", "max_parallel_requests")
MAPS = ("model_rpm_limit", "model_tpm_limit")
GATEWAY_MAPS = ("mcp_rpm_limit", "tag_rpm_limit")
KEPT = ("guardrails", "tags")
GATEWAY_KEPT = ("policies", "enforced_params", "denied_passthrough_routes")
GATEWAY_LISTS = (
    "prompts",
    "allowed_cache_controls",
    "allowed_passthrough_routes",
    "allowed_vector_store_indexes",
)
# Teams that no caller of the coalition administers: who does holds all that the team holds.
SHUT = ("shut",)
EVER = datetime(9999, 1, 1)  # noqa: DTZ001  # compared as the database keeps them
EVERYTHING = float("inf")
TABLES = {"user": "users", "team": "teams", "organization": "organizations"}
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
    lists: tuple[tuple[str, frozenset[str]], ...]  # what is not named is open
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
                name in dict(self.lists) and dict(self.lists)[name] <= most
                for name, most in other.lists
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
    """A role that one may act in: whose, where, by which routes, until when."""

    principal: str
    role: str
    scope: str
    routes: frozenset[str]
    until: datetime


Authority = tuple[set[Element], set[Right]]
# Tells by a key's row whether the coalition reads the place where its next string is delivered.
Reads = Callable[[Mapping[str, Any]], bool]


def reads_nothing(_: Mapping[str, Any]) -> bool:
    """Read no sink."""
    return False


def holdings(
    connection: Connection,
    secret_ids: Collection[str],
    *,
    now: datetime,
    reads: Reads = reads_nothing,
) -> Authority:
    """Return what these secrets give together: each by itself, and the rights of those that administer.

    A key whose next string is delivered where the coalition *reads* is held too.
    """
    elements: set[Element] = set()
    rights: set[Right] = set()
    owners = owners_in(connection)
    for row in _rows(connection, secret_ids, now=now, reads=reads):
        end = _end(row)
        limits = _limits_of(row)
        own = _element(row, owners, limits, until=end)
        elements.add(own)
        if not row["administers"]:
            continue
        routes = own.routes & MANAGEMENT
        if not routes:
            continue
        if row["may_issue"]:
            bounds = json.loads(row["may_issue"])
            life = bounds.get("duration")
            until = _later(end, life) if life else EVER
            issuable = {**limits, **_issuable(bounds)}
            elements.add(_element(row, owners, issuable, until=until))
        rights |= set(_rights(owners, row, routes, end))
    return elements, rights


def _later(end: datetime, life: str) -> datetime:
    """Return until when what is issued at the last moment lives."""
    return EVER if end == EVER else end + timedelta(days=_days(life))


def _rows(
    connection: Connection, secret_ids: Collection[str], *, now: datetime, reads: Reads
) -> Iterator[dict[str, Any]]:
    query = text(
        "SELECT s.id AS secret_id, s.administers, s.not_after, s.state, k.* FROM secrets s"
        " JOIN keys k ON k.id = s.key_id"
        " WHERE s.state <> 'revoked' AND k.deleted_at IS NULL ORDER BY s.id"
    )
    for found in connection.execute(query).mappings():
        row = dict(found)
        if row["secret_id"] not in secret_ids:
            if row["state"] != "active" or not reads(row):
                continue
            # What is delivered next lives as long as the key.
            row["not_after"] = row["expires"]
        # Who blocked it may let it in again, unless it was an admin.
        if not row["blocked_by_admin"] and _end(row) > now:
            yield row


def _end(row: Mapping[Any, Any]) -> datetime:
    ends = [moment(row[name]) for name in ("not_after", "expires") if row[name] is not None]
    return min(ends, default=EVER)


def moment(value: Any) -> datetime:
    """Return an instant of a row as the databases keep it: without its zone."""
    found = datetime.fromisoformat(value) if isinstance(value, str) else value
    return found.replace(tzinfo=None)


@dataclass(frozen=True)
class Owners:
    """Every team, user and organization, and who is a member of what."""

    rows: Mapping[tuple[str, str], Mapping[str, Any]]
    members: Sequence[Mapping[str, Any]]

    def of(self, row: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
        """Return the owners of the key in *row* by their kinds."""
        return {
            kind: self.rows[kind, row[f"{kind}_id"]]
            for kind in TABLES
            if row[f"{kind}_id"] is not None
        }

    def purses(self, row: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
        """Return the rows that limit a key together with others, by their names."""
        found = {
            f"{kind}:{owner['id']}": owner
            for kind, owner in self.of(row).items()
            if owner["max_budget"] is not None
            or owner["rpm_limit"] is not None
            or any(owner.get(name) is not None for name in ("tpd_limit", "max_parallel_requests"))
            or json.loads(owner.get("budget_limits") or "[]")
            or json.loads(owner.get("model_max_budget") or "{}")
        }
        for member in self.members:
            team, user = member.get("team_id"), member["user_id"]
            is_theirs = (team, user) == (row["team_id"], row["user_id"])
            if team in SHUT and is_theirs and member["max_budget"] is not None:
                found[f"member:{team}/{user}"] = member
        return found


def owners_in(connection: Connection) -> Owners:
    """Return who owns keys."""
    rows = {
        (kind, row["id"]): dict(row)
        for kind, table in TABLES.items()
        for row in connection.execute(text(f"SELECT * FROM {table}")).mappings()
    }
    members = [
        dict(row)
        for table in ("team_members", "organization_members")
        for row in connection.execute(text(f"SELECT * FROM {table}")).mappings()
    ]
    return Owners(rows, members)


def _limits_of(row: Mapping[str, Any]) -> dict[str, Any]:
    gateway = json.loads(row["gateway"])
    permitted = gateway.get("object_permission") or {}
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
        "lists": {
            **{name: gateway.get(name) for name in GATEWAY_LISTS},
            **{name: listed for name, listed in permitted.items() if name != "blocked_tools"},
        },
        "kept": [
            *(f"blocked_tools:{item}" for item in permitted.get("blocked_tools") or []),
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
        "lists": {},
        "model_budgets": {},
    }


def _element(
    row: Mapping[str, Any],
    owners: Owners,
    limits: Mapping[str, Any],
    *,
    until: datetime,
) -> Element:
    lists = [limits["models"], *(json.loads(owner["models"]) for owner in owners.of(row).values())]
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
        purses=frozenset(owners.purses(row)),
        models=frozenset(models),
        routes=frozenset(routes),
        caps=tuple(sorted(caps.items())),
        kept=frozenset(limits["kept"]),
        lists=tuple(
            (name, frozenset(json.dumps(item, sort_keys=True) for item in listed))
            for name, listed in sorted(limits["lists"].items())
            if listed
        ),
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


def _rights(
    owners: Owners, row: Mapping[str, Any], routes: frozenset[str], end: datetime
) -> Iterator[Right]:
    user_id = row["user_id"]
    if user_id is None:
        if row["service_account"]:
            yield Right(row["id"], "service_account", f"team_id:{row['team_id']}", routes, end)
        return
    yield Right(user_id, owners.rows["user", user_id]["role"], "everywhere", routes, end)
    for member in owners.members:
        # A plain membership gives nothing that the secret's own limits do not bound.
        if member["user_id"] != user_id or member["role"] in ("user", "internal_user"):
            continue
        column = "team_id" if "team_id" in member else "organization_id"
        yield Right(user_id, member["role"], f"{column}:{member[column]}", routes, end)


def escaped(now_held: Authority, at_start: Authority) -> list[Element | Right]:
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
    if right.until > other.until or not right.routes <= other.routes:
        return False
    if (right.principal, right.role, right.scope) == (other.principal, other.role, other.scope):
        return True
    if other.role == "org_admin":  # gives every role within the organization
        return right.scope in WITHIN.get(other.scope, (other.scope,))
    # Who administers a team makes service accounts for it.
    return right.role == "service_account" and other.scope == right.scope and other.role == "admin"
