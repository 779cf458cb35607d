"""The small organization in which a coalition acts: who is in it, what they were given, what they read."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

from holders import Held, Holder, operator
from world import World

from keyctl import money
from keyctl.records import Organization, Team, User
from keyctl.services.directory import DirectoryService
from keyctl.services.members import MemberService

GRANTS: Final = {
    "create_member_keys": True,
    "team_member_permissions": [
        "/key/generate",
        "/key/service-account/generate",
        "/key/update",
        "/key/regenerate",
        "/key/delete",
        "/key/info",
        "/key/list",
    ],
}
# Of these mia, eve and root are none of them.
PEOPLE: Final = ("tina", "ada", "olga", "mia", "eve", "root", "cilla", "sam", "otto", "noel")
TEAMS: Final = ("web", "free", "shut")
LIMITS: Final[tuple[dict[str, Any], ...]] = (
    {},
    {"models": ["gpt-4*"]},
    {"models": ["gpt-4o", "o1"]},
    {"models": ["o3"]},
    {"models": []},
    {"duration": "1h"},
    {"duration": "9d"},
    {"duration": "30d"},
    {"expires": None},
    {"rpm_limit": 3},
    {"rpm_limit": 50, "rpm_limit_type": "dynamic"},
    {"tpm_limit": 9, "max_parallel_requests": 1},
    {"rpm_limit": None},
    {"max_budget": 2, "models": ["o3"], "duration": "9d"},
    {"max_budget": 5},
    {"max_budget": 5, "budget_duration": "30d"},
    {"max_budget": 5, "budget_duration": "1s"},
    {"max_budget": 50},
    {"max_budget": None},
    {"budget_limits": [{"max_budget": 1, "budget_duration": "1d"}]},
    {"guardrails": ["pii"]},
    {"guardrails": []},
    {"tags": ["a"], "key_type": "management"},
    {"key_type": "llm_api"},
    {"key_type": "read_only"},
    {"key_type": "default"},
    {"allowed_routes": ["/v1/files"]},
    {"may_issue": {"duration": "90d"}},
    {"tpd_limit": 5, "prompts": ["p"], "enforced_params": ["user"]},
    {"object_permission": {"mcp_servers": ["a", "b"]}},
    {"object_permission": None, "allowed_vector_store_indexes": None},
    {"allowed_vector_store_indexes": [{"index_name": "i", "index_permissions": ["write"]}]},
    {"key_alias": "app"},
    {"key_alias": "spare"},
    {"auto_rotate": True, "rotation_interval": "1d"},
)
PLACES: Final[tuple[dict[str, Any], ...]] = (
    {},
    {"team_id": "web"},
    {"team_id": "free"},
    {"team_id": "shut"},
    {"team_id": None},
    {"organization_id": "acme"},
    {"organization_id": "other"},
    {"organization_id": None},
)


@dataclass
class Start:
    """What they hold at the start, and the ids of all keys there are."""

    held: list[Held]
    keys: list[str]


def reads(row: Mapping[str, Any]) -> bool:
    """Tell whether they read the place where the next string of the key in *row* is delivered.

    That is all of the sink `shelf`, which is the default one too, and of `files` what is called `app`.
    """
    sink = row["sink"] or ("shelf" if row["auto_rotate"] else None)
    return sink == "shelf" or (sink == "files" and row["key_alias"] == "app")


def furnish(world: World) -> tuple[Holder, Start]:
    """Fill the world, and return the local operator and what the coalition was given."""
    folder = world.workspace.runs_folder / uuid4().hex
    paths = {"vault": "{key_id}", "shelf": "{key_id}", "files": "{alias}"}
    for name in paths:
        (folder / name).mkdir(parents=True)
    sinks = {
        name: {"type": "file", "path": f"{folder}/{name}/{path}"} for name, path in paths.items()
    }
    limits = {"policy": GRANTS, "max_budget": 100 * money.NANO, "models": ["gpt-4*", "o1"]}
    whole = {"max_budget": 45 * money.NANO, "budget_duration": "5d"}
    settings = {"sinks": sinks, "default_sink": "shelf"}
    world.change({"organization": whole, "team": limits, "settings": settings})
    _people(DirectoryService(world.workspace), MemberService(world.workspace))
    local = operator(world)
    held = [local.generate(request, **how) for request, how in _GIVEN]
    others = [
        local.generate({"user_id": user, "team_id": "web"}, sink="vault")
        for user in ("mia", "root")
    ]
    others += [
        local.generate({"user_id": "mia", "team_id": "web"}),
        local.generate({"user_id": "eve"}),
        local.generate({"user_id": "sam", "team_id": "shut", "key_alias": "rich"}, sink="files"),
        local.generate({"user_id": "ada", "duration": "90d"}, sink="files"),
    ]
    held.append(local.generate({"team_id": "web", "rpm_limit": 7}, service_account=True))
    return local, Start(held, [key.key_id for key in (*held, *others)])


def _people(directory: DirectoryService, members: MemberService) -> None:
    directory.update(User, "root", {"role": "proxy_admin"})
    directory.create(User, "mia", {"max_budget": 500 * money.NANO})
    directory.create(User, "sam", {"max_budget": 30 * money.NANO, "budget_duration": "7d"})
    for user in ("cilla", "otto", "noel"):
        directory.create(User, user, {})
    directory.create(Team, "free", {"policy": GRANTS})
    directory.create(
        Team,
        "shut",
        {"policy": GRANTS, "budget_limits": [{"max_budget": 40, "budget_duration": "2d"}]},
    )
    members.add(Team, "free", "tina", "admin")
    members.add(Team, "shut", "sam", "user")
    members.update("shut", "sam", {"max_budget": 8 * money.NANO, "budget_duration": "1d"})
    directory.update(Organization, "other", {"max_budget": 12 * money.NANO})
    members.add(Organization, "other", "otto", "org_admin")
    for user in ("mia", "root"):
        members.add(Organization, "acme", user, "internal_user")
        members.add(Team, "web", user, "user")


_CI: Final = {"key_type": "management", "models": ["no-default-models"]}
_GIVEN: Final[tuple[tuple[dict[str, Any], dict[str, Any]], ...]] = (
    ({"user_id": "tina", "team_id": "web", "rpm_limit": 10, "duration": "60d"}, {}),
    (
        {"user_id": "tina", "max_budget": 10, "budget_duration": "30d", "models": ["gpt-4*"]},
        {},
    ),
    ({"user_id": "ada", "team_id": "web", "models": ["gpt-4o"], "guardrails": ["pii"]}, {}),
    ({"user_id": "ada", "key_type": "management", "duration": "7d", "rpm_limit": 1}, {}),
    (
        {
            **_CI,
            "user_id": "ada",
            "duration": "30d",
            "may_issue": {"duration": "45d", "models": ["o1"], "max_budget": 5, "max_keys": 5},
        },
        {},
    ),
    (
        {
            **_CI,
            "user_id": "cilla",
            "duration": "20d",
            "may_issue": {"duration": "10d", "models": ["o3"], "max_budget": 2, "max_keys": 2},
        },
        {},
    ),
    ({"user_id": "olga", "tpm_limit": 100, "models": ["o1", "o3"], "max_budget": 20}, {}),
    ({"user_id": "ada", "allowed_routes": ["/v1/chat/completions"]}, {}),
    ({"user_id": "otto", "key_type": "llm_api", "models": ["o1"], "tpm_limit": 3}, {}),
    ({"user_id": "otto", "organization_id": "other", "models": ["gpt-4"], "rpm_limit": 5}, {}),
    (
        {"user_id": "sam", "team_id": "shut", "models": ["gpt-4"], "key_alias": "app"},
        {"sink": "files"},
    ),
    (
        {
            "user_id": "noel",
            "models": ["o1"],
            "rpm_limit": 2,
            "duration": "3d",
            "auto_rotate": True,
            "rotation_interval": "1d",
            "object_permission": {"mcp_servers": ["a"], "blocked_tools": ["t"]},
            "allowed_vector_store_indexes": [{"index_name": "i", "index_permissions": ["read"]}],
            "allowed_passthrough_routes": ["/x"],
        },
        {"sink": "shelf"},
    ),
)
