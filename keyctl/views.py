"""Make the answers: LiteLLM's names, no hashes, money as exact numbers.  Pure."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from keyctl import lifecycle, money
from keyctl.records import Key, Member, Organization, Principal, Secret, Team, Tier, User

MEMBER_LIMITS: Final = ("max_budget", "budget_duration", "rpm_limit", "tpm_limit", "budget_id")
MONEY: Final = ("max_budget", "soft_budget", "spend")
# Kept in the row, but nobody's business or shown under another name.
_INTERNAL: Final = ("id", "gateway", "deleted_at", "confirmed_at", "budget_anchor_at")


def key_view(key: Key, *, now: datetime, public_id: str | None = None) -> dict[str, Any]:
    """Return a key under its response names: `key_id`, `token` and `token_id` are its id.

    `key_name` is the public part of its newest secret, as logs show it.
    """
    view = names_view(key.id, public_id)
    view["state"] = lifecycle.key_state(key, now=now)
    for name, value in key.columns().items():
        if name not in _INTERNAL:
            view[name] = dollars(name, value)
    view["deleted_at"] = key.deleted_at
    view.update(key.gateway)
    return view


def changes(before: Key, after: Key, *, now: datetime) -> dict[str, dict[str, Any]]:
    """Return each field that differs, under its response name, with what it was and what it is."""
    old, new = key_view(before, now=now), key_view(after, now=now)
    return {
        name: {"before": old.get(name), "after": new.get(name)}
        for name in {**old, **new}
        if old.get(name) != new.get(name) and name not in ("updated_at", "updated_by")
    }


def plain_fields() -> frozenset[str]:
    """Return the fields of a key that are its columns, or its id and state, and nothing else's."""
    return frozenset({"key_id", "state", *Key.names()} - set(_INTERNAL))


def names_view(key_id: str, public_id: str | None) -> dict[str, Any]:
    """Return the names that a key goes by."""
    return {
        "key_id": key_id,
        "token": key_id,
        "token_id": key_id,
        "key_name": None if public_id is None else f"sk-{public_id}…",
    }


def secret_view(secret: Secret, *, now: datetime) -> dict[str, Any]:
    """Return one secret of a key: its public id and what has become of it."""
    return {
        "id": secret.id,
        "state": lifecycle.secret_state(secret, now=now),
        "created_at": secret.created_at,
        "not_after": secret.not_after,
        "administers": secret.administers,
        "issued_by": secret.issued_by,
    }


def info_view(key: Key, secrets: Sequence[Secret], *, now: datetime) -> dict[str, Any]:
    """Return a key with its secrets, the newest first."""
    newest = secrets[0].id if secrets else None
    return {
        **key_view(key, now=now, public_id=newest),
        "secrets": [secret_view(secret, now=now) for secret in secrets],
    }


def principal_view(record: Principal, *, members: dict[str, str] | None = None) -> dict[str, Any]:
    """Return an organization, a user or a team under LiteLLM's names."""
    named = {Team: "team", User: "user", Organization: "organization"}[type(record)]
    view: dict[str, Any] = {f"{named}_id": record.id}
    for name, value in record.columns().items():
        if name in ("id", "name", "deleted_at", "budget_anchor_at"):
            continue
        view[{"email": "user_email", "role": "user_role"}.get(name, name)] = dollars(name, value)
    if isinstance(record, (Team, Organization)):
        view[f"{named}_alias"] = record.name
    if members is not None:
        view["members_with_roles"] = [
            {"user_id": user_id, "role": role} for user_id, role in members.items()
        ]
    return view


def event_view(event: dict[str, Any]) -> dict[str, Any]:
    """Return an audit event with money as numbers; on record it is text, so that its hash is exact."""
    return {
        **event,
        "before": _with_numbers(event["before"]),
        "after": _with_numbers(event["after"]),
    }


def _with_numbers(document: Any) -> Any:
    if not isinstance(document, dict):
        return document
    return {
        name: _number(value) if name in MONEY or name == "amount" else value
        for name, value in document.items()
    }


def _number(value: Any) -> Any:
    try:
        return Decimal(value) if isinstance(value, str) else value
    except InvalidOperation:
        return value  # not what keyctl wrote: the reader should see what is there


def member_view(member: Member, *, spend: int) -> dict[str, Any]:
    """Return a member with its limits in its team, and what it has spent of its budget there."""
    view: dict[str, Any] = {"user_id": member.user_id, "role": member.role}
    for name in MEMBER_LIMITS:
        view[name] = dollars(name, getattr(member, name))
    return {**view, "spend": money.dollars(spend)}


def tier_view(tier: Tier) -> dict[str, Any]:
    """Return a budget tier under LiteLLM's names."""
    view: dict[str, Any] = {"budget_id": tier.id}
    for name, value in tier.columns().items():
        if name not in ("id", "deleted_at", "budget_anchor_at"):
            view[name] = dollars(name, value)
    return view


def dollars(name: str, value: Any) -> Any:
    """Return *value*, in dollars if the column *name* holds money."""
    return money.dollars(value) if name in MONEY and value is not None else value
