"""A small world to judge keys in: organization acme with team web, and people with every role."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from types import MappingProxyType
from typing import Any

from keyctl.config.document import read
from keyctl.fields import validate
from keyctl.policy.facts import Caller
from keyctl.records import Organization, Principal, Team, User
from keyctl.requests import GenerateRequest
from keyctl.services.authorize.verdict import Judgement
from keyctl.services.directory import DirectoryService
from keyctl.services.issue.generate import GenerateService
from keyctl.services.issue.order import Order
from keyctl.services.members import MemberService
from keyctl.services.rotate.one import RotateOrder, RotateService
from keyctl.services.workspace import Workspace
from keyctl.sinks.base import Parcel, Target

KINDS: dict[str, tuple[type[Principal], str]] = {
    "organization": (Organization, "acme"),
    "team": (Team, "web"),
    "user": (User, "ada"),
}
# ada is a plain member of web, tina its admin, olga admin of acme; eve belongs to nothing.
CALLERS = {
    "local": Caller(actor="local:tester@host", role="proxy_admin"),
    "proxy_admin": Caller(actor="key:admin", role="proxy_admin", user_id="root"),
    "org_admin": Caller(
        actor="key:olga",
        role="internal_user",
        user_id="olga",
        organization_roles={"acme": "org_admin"},
    ),
    "team_admin": Caller(
        actor="key:tina", role="internal_user", user_id="tina", team_roles={"web": "admin"}
    ),
    "internal_user": Caller(
        actor="key:ada",
        role="internal_user",
        user_id="ada",
        team_roles={"web": "user"},
        organization_roles={"acme": "internal_user"},
    ),
    "service_account": Caller(actor="key:robot", role=None, service_team="web"),
    "internal_user_viewer": Caller(
        actor="key:vera", role="internal_user_viewer", user_id="vera", team_roles={"web": "user"}
    ),
    "proxy_admin_viewer": Caller(actor="key:victor", role="proxy_admin_viewer", user_id="victor"),
    "nobody": Caller(actor="key:nobody", role=None),
}


class Hand:
    """A sink in memory."""

    name = "hand"
    timeout = timedelta(0)
    shows_answer = True

    def __init__(self) -> None:
        self.held = ""

    def check(self, target: Target) -> None:
        """Accept every key."""

    def deliver(self, parcel: Parcel) -> None:
        """Take the key string."""
        self.held = parcel.key.reveal()


class World:
    """Requests for keys, judged with everything around them."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        directory = DirectoryService(workspace)
        members = MemberService(workspace)
        directory.create(Organization, "acme", {})
        directory.create(Organization, "other", {})
        directory.create(Team, "web", {"organization_id": "acme"})
        directory.create(Team, "else", {})
        for user in ("root", "ada", "tina", "olga", "eve", "vera", "victor"):
            directory.create(User, user, {})
        for user, role in (("ada", "user"), ("tina", "admin"), ("vera", "user")):
            members.add(Team, "web", user, role)
        members.add(Organization, "acme", "ada", "internal_user")
        members.add(Organization, "acme", "olga", "org_admin")

    def change(self, changes: Mapping[str, Mapping[str, Any]]) -> None:
        """Set columns of the team, organization or user, or fields of the configuration."""
        for name, values in changes.items():
            if name == "settings":
                settings = read({"bcrypt_cost": 4, **values})
                self.workspace = replace(self.workspace, settings=settings)
            else:
                kind, object_id = KINDS[name]
                DirectoryService(self.workspace).update(kind, object_id, values)

    def acting(self, caller: Caller) -> Workspace:
        """Return what services work with when *caller* acts."""
        return replace(self.workspace, caller=caller)

    def verdict(
        self, request: Mapping[str, Any], caller: Caller | None = None, **order: Any
    ) -> Judgement:
        """Return the whole verdict on a request, which is not carried out."""
        return GenerateService(self.acting(caller or CALLERS["local"])).dry_run(
            order_of(request, order)
        )

    def make(
        self,
        request: Mapping[str, Any],
        caller: Caller | None = None,
        *,
        hand: "Hand | None" = None,
        **order: Any,
    ) -> str:
        """Carry a request out, hand over the key string and return the key's id."""
        service = GenerateService(self.acting(caller or CALLERS["local"]))
        return str(service.generate(order_of(request, order), hand or Hand()).answer["key_id"])

    def rotate(self, given: str, hand: "Hand") -> None:
        """Give a key a new secret."""
        RotateService(self.workspace).rotate(RotateOrder(given=given), hand)


def order_of(request: Mapping[str, Any], order: Mapping[str, Any] = MappingProxyType({})) -> Order:
    """Return an order for a key with these fields."""
    return Order(
        request=validate(GenerateRequest, request, what="the request", schema="generate-request"),
        **order,
    )
