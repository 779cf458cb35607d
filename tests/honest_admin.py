"""The same closed world with an honest admin, who acts between the coalition's steps.

What an act of the admin gives by design is added to what was held at the start, and nothing else:

- a key that was asked for and made: what that one secret gives
- a key that is widened: what its held secrets give then
- a role above a plain member's: that role, for each secret by which its user may act
- a member who leaves or joins without limits: the same as before, without the member's own purse

Cron's rotations and resets, rotations after an incident, blocks and plain memberships give nothing.
"""

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from closed_world import Authority, holdings
from coalition import Coalition
from coalition_world import LIMITS, PEOPLE, TEAMS, reads
from holders import Into
from hypothesis import strategies as st
from hypothesis.stateful import rule
from world import Hand

from keyctl.fields import parse_grace
from keyctl.records import Organization, Team
from keyctl.services.budgets import BudgetService
from keyctl.services.members import MemberService

_OF_RIGHTS = {"may_issue", "key_type", "allowed_routes", "expires", "duration"}
COALITION = ("tina", "ada", "olga", "cilla", "sam", "otto", "noel")


class WithAnHonestAdmin(Coalition):
    """An admin who rotates, resets, grants, adds, removes and blocks, as they are asked to."""

    def give(self, given: Authority) -> None:
        """Add what an act of the admin gave by design."""
        self.start = (self.start[0] | given[0], self.start[1] | given[1])

    def secrets(self, secret_ids: Collection[str], *, of: str | None = None) -> Authority:
        """Return what these secrets give now, and what the next one of that key will, where they read it."""
        database = self.world.workspace.database
        with database.engine.connect() as connection:
            now = database.now(connection).replace(tzinfo=None)
            return holdings(
                connection, secret_ids, now=now, reads=lambda row: row["id"] == of and reads(row)
            )

    @rule()
    def cron(self) -> None:
        """Rotate what is due, and begin the budget periods that are due."""
        self.attempt("cron: rotate --due", lambda: self.run_due(self.local.workspace))
        reset = BudgetService(self.local.workspace).reset_due
        self.attempt("cron: budget reset --due", lambda: list(reset()))

    @rule(data=st.data(), limits=st.sampled_from(LIMITS), user=st.sampled_from(COALITION))
    def approve(self, data: Any, limits: dict[str, Any], user: str) -> None:
        """Make a key that somebody asked for, and hand it over."""
        body = {name: value for name, value in limits.items() if value is not None}
        body["user_id"] = user
        if data.draw(st.booleans()):
            body["team_id"] = data.draw(st.sampled_from(TEAMS))
        made = self.attempt(f"admin: generate {body}", lambda: self.local.generate(body))
        if made is not None:
            self.give(self.secrets([str(made.key_string)[3:15]]))

    @rule(data=st.data(), grace=st.sampled_from(("none", "1h")), to_sink=st.booleans())
    def rotate_after_an_incident(self, data: Any, grace: str, to_sink: bool) -> None:
        """Rotate a key, into the admin's own hand or to its sink."""
        key = str(data.draw(st.sampled_from(self.keys)))
        row = self.row(key)
        hand: Hand = Into(row["sink"]) if to_sink and row["sink"] else Hand()

        def act() -> Any:
            taken = self.local.rotate(key, hand, grace=parse_grace(grace))
            return taken if isinstance(hand, Into) and reads(row) else None

        self.attempt(f"admin: rotate {key} to {hand.name}", act)

    @rule(data=st.data(), limits=st.sampled_from(LIMITS))
    def widen(self, data: Any, limits: dict[str, Any]) -> None:
        """Change a key that somebody of them holds."""
        key = str(data.draw(st.sampled_from([held.key_id for held in self.held])))
        if limits and self.attempt(
            f"admin: update {key} {limits}", lambda: self.local.update(key, limits)
        ):
            ids = [str(held.key_string)[3:15] for held in self.held if held.key_id == key]
            elements, rights = self.secrets(ids, of=key)
            # What says as whom one may act, and until when: an admin may give more of that too.
            self.give((elements, rights if _OF_RIGHTS & limits.keys() else set()))

    @rule(
        data=st.data(),
        user=st.sampled_from(PEOPLE),
        place=st.sampled_from(((Team, "web"), (Team, "shut"), (Organization, "other"))),
    )
    def join(self, data: Any, user: str, place: tuple[Any, str]) -> None:
        """Make somebody a member, rarely one above a plain member."""
        kind, object_id = place
        above = data.draw(st.integers(0, 3)) == 0
        role = {Team: ("user", "admin"), Organization: ("internal_user", "org_admin")}[kind][above]
        members = MemberService(self.local.workspace)

        joined = self.attempt(
            f"admin: add {user} to {object_id} as {role}",
            lambda: members.add(kind, object_id, user, role, keys="keep"),
        )
        if joined is not None and kind is Team:
            self.free_of_own_purse(user, object_id)
        if joined is not None and above:
            column = {Team: "team_id", Organization: "organization_id"}[kind]
            given = {
                replace(right, role=role, scope=f"{column}:{object_id}")
                for right in self.start[1]
                if right.principal == user and right.scope == "everywhere"
            }
            self.give((set(), given))

    @rule(user=st.sampled_from(PEOPLE), keys=st.sampled_from(("block", "delete", "keep")))
    def leave(self, user: str, keys: Any) -> None:
        """End a membership."""
        members = MemberService(self.local.workspace)
        for team in TEAMS:
            left = self.attempt(
                f"admin: remove {user} from {team}, {keys}",
                lambda team=team: members.remove(Team, team, user, keys=keys),  # type: ignore[misc]
            )
            if left is not None:
                self.free_of_own_purse(user, team)

    def free_of_own_purse(self, user: str, team: str) -> None:
        """Let what was held lie without the user's own purse in that team, too: keys that are kept."""
        own = {f"member:{team}/{user}"}
        self.give(({replace(each, purses=each.purses - own) for each in self.start[0]}, set()))

    @rule(data=st.data(), verb=st.sampled_from(("block", "unblock")))
    def suspend(self, data: Any, verb: str) -> None:
        """Block a key, or let it in again."""
        key = str(data.draw(st.sampled_from(self.keys)))
        self.attempt(f"admin: {verb} {key}", lambda: self.local.end(verb, key))
