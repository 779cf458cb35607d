"""A coalition of callers without an admin, in a small organization, and everything that they try."""

from collections.abc import Callable
from typing import Any

from closed_world import Element, Right, escaped, holdings
from holders import Held, Holder, ToVault, operator
from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from world import World

from keyctl import money
from keyctl.errors import KeyctlError
from keyctl.records import Organization, Team, User
from keyctl.services.directory import DirectoryService
from keyctl.services.members import MemberService
from keyctl.services.workspace import Workspace

GRANTS = {
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
PEOPLE = ("tina", "ada", "olga", "mia", "eve", "root")
LIMITS: tuple[dict[str, Any], ...] = (
    {},
    {"models": ["gpt-4*"]},
    {"models": ["gpt-4o", "o1"]},
    {"models": []},
    {"duration": "1h"},
    {"duration": "30d"},
    {"expires": None},
    {"rpm_limit": 3},
    {"rpm_limit": 50, "rpm_limit_type": "dynamic"},
    {"tpm_limit": 9, "max_parallel_requests": 1},
    {"rpm_limit": None},
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
)
PLACES: tuple[dict[str, Any], ...] = (
    {},
    {"team_id": "web"},
    {"team_id": "free"},
    {"team_id": None},
)


class Coalition(RuleBasedStateMachine):
    """tina administers team web, olga organization acme, ada is a plain member, and a robot is theirs."""

    make: Callable[[], Workspace]

    def __init__(self) -> None:
        super().__init__()
        self.world = World(type(self).make())
        sinks = {"vault": {"type": "file", "path": "/run/keys/{key_id}"}}
        self.world.change(
            {
                "team": {
                    "policy": GRANTS,
                    "max_budget": 100 * money.NANO,
                    "models": ["gpt-4*", "o1"],
                },
                "settings": {"sinks": sinks},
            }
        )
        self.local = operator(self.world)
        directory = DirectoryService(self.world.workspace)
        members = MemberService(self.world.workspace)
        directory.update(User, "root", {"role": "proxy_admin"})
        directory.create(User, "mia", {"max_budget": 500 * money.NANO})
        directory.create(Team, "free", {"policy": GRANTS})
        members.add(Team, "free", "tina", "admin")
        for user in ("mia", "root"):
            members.add(Organization, "acme", user, "internal_user")
            members.add(Team, "web", user, "user")
        others = [
            self.local.generate({"user_id": user, "team_id": "web"}, sink="vault")
            for user in ("mia", "root")
        ]
        others.append(self.local.generate({"user_id": "eve"}))
        starts: tuple[dict[str, Any], ...] = (
            {"user_id": "tina", "team_id": "web", "rpm_limit": 10, "duration": "60d"},
            {"user_id": "tina", "max_budget": 10, "budget_duration": "30d", "models": ["gpt-4*"]},
            {"user_id": "ada", "team_id": "web", "models": ["gpt-4o"], "guardrails": ["pii"]},
            {"user_id": "ada", "key_type": "management", "duration": "7d", "rpm_limit": 1},
            {
                "user_id": "ada",
                "key_type": "management",
                "duration": "30d",
                "models": ["no-default-models"],
                "may_issue": {"duration": "45d", "models": ["o1"], "max_budget": 5, "max_keys": 5},
            },
            {"user_id": "olga", "tpm_limit": 100, "models": ["o1", "o3"], "max_budget": 20},
            {"user_id": "ada", "allowed_routes": ["/v1/chat/completions"]},
        )
        self.held: list[Holder] = [self.local.generate(request) for request in starts]
        self.held.append(
            self.local.generate({"team_id": "web", "rpm_limit": 7}, service_account=True)
        )
        self.keys = [held.key_id for held in (*self.held, *others) if isinstance(held, Held)]
        self.start = self.authority()
        self.last = "the start"

    def authority(self) -> tuple[set[Element], set[Right]]:
        """Return what the coalition holds now."""
        ids = {str(held.key_string)[3:15] for held in self.held}
        database = self.world.workspace.database
        with database.engine.connect() as connection:
            now = database.now(connection).replace(tzinfo=None)
            return holdings(connection, ids, now=now)

    def attempt(self, what: str, action: Callable[[], Any]) -> None:
        """Try something; what is taken is held from then on."""
        self.last = what
        try:
            answer = action()
        except KeyctlError as error:
            note(f"{what}: {error.message}")
            return
        note(f"{what}: done")
        if isinstance(answer, Held) and answer.key_string:
            self.held.append(answer)
            self.keys.append(answer.key_id)

    def holder(self, data: Any) -> Holder:
        """Draw one of the key strings that are held."""
        holder: Holder = self.held[data.draw(st.integers(0, len(self.held) - 1))]
        return holder

    def key(self, data: Any) -> str:
        """Draw a key, of the coalition or of others."""
        return str(data.draw(st.sampled_from(self.keys)))

    @rule(data=st.data(), limits=st.sampled_from(LIMITS), more=st.sampled_from(LIMITS))
    def generate(self, data: Any, limits: dict[str, Any], more: dict[str, Any]) -> None:
        """Make a key for somebody, somewhere."""
        place = data.draw(st.sampled_from(PLACES))
        owner = data.draw(st.sampled_from((None, *PEOPLE)))
        robot = data.draw(st.booleans()) and owner is None
        body = {**limits, **more, **place, **({"user_id": owner} if owner else {})}
        body = {name: value for name, value in body.items() if value is not None}
        holder = self.holder(data)
        self.attempt(
            f"generate {body} {robot}", lambda: holder.generate(body, service_account=robot)
        )

    @rule(data=st.data(), limits=st.sampled_from(LIMITS), place=st.sampled_from(PLACES))
    def update(self, data: Any, limits: dict[str, Any], place: dict[str, Any]) -> None:
        """Change a key, perhaps its team too."""
        patch = {**limits, **(place if data.draw(st.booleans()) else {})}
        if data.draw(st.integers(0, 9)) == 0:
            patch["user_id"] = data.draw(st.sampled_from(PEOPLE))
        holder, key = self.holder(data), self.key(data)
        if patch:
            self.attempt(f"update {key} {patch}", lambda: holder.update(key, patch))

    @rule(data=st.data(), to_sink=st.booleans(), raises=st.booleans())
    def rotate(self, data: Any, to_sink: bool, raises: bool) -> None:
        """Rotate a key, into the own hands or to its sink, which nobody of them reads."""
        holder, key = self.holder(data), self.key(data)
        if to_sink:
            self.attempt(f"rotate {key} to its sink", lambda: holder.rotate(key, ToVault()).answer)
        else:
            self.attempt(f"rotate {key}", lambda: holder.rotate(key, administers=raises))

    @rule(data=st.data(), verb=st.sampled_from(("block", "unblock", "delete")))
    def end(self, data: Any, verb: str) -> None:
        """Block, unblock or delete a key."""
        holder, key = self.holder(data), self.key(data)
        if verb != "delete" or data.draw(st.integers(0, 4)) == 0:
            self.attempt(f"{verb} {key}", lambda: holder.end(verb, key))

    @rule(
        data=st.data(),
        user=st.sampled_from(PEOPLE),
        place=st.sampled_from(((Team, "web"), (Team, "free"), (Organization, "acme"))),
        above=st.booleans(),
    )
    def add_member(self, data: Any, user: str, place: tuple[Any, str], above: bool) -> None:
        """Make somebody a member, or give a member another role."""
        kind, object_id = place
        role = {Team: ("user", "admin"), Organization: ("internal_user", "org_admin")}[kind][above]
        holder = self.holder(data)
        self.attempt(
            f"add {user} to {object_id} as {role}",
            lambda: MemberService(holder.workspace).add(kind, object_id, user, role, keys="keep"),
        )

    @rule(
        data=st.data(),
        user=st.sampled_from(PEOPLE),
        kind=st.sampled_from((User, Team, Organization)),
    )
    def change_the_directory(self, data: Any, user: str, kind: Any) -> None:
        """Change what only admins may."""
        holder = self.holder(data)
        name = {User: user, Team: "web", Organization: "acme"}[kind]
        values: dict[str, Any] = (
            {"role": "proxy_admin"} if kind is User else {"max_budget": None, "models": []}
        )
        self.attempt(
            f"update {name}",
            lambda: DirectoryService(holder.workspace).update(kind, name, values),
        )

    @invariant()
    def nobody_holds_more(self) -> None:
        """Each element lies below one element of the start."""
        found = escaped(self.authority(), self.start)
        assert not found, (self.last, found)
