"""Map one row of LiteLLM's key table to the request for the same key.  Pure."""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, TypeVar

from keyctl import durations
from keyctl.errors import MalformedRequestError, UnmappableRowError
from keyctl.fields import validate
from keyctl.litellm.inventory import LOGGING, refuse_restricted
from keyctl.litellm.spending import budget_of, limits, period, spending
from keyctl.litellm.values import (
    Row,
    instant,
    length,
    pick,
    without_empty,
)
from keyctl.policy.models import INHERIT
from keyctl.policy.resolve import ROUTES_OF_TYPE
from keyctl.requests import GenerateRequest, ObjectPermission

T = TypeVar("T")

# The team of LiteLLM's own sessions in its web interface: they end within hours.
SESSIONS: Final = "litellm-dashboard"
_DIGEST = re.compile(r"[0-9a-f]{64}")
# Fields of a request that LiteLLM keeps inside `metadata`.
_LIFTED: Final = (
    "allowed_passthrough_routes",
    "allowed_vector_store_indexes",
    "default_estimated_output_tokens",
    "default_estimated_output_tokens_per_model",
    "denied_passthrough_routes",
    "disable_global_guardrails",
    "enable_prompt_caching",
    "enforced_params",
    "guardrails",
    "mcp_rpm_limit",
    "model_rpm_limit",
    "model_tpm_limit",
    "prompts",
    "rpm_limit_type",
    "tag_rpm_limit",
    "tags",
    "throttle_on_budget_exceeded",
    "tpm_limit_type",
)
_SAME: Final = (
    "aliases",
    "allowed_cache_controls",
    "budget_fallbacks",
    "key_alias",
    "max_parallel_requests",
    "models",
    "organization_id",
    "permissions",
    "router_settings",
    "team_id",
    "user_id",
)
_SERVICE_ACCOUNT: Final = "service_account_id"


@dataclass(frozen=True, slots=True, kw_only=True)
class OlderString:
    """The hash of an older key string that still works, and until when."""

    digest: str = field(repr=False)
    until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class MappedKey:
    """A key as a request would ask for it, and what only an import can bring along.

    `kept` are columns in place of those a new key begins with; `changes` say what means
    something else here.
    """

    request: GenerateRequest
    kept: dict[str, Any]
    service_account: bool
    changes: tuple[str, ...]
    grace: tuple[OlderString, ...]


def digest_of(row: Row) -> str:
    """Return the SHA-256 of the key string, by which LiteLLM names the row.

    Raises:
        UnmappableRowError: It is none, so no key string can be checked.  It is not repeated:
            where LiteLLM was told not to hash, it is the key string itself.
    """
    token = row.get("token")
    if not isinstance(token, str) or _DIGEST.fullmatch(token) is None:
        raise UnmappableRowError(
            "its token is not a SHA-256 in hex",
            hint="only keys that LiteLLM stored hashed can be imported",
        )
    return token


def map_key(row: Row, *, dropped: Collection[str] = ()) -> MappedKey:
    """Return the decoded *row* as a request; restrictions in *dropped* columns are left behind.

    Raises:
        UnmappableRowError, MalformedRequestError: It has no equal here.
    """
    changes: list[str] = []
    refuse_restricted("key", row, dropped)
    metadata = row.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise UnmappableRowError("metadata is not an object")
    budget = budget_of(row)
    document = {
        **pick(row, _SAME),
        **pick(metadata, _LIFTED),
        **limits(row, budget),
        **spending(row, budget, changes),
        **_routes(row, changes),
        **_rotation(row, changes),
        **_groups(row),
        "object_permission": _object_permission(row),
        "policies": _policies(row, metadata),
        "metadata": {
            name: value
            for name, value in metadata.items()
            if name not in (*_LIFTED, "policies", LOGGING)
        },
        "blocked": bool(row.get("blocked")) or None,
        "expires": row.get("expires"),
    }
    for name in ("model_rpm_limit", "model_tpm_limit", "mcp_rpm_limit", "tag_rpm_limit"):
        if isinstance(document.get(name), dict):
            document[name] = without_empty(document[name])
    request = without_misfits(
        without_empty(document),
        lambda fitting: validate(GenerateRequest, fitting, what="the row"),
        soft=("key_alias",),
        changes=changes,
    )
    kept = _kept(row, budget, auto_rotate=bool(request.auto_rotate))
    return MappedKey(
        request=request,
        kept={**kept, "expires": row.get("expires")},
        service_account=(
            bool(metadata.get(_SERVICE_ACCOUNT))
            and request.team_id is not None
            and request.user_id is None
        ),
        changes=tuple(changes),
        grace=tuple(
            OlderString(digest=digest_of(item), until=until)
            for item in row.get("grace", ())
            if (until := instant("revoke_at", item.get("revoke_at"))) is not None
        ),
    )


def without_misfits(
    document: Mapping[str, Any],
    check: Callable[[Mapping[str, Any]], T],
    *,
    soft: Collection[str],
    changes: list[str],
) -> T:
    """Return what *check* makes of *document*; *soft* fields that do not fit are left out and noted.

    Raises:
        MalformedRequestError: Another field does not fit.
    """
    try:
        return check(document)
    except MalformedRequestError as error:
        misfits = {item.field: item.message for item in error.violations}
        if not misfits.keys() <= set(soft):
            raise
        changes += [f"{name} {message}: left out" for name, message in misfits.items()]
        return check({name: value for name, value in document.items() if name not in misfits})


def _routes(row: Row, changes: list[str]) -> dict[str, Any]:
    """Return the routes in force: a key type that says otherwise has no effect in LiteLLM."""
    kind, routes = row.get("key_type"), row.get("allowed_routes") or []
    if kind in ROUTES_OF_TYPE and routes == ROUTES_OF_TYPE[kind]:
        return {"key_type": kind}
    if kind not in (None, "", "default"):
        changes.append("key_type does not imply allowed_routes there: left out")
    return {"allowed_routes": routes}


def _groups(row: Row) -> dict[str, Any]:
    """Return the groups of models: in LiteLLM they add to a list of models, and nothing to an empty one."""
    groups = row.get("access_group_ids")
    if not groups:
        return {}
    return {"access_group_ids": groups, "models": row.get("models") or [INHERIT]}


def _rotation(row: Row, changes: list[str]) -> dict[str, Any]:
    """Return both halves of automatic rotation, or neither; LiteLLM accepts one alone."""
    interval = length("rotation_interval", row.get("rotation_interval"), changes)
    if bool(row.get("auto_rotate")) != (interval is not None):
        changes.append("auto_rotate and rotation_interval are only set together: left out")
        return {}
    if interval in durations.WORDS:
        read = durations.period_length(interval).text
        changes.append(f"rotation_interval {interval!r} is read as {read}")
        interval = read
    return {} if interval is None else {"auto_rotate": True, "rotation_interval": interval}


def _policies(row: Row, metadata: Row) -> list[Any]:
    """Return the policies of the column and those of `metadata`, each once."""
    found = [*(row.get("policies") or ()), *_list("policies", metadata.get("policies"))]
    return [name for index, name in enumerate(found) if name not in found[:index]]


def _object_permission(row: Row) -> dict[str, Any] | None:
    """Return which tools and stores the key may use.

    Raises:
        UnmappableRowError: It limits something unknown.
    """
    found = row.get("object_permission")
    if not isinstance(found, dict):
        return None
    known = {name: value for name, value in found.items() if name != "object_permission_id"}
    permission = without_empty(known)
    strange = permission.keys() - ObjectPermission.model_fields.keys()
    if strange:
        raise UnmappableRowError(f"object_permission.{min(strange)} is not known here")
    return permission


def _kept(row: Row, budget: Row, *, auto_rotate: bool) -> dict[str, Any]:
    own = row if row.get("budget_duration") else budget
    kept = {
        "created_at": row.get("created_at"),
        "created_by": created_by(row),
        "last_used_at": row.get("last_active"),
        "last_rotation_at": row.get("last_rotation_at"),
        "rotation_count": _count("rotation_count", row.get("rotation_count")),
        "key_rotation_at": row.get("key_rotation_at") if auto_rotate else None,
        **period(own),
    }
    return without_empty(kept)


def created_by(row: Row) -> str | None:
    """Return who made it, marked as LiteLLM's word: an actor of keyctl is another thing."""
    name = row.get("created_by")
    return f"litellm:{name}"[:300] if isinstance(name, str) and name.isprintable() else None


def _count(name: str, value: Any) -> int:
    if value is None:
        return 0
    if not isinstance(value, int) or not 0 <= value < 2**31:
        raise UnmappableRowError(f"{name} is not a count")
    return value


def _list(name: str, value: Any) -> list[Any]:
    if value is not None and not isinstance(value, list):
        raise UnmappableRowError(f"{name} is not a list")
    return value or []
