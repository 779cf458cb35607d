"""List which of LiteLLM's columns keyctl has a field for, and which of the others restrict a row.  Pure.

A column without a home is counted in the report.  One that restricts what a row may do refuses
it: what was limited there must not be unlimited here, unless the operator names the column.
"""

from collections.abc import Collection
from typing import Any, Final

from keyctl import nearest
from keyctl.errors import UnmappableRowError, UsageError
from keyctl.litellm.values import EMPTY, Row, names

# What of a linked budget row is taken over.
_BUDGET: Final = names(
    "budget_id max_budget tpm_limit rpm_limit budget_duration budget_reset_at created_at created_by"
    " updated_at updated_by"
)
# What becomes a tier here; it is left behind where it is named.
_IN_TIERS: Final = ("max_parallel_requests", "model_max_budget", "tpd_limit")
# Taken over, or replaced by what keyctl keeps in its place.
_HOUSED: Final[dict[str, frozenset[str]]] = {
    "key": names(
        "token key_name key_alias spend expires models aliases router_settings user_id team_id org_id"
        " organization_id permissions max_parallel_requests metadata blocked tpm_limit rpm_limit"
        " tpd_limit max_budget soft_budget budget_duration budget_reset_at allowed_cache_controls"
        " allowed_routes access_group_ids policies model_max_budget budget_fallbacks budget_id budget_limits"
        " created_at created_by updated_at updated_by settings_updated_at last_active"
        " rotation_count auto_rotate rotation_interval last_rotation_at key_rotation_at key_type"
        " soft_budget_cooldown object_permission_id litellm_budget_table object_permission grace"
        " user created_by_user"
    ),
    "user": names(
        "user_id user_role user_email max_budget spend models metadata tpm_limit"
        " rpm_limit budget_duration budget_reset_at created_at updated_at teams"
    )
    | {*_IN_TIERS},
    "team": names(
        "team_id team_alias organization_id admins members members_with_roles metadata max_budget"
        " spend models max_parallel_requests tpm_limit rpm_limit budget_duration budget_reset_at"
        " blocked created_at updated_at team_member_permissions limited_members default_member_budget"
        " access_group_ids budget_limits model_max_budget tpd_limit"
    ),
    "organization": names(
        "organization_id organization_alias budget_id metadata models spend created_at created_by"
        " updated_at updated_by litellm_budget_table members"
    ),
    "member": _BUDGET | {*_IN_TIERS},
}
_HOUSED_BUDGET: Final = {
    "key": _BUDGET | {"soft_budget", "tpd_limit", "model_max_budget"},
    "organization": _BUDGET | {*_IN_TIERS},
}
# Without a home, and a limit: its row is refused.
_CAPS: Final = (
    "metadata.batch_enqueued_token_limit",
    "metadata.max_batch_file_records",
    "metadata.max_batch_file_uploads_per_day",
    "metadata.max_file_downloads_per_minute",
)
RESTRICTING: Final[dict[str, tuple[str, ...]]] = {
    "key": (
        "agent_id",
        "project_id",
        "metadata.end_user_budget_id",
        *_CAPS,
    ),
    "user": ("object_permission_id", "policies"),
    "team": (
        "metadata.guardrails",
        "object_permission_id",
        "policies",
        *_CAPS,
    ),
    "organization": ("metadata.guardrails", "object_permission_id"),
    # What a member's budget row limits beyond what a member or a tier has here, and a row that is not there.
    "member": ("allowed_models", "budget_id"),
}
# Taken over, unless the operator names it.
_OF_OWNERS: Final[dict[str, tuple[str, ...]]] = {
    "team": ("budget_limits", "model_max_budget", "tpd_limit"),
    "organization": tuple(f"budget.{name}" for name in _IN_TIERS),
}
# Names a row that is taken over, and restricts if that is not there: a dump of keys lacks some.
_REFERENCES: Final[dict[str, dict[str, str]]] = {
    "key": {
        "budget_id": "litellm_budget_table",
        "object_permission_id": "object_permission",
    },
    "organization": {"budget_id": "litellm_budget_table"},
}
DROPPABLE: Final = tuple(
    sorted(
        f"{kind}.{column}"
        for table in (
            RESTRICTING,
            _REFERENCES,
            {"member": _IN_TIERS, "user": _IN_TIERS, **_OF_OWNERS},
        )
        for kind, columns in table.items()
        for column in columns
    )
)
# In `metadata`, where they would be inert here: counted.  `logging` names callbacks and holds
# their credentials, which belong neither into a key's row nor into its audit events.
LOGGING: Final = "logging"
# Whom a team's default budget limits there has it here as their own; who is added later has none.
_INERT: Final = (LOGGING, "team_member_budget_id", "temp_budget_increase", "temp_budget_expiry")
# What was counted over a life; nothing was counted where it is zero.
_STATISTICS: Final = ("total_spend", "model_spend")


def check_droppable(names: Collection[str]) -> None:
    """Refuse names that are not those of columns which can be dropped.

    Raises:
        UsageError: One of *names* is such a name.
    """
    for name in names:
        if name not in DROPPABLE:
            raise UsageError(
                f"there is no column {name!r} that refuses a row",
                hint=nearest.meant(
                    name, list(DROPPABLE), otherwise=f"--drop takes {', '.join(DROPPABLE)}"
                ),
            )


def lost(kind: str, row: Row, dropped: Collection[str] = ()) -> list[str]:
    """Return the columns of *row* that say something and have no home, as ``key.project_id``.

    What is *dropped* has none, whatever it is.
    """
    found = [
        f"{kind}.{name}"
        for name, value in row.items()
        if (name not in _HOUSED[kind] or f"{kind}.{name}" in dropped) and _says(name, value)
    ]
    restricting = RESTRICTING[kind]
    named = [name for name in restricting if "." in name and _says(name, _at(row, name))]
    found += [f"{kind}.{name}" for name in [*named, *_dangling(kind, row)]]
    metadata = row.get("metadata")
    if isinstance(metadata, dict):
        found += [f"{kind}.metadata.{name}" for name in _INERT if metadata.get(name) not in EMPTY]
    budget = row.get("litellm_budget_table")
    if isinstance(budget, dict):
        known = [*_HOUSED_BUDGET[kind], *(name.removeprefix("budget.") for name in named)]
        found += [
            f"{kind}.budget.{name}"
            for name, value in budget.items()
            if (name not in known or f"{kind}.budget.{name}" in dropped) and _says(name, value)
        ]
    return found


def refuse_restricted(kind: str, row: Row, dropped: Collection[str]) -> None:
    """Refuse a *row* with a restriction that has no home, unless its column is *dropped*.

    Raises:
        UnmappableRowError: It has one.
    """
    named = [name for name in RESTRICTING[kind] if _says(name, _at(row, name))]
    for name in [*named, *_dangling(kind, row)]:
        refuse_unless_dropped(f"{kind}.{name}", dropped)


def refuse_unless_dropped(column: str, dropped: Collection[str]) -> None:
    """Refuse a row for what its *column* says, unless the operator named it.

    Raises:
        UnmappableRowError: It is not among the *dropped*.
    """
    if column not in dropped:
        raise UnmappableRowError(
            f"{column} restricts it there and has no home here",
            hint=f"--drop {column} --reason TEXT imports it without that restriction",
        )


def _dangling(kind: str, row: Row) -> list[str]:
    """Return the columns that name a row which is not there: nobody knows what it limits."""
    references = _REFERENCES.get(kind, {}).items()
    return [
        column
        for column, name in references
        if row.get(column) and not isinstance(row.get(name), dict)
    ]


def _says(name: str, value: Any) -> bool:
    if name in _STATISTICS:
        return bool(value)
    return value is not False and value not in EMPTY


def _at(row: Row, path: str) -> Any:
    """Return the value at *path*: a column, or a name inside `metadata` or the budget row."""
    column, _, name = path.rpartition(".")
    if not column:
        return row.get(name)
    document = row.get("litellm_budget_table" if column == "budget" else column)
    return document.get(name) if isinstance(document, dict) else None
