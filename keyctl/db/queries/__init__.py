"""Ask the database; each function is named after the question of a service.

A module is imported when one of its questions is first asked: a command pays for those that it asks.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from keyctl.db.queries.access_groups import (
        find_groups as find_groups,
        write_group as write_group,
    )
    from keyctl.db.queries.budgets import (
        add_spend as add_spend,
        budgets_due as budgets_due,
        count_budgets_due as count_budgets_due,
    )
    from keyctl.db.queries.claims import (
        RequestId as RequestId,
        delete_claim as delete_claim,
        find_claim as find_claim,
        find_request_id as find_request_id,
        forget_request_ids as forget_request_ids,
        insert_claim as insert_claim,
        insert_request_id as insert_request_id,
        keys_claimed_by as keys_claimed_by,
        release_claim as release_claim,
        release_claims as release_claims,
        renew_claim as renew_claim,
        runs_with_claims as runs_with_claims,
        take_over as take_over,
    )
    from keyctl.db.queries.foreign import (
        owners_with_policy as owners_with_policy,
        unreadable_rows as unreadable_rows,
    )
    from keyctl.db.queries.keys import (
        confirm_keys as confirm_keys,
        find_key as find_key,
        find_key_by_alias as find_key_by_alias,
        find_keys as find_keys,
        find_last_deleted as find_last_deleted,
        ids_by_alias as ids_by_alias,
        insert_key as insert_key,
        insert_like as insert_like,
        keys_by_alias as keys_by_alias,
        keys_named as keys_named,
        keys_of_team as keys_of_team,
        keys_with_earlier_routes as keys_with_earlier_routes,
        lock_keys as lock_keys,
        managed_keys as managed_keys,
        pending_keys as pending_keys,
        unfinished_keys as unfinished_keys,
        update_key as update_key,
        update_keys as update_keys,
    )
    from keyctl.db.queries.leases import (
        Lease as Lease,
        forget_leases as forget_leases,
        keep_leases as keep_leases,
        leases_of as leases_of,
        mark_unsettled as mark_unsettled,
        settle_leases_that_are_over as settle_leases_that_are_over,
        write_leases as write_leases,
    )
    from keyctl.db.queries.listing import (
        Allocation as Allocation,
        KeyFilter as KeyFilter,
        allocations as allocations,
        count_keys_due as count_keys_due,
        keys_beginning as keys_beginning,
        keys_due as keys_due,
        keys_with_suspect_sink as keys_with_suspect_sink,
        list_fields as list_fields,
        list_keys as list_keys,
        lock_allocations as lock_allocations,
    )
    from keyctl.db.queries.outbox import (
        Outgoing as Outgoing,
        claim_outgoing as claim_outgoing,
        count_outgoing as count_outgoing,
        delete_outgoing as delete_outgoing,
        find_outgoing as find_outgoing,
        forget_delivered as forget_delivered,
        hasten_outgoing as hasten_outgoing,
        insert_outgoing as insert_outgoing,
        list_outgoing as list_outgoing,
        outgoing_due as outgoing_due,
        outgoing_runs as outgoing_runs,
        release_outgoing as release_outgoing,
        settle_outgoing as settle_outgoing,
        sink_of_last_rotation as sink_of_last_rotation,
        sinks_of_rotations as sinks_of_rotations,
    )
    from keyctl.db.queries.presented import (
        find_all_presented as find_all_presented,
        find_presented as find_presented,
        find_presented_secret as find_presented_secret,
    )
    from keyctl.db.queries.provider_objects import (
        Address as Address,
        charge_object as charge_object,
        charged_to as charged_to,
        find_object as find_object,
        keep_object as keep_object,
    )
    from keyctl.db.queries.purses import (
        Balance as Balance,
        begin_meter as begin_meter,
        find_meters as find_meters,
        lock_purses as lock_purses,
        spend_more as spend_more,
    )
    from keyctl.db.queries.secrets import (
        bound_secrets as bound_secrets,
        count_issued as count_issued,
        count_working_issued as count_working_issued,
        delete_secret as delete_secret,
        find_secret as find_secret,
        find_secret_by_lookup as find_secret_by_lookup,
        insert_secret as insert_secret,
        keys_kept_for as keys_kept_for,
        keys_left_by as keys_left_by,
        let_administer as let_administer,
        readable_secrets_of as readable_secrets_of,
        retire_abandoned as retire_abandoned,
        revoke_secrets as revoke_secrets,
        secrets_by_id as secrets_by_id,
        secrets_by_lookup as secrets_by_lookup,
        secrets_of as secrets_of,
        secrets_past_grace as secrets_past_grace,
        secrets_that_lost_their_right as secrets_that_lost_their_right,
        update_secret as update_secret,
    )
    from keyctl.db.queries.usage import (
        Usage as Usage,
        forget_recorders as forget_recorders,
        record_usage as record_usage,
    )
    from keyctl.db.queries.visible import (
        Visible as Visible,
    )

# Which module answers which question; a test holds the imports above to it.
_MODULES: Final = {
    "access_groups": (
        "find_groups",
        "write_group",
    ),
    "budgets": (
        "add_spend",
        "budgets_due",
        "count_budgets_due",
    ),
    "claims": (
        "RequestId",
        "delete_claim",
        "find_claim",
        "find_request_id",
        "forget_request_ids",
        "insert_claim",
        "insert_request_id",
        "keys_claimed_by",
        "release_claim",
        "release_claims",
        "renew_claim",
        "runs_with_claims",
        "take_over",
    ),
    "foreign": (
        "owners_with_policy",
        "unreadable_rows",
    ),
    "keys": (
        "confirm_keys",
        "find_key",
        "find_key_by_alias",
        "find_keys",
        "find_last_deleted",
        "ids_by_alias",
        "insert_key",
        "insert_like",
        "keys_by_alias",
        "keys_named",
        "keys_of_team",
        "keys_with_earlier_routes",
        "lock_keys",
        "managed_keys",
        "pending_keys",
        "unfinished_keys",
        "update_key",
        "update_keys",
    ),
    "leases": (
        "Lease",
        "forget_leases",
        "keep_leases",
        "leases_of",
        "mark_unsettled",
        "settle_leases_that_are_over",
        "write_leases",
    ),
    "listing": (
        "Allocation",
        "KeyFilter",
        "allocations",
        "count_keys_due",
        "keys_beginning",
        "keys_due",
        "keys_with_suspect_sink",
        "list_fields",
        "list_keys",
        "lock_allocations",
    ),
    "outbox": (
        "Outgoing",
        "claim_outgoing",
        "count_outgoing",
        "delete_outgoing",
        "find_outgoing",
        "forget_delivered",
        "hasten_outgoing",
        "insert_outgoing",
        "list_outgoing",
        "outgoing_due",
        "outgoing_runs",
        "release_outgoing",
        "settle_outgoing",
        "sink_of_last_rotation",
        "sinks_of_rotations",
    ),
    "presented": (
        "find_all_presented",
        "find_presented",
        "find_presented_secret",
    ),
    "provider_objects": (
        "Address",
        "charge_object",
        "charged_to",
        "find_object",
        "keep_object",
    ),
    "purses": (
        "Balance",
        "begin_meter",
        "find_meters",
        "lock_purses",
        "spend_more",
    ),
    "secrets": (
        "bound_secrets",
        "count_issued",
        "count_working_issued",
        "delete_secret",
        "find_secret",
        "find_secret_by_lookup",
        "insert_secret",
        "keys_kept_for",
        "keys_left_by",
        "let_administer",
        "readable_secrets_of",
        "retire_abandoned",
        "revoke_secrets",
        "secrets_by_id",
        "secrets_by_lookup",
        "secrets_of",
        "secrets_past_grace",
        "secrets_that_lost_their_right",
        "update_secret",
    ),
    "usage": (
        "Usage",
        "forget_recorders",
        "record_usage",
    ),
    "visible": ("Visible",),
}
_HOMES: Final = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import the module of a name that is asked for the first time, as PEP 562 has it."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = found
    return found
