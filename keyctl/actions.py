"""Name the actions that the audit trail records, and say which of them a hook asked for.  Pure."""

from collections.abc import Iterable
from functools import cache
from typing import Final

_OBJECTS: Final = ("team", "user", "organization")

# What people are told in time: nothing was changed.
REMINDERS: Final = (
    "key_expiring",
    "key_expired",
    "rotation_overdue",
    "budget_soft_exceeded",
    "budget_exceeded",
    "budget_at_percent",
)
# Every action of the audit trail, under LiteLLM's name where it has one.  A test holds the code to it.
ACTIONS: Final = frozenset(
    {
        "budget_reset",
        "access_group_written",
        "audit_accept_denied",
        "audit_read_denied",
        "budget_reset_denied",
        *(f"budget_{done}" for done in ("created", "updated", "deleted")),
        *(f"budget_{verb}_denied" for verb in ("create", "update", "delete")),
        "caller_denied",
        "configuration_read_denied",
        "database_backup_denied",
        "database_move_aborted",
        "database_move_begun",
        "database_move_denied",
        "database_moved",
        "database_prune_denied",
        "database_read_denied",
        "database_repair_denied",
        "database_upgrade_denied",
        "event_deliver_denied",
        "event_discard_denied",
        "event_read_denied",
        "event_retry_denied",
        "event_discarded",
        "fleet_apply_denied",
        "fleet_drifted",
        "fleet_read_denied",
        "grace_ended",
        "key_archived",
        "key_block_denied",
        "key_blocked",
        "key_delete_denied",
        "key_deleted",
        "key_denied",
        "key_generated",
        "key_import_denied",
        "key_pruned",
        "key_read_denied",
        "key_imported",
        "key_revoke_denied",
        "key_rotate_denied",
        "key_rotated",
        "key_rotation_failed",
        "key_rotation_staged",
        "key_sink_suspect",
        "key_spend_changed",
        "key_spend_denied",
        *(f"{word}_spend_changed" for word in _OBJECTS),
        "key_staged",
        "key_unblock_denied",
        "key_unblocked",
        "key_update_denied",
        "key_updated",
        "reminder_denied",
        "rule_overridden",
        *REMINDERS,
        "secret_administers_changed",
        "secret_changed",
        "secret_revoked",
        "secrets_pruned",
        "state_recorded",
        *(
            f"{word}_{done}"
            for word in _OBJECTS
            for done in ("created", "imported", "updated", "deleted")
        ),
        *(
            f"{word}_{verb}_denied"
            for word in _OBJECTS
            for verb in ("create", "update", "delete", "read")
        ),
        *(
            f"{word}_member_{done}"
            for word in ("team", "organization")
            for done in ("added", "imported", "updated", "removed")
        ),
        *(
            f"{word}_member_{verb}_denied"
            for word in ("team", "organization")
            for verb in ("add", "remove")
        ),
        "team_member_update_denied",
    }
)
# What stands for every refusal: until 1.0 the refusals of the directory were recorded under this name.
DENIED: Final = "denied"
# What a hook gets that does not say which: the changes of a key that LiteLLM tells about, and reminders.
USUAL: Final = (
    *REMINDERS,
    "key_generated",
    "key_updated",
    "key_rotated",
    "key_deleted",
    "key_blocked",
    "key_unblocked",
)


@cache
def matching(pattern: str) -> frozenset[str]:
    """Return the actions that *pattern* means: one by its name, or all that begin so for ``name*``.

    ``denied`` means every refusal.
    """
    if pattern == DENIED:
        return frozenset({DENIED, *(name for name in ACTIONS if name.endswith("_denied"))})
    if pattern.endswith("*"):
        return frozenset(name for name in ACTIONS if name.startswith(pattern[:-1]))
    return ACTIONS & {pattern}


def is_wanted(action: str, patterns: Iterable[str]) -> bool:
    """Tell whether one of *patterns* means *action*."""
    return any(action in matching(pattern) for pattern in patterns)
