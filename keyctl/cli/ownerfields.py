"""Make the options that set fields of teams, users, organizations and members, and the columns of their lists."""

from typing import Final

from keyctl.cli.command import FieldOption as F
from keyctl.cli.fields import USER_ROLES, USER_ROLES_MEAN
from keyctl.cli.tables import Column, Layout, pipe_only

_OWN: Final = (
    F("models", "--model", "list", "A model it may use; repeatable."),
    F("max_budget", "--max-budget", "money", "The most it may spend, in dollars."),
    F(
        "budget_duration",
        "--budget-duration",
        "text",
        "Spend starts again after this: 30d, monthly, …",
    ),
    F("tpm_limit", "--tpm-limit", "number", "Tokens per minute."),
    F("rpm_limit", "--rpm-limit", "number", "Requests per minute."),
    F("metadata", "--metadata", "pairs", "NAME=VALUE to keep with it; repeatable."),
    F("blocked", "--blocked/--not-blocked", "flag", "Whether its keys are refused."),
)
_OF_ALL: Final = (
    F("max_parallel_requests", "--max-parallel-requests", "number", "Requests at the same time."),
    F("tpd_limit", "--tpd-limit", "number", "Tokens per day."),
)
_PER_MODEL: Final = (
    F("model_tpm_limit", "--model-tpm-limit", "pairs", "MODEL=N, tokens per minute; repeatable."),
    F("model_rpm_limit", "--model-rpm-limit", "pairs", "MODEL=N, requests per minute; repeatable."),
)
FIELDS: Final = {
    "team": (
        F("name", "--name", "text", "A name for people."),
        F("organization_id", "--org", "text", "The organization it belongs to."),
        *_OF_ALL,
        *_OWN,
        *_PER_MODEL,
    ),
    "user": (
        F("email", "--email", "text", "Where to write."),
        F("role", "--role", "text", USER_ROLES_MEAN, USER_ROLES),
        F("budget_id", "--budget-id", "text", "A budget tier, whose limits hold besides its own."),
        *_OWN,
    ),
    "org": (F("name", "--name", "text", "A name for people."), *_OF_ALL, *_OWN, *_PER_MODEL),
}
ROLES: Final = {"team": ("admin", "user"), "org": ("org_admin", "internal_user")}
ROLES_MEAN: Final = {
    "team": "admin: administers the team's keys and members; user: has keys in the team.",
    "org": "org_admin: administers the organization's teams, keys and members; internal_user: belongs to it.",
}
MEMBER: Final = (
    F(
        "max_budget",
        "--max-budget",
        "money",
        "The most its keys in the team may spend together, in dollars.",
    ),
    F("budget_duration", "--budget-duration", "text", "That spend starts again after this."),
    F("rpm_limit", "--rpm-limit", "number", "Requests per minute of its keys in the team."),
    F("tpm_limit", "--tpm-limit", "number", "Tokens per minute of its keys in the team."),
    F("budget_id", "--budget-id", "text", "A budget tier, whose limits hold besides its own."),
    F("role", "--role", "text", ROLES_MEAN["team"], ROLES["team"]),
)
_LIMITS: Final = (
    Column("models"),
    Column("rpm_limit", "requests/min", "number"),
    Column("tpm_limit", "tokens/min", "number"),
    Column("budget_duration", "budget period"),
    Column("budget_reset_at", "budget starts again", "instant"),
    Column("created_at", "made", "instant"),
    Column("created_by", "made by"),
)
_STANDING: Final = (
    pipe_only("max_budget", "money"),
    Column("spend", "spent", "spent", rank=3),
    Column("blocked", kind="flag", rank=2),
)
LISTS: Final = {
    "team": Layout(
        "teams",
        (
            Column("team_id", "team", "id", rank=0),
            Column("team_alias", "name", rank=4),
            Column("organization_id", "organization", rank=5),
            *_STANDING,
        ),
        _LIMITS,
    ),
    "user": Layout(
        "users",
        (
            Column("user_id", "user", "id", rank=0),
            Column("user_email", "email", rank=5),
            Column("user_role", "role", rank=4),
            *_STANDING,
        ),
        _LIMITS,
    ),
    "org": Layout(
        "orgs",
        (
            Column("organization_id", "organization", "id", rank=0),
            Column("organization_alias", "name", rank=4),
            *_STANDING,
        ),
        _LIMITS,
    ),
}
