"""Make the options that set fields of a key, one for each field of LiteLLM's GenerateKeyRequest."""

from typing import Final

from keyctl.cli.command import FieldOption as F

LIMIT_TYPES: Final = ("guaranteed_throughput", "best_effort_throughput", "dynamic")
KEY_TYPES: Final = ("llm_api", "management", "read_only", "default")
_LIMIT_TYPES_MEAN: Final = (
    "guaranteed_throughput: a share of what the team and the organization have, refused where none is left;"
    " best_effort_throughput: a limit without a share; dynamic: it holds only while the model has errors."
)
_KEY_TYPES_MEAN: Final = (
    "llm_api: calls models, runs no commands; management: runs commands, calls no models;"
    " read_only: only looks at keys, owners and models; default: calls models, runs the commands that its"
    " owner's role may."
)
USER_ROLES_MEAN: Final = (
    "proxy_admin: may do all; proxy_admin_viewer: sees all, changes nothing; internal_user: has keys, makes"
    " its own; internal_user_viewer: sees its own, makes none; org_admin: as internal_user, until org"
    " add-member gives the role in an organization."
)
USER_ROLES: Final = (
    "proxy_admin",
    "proxy_admin_viewer",
    "org_admin",
    "internal_user",
    "internal_user_viewer",
)
SETTINGS: Final = (
    F("models", "--model", "list", "A model the key may use; repeatable."),
    F("models", "--models", "list", "Several models, with commas between them."),
    F("max_budget", "--max-budget", "money", "The most it may spend, in dollars."),
    F("soft_budget", "--soft-budget", "money", "Spending at which to warn, in dollars."),
    F(
        "budget_duration",
        "--budget-duration",
        "text",
        "Spend starts again after this: 30d, monthly, …",
    ),
    F("budget_id", "--budget-id", "text", "The budget tier whose limits it has, too."),
    F("duration", "--duration", "text", "How long it lives: 30d, 12h, 1mo, …"),
    F("expires", "--expires", "moment", "When it ends: 2030-01-31, 2030-01-31T12:00:00Z, 30d."),
    F("rpm_limit", "--rpm-limit", "number", "Requests per minute."),
    F("tpm_limit", "--tpm-limit", "number", "Tokens per minute."),
    F("tpd_limit", "--tpd-limit", "number", "Tokens per day."),
    F("max_parallel_requests", "--max-parallel-requests", "number", "Requests at the same time."),
    F("rpm_limit_type", "--rpm-limit-type", "text", _LIMIT_TYPES_MEAN, LIMIT_TYPES),
    F("tpm_limit_type", "--tpm-limit-type", "text", _LIMIT_TYPES_MEAN, LIMIT_TYPES),
    F("metadata", "--metadata", "pairs", "NAME=VALUE to keep with the key; repeatable."),
    F("tags", "--tag", "list", "A tag; repeatable."),
    F("guardrails", "--guardrail", "list", "A guardrail to apply; repeatable."),
    F("policies", "--policy-name", "list", "A gateway policy to apply; repeatable."),
    F("prompts", "--prompt", "list", "A prompt the key may use; repeatable."),
    F("permissions", "--permission", "scalars", "NAME=VALUE, true and false as such; repeatable."),
    F("allowed_routes", "--allowed-route", "list", "A route it may call; repeatable."),
    F("allowed_cache_controls", "--allowed-cache-control", "list", "A cache control; repeatable."),
    F("enforced_params", "--enforced-param", "list", "A parameter requests must have; repeatable."),
    F("key_type", "--key-type", "text", _KEY_TYPES_MEAN, KEY_TYPES),
    F("blocked", "--blocked/--not-blocked", "flag", "Make it blocked."),
    F("auto_rotate", "--auto-rotate/--no-auto-rotate", "flag", "Let rotate --due rotate it."),
    F("rotation_interval", "--rotation-interval", "text", "How often: 90d, …"),
    F(
        "grace_period",
        "--grace",
        "text",
        "How long an old secret lives after a rotation: 24h, none.",
    ),
    F("send_invite_email", "--send-invite-email/--no-invite-email", "flag", "Mail the owner."),
)

IDENTITY: Final = (
    F("key_alias", "--alias", "text", "A name for it, unique among live keys."),
    F("team_id", "--team", "text", "The team it belongs to."),
    F("user_id", "--user", "text", "Its owner."),
    F("organization_id", "--org", "text", "The organization it belongs to."),
)

SPEND: Final = F("spend", "--spend", "money", "Spent already, in dollars (admins).")
GENERATE: Final = (*IDENTITY, *SETTINGS, SPEND)
