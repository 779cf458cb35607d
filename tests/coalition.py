"""A coalition of callers without an admin, in a small organization, and everything that they try."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

from clock import Clock
from closed_world import MODELS, Authority, escaped, holdings
from coalition_world import LIMITS, PEOPLE, PLACES, TEAMS, furnish, reads
from holders import Held, Into
from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from ledger import Ledger, admitted
from sqlalchemy import text
from world import Hand, World

from keyctl.errors import KeyctlError
from keyctl.records import Organization, Team, User
from keyctl.services.directory import DirectoryService
from keyctl.services.members import MemberService
from keyctl.services.rotate.due import DueOrder, DueService
from keyctl.services.workspace import Workspace

# Who administers what; sam is a plain member of a team that none of them administers.
OVER: Mapping[str | None, tuple[str, ...]] = {
    "web": ("tina", "olga"),
    "free": ("tina",),
    "shut": ("sam",),
    "acme": ("olga",),
    "other": ("otto",),
}
ORGANIZATIONS = ((Organization, "acme"), (Organization, "other"))


class Coalition(RuleBasedStateMachine):
    """Callers of every role below an admin's, each with a key or two, and what they read of the sinks."""

    make: Callable[[], Workspace]
    clock: Clock

    def __init__(self) -> None:
        super().__init__()
        self.world = World(type(self).make())
        self.local, start = furnish(self.world)
        self.held: list[Held] = [*start.held]
        self.keys = [*start.keys]
        self.ledger = Ledger()
        with self.world.workspace.database.engine.connect() as connection:
            self.ledger.open(connection)
        self.start = self.authority()
        self.last = "the start"

    def authority(self) -> Authority:
        """Return what the coalition holds now."""
        ids = {str(held.key_string)[3:15] for held in self.held}
        database = self.world.workspace.database
        with database.engine.connect() as connection:
            now = database.now(connection).replace(tzinfo=None)
            return holdings(connection, ids, now=now, reads=reads)

    def attempt(self, what: str, action: Callable[[], Any]) -> Any:
        """Try something; what is taken is held from then on.  Return the answer, None if it was refused."""
        self.last = what
        try:
            answer = action()
        except KeyctlError as error:
            note(f"{what}: {error.message}")
            return None
        note(f"{what}: done")
        if isinstance(answer, Held) and answer.key_string:
            self.held.append(answer)
            self.keys.append(answer.key_id)
        return answer

    def holder(self, data: Any, place: str | None = None) -> Held:
        """Draw one of the key strings that are held, mostly of who administers *place*."""
        over = [held for held in self.held if held.answer.get("user_id") in OVER.get(place, ())]
        if over and data.draw(st.integers(0, 3)):
            return cast("Held", data.draw(st.sampled_from(over)))
        return cast("Held", data.draw(st.sampled_from(self.held)))

    def key(self, data: Any, holder: Held) -> str:
        """Draw a key: the holder's own, one of their team, another of the coalition, or any."""
        which = data.draw(st.integers(0, 5))
        if which <= 1:
            return holder.key_id
        if which == 2:
            return str(data.draw(st.sampled_from(self.keys)))
        if which == 3:
            team_id = self.row(holder.key_id)["team_id"]
            there = [key for key in self.keys if self.row(key)["team_id"] == team_id]
            return str(data.draw(st.sampled_from(there)))
        return str(data.draw(st.sampled_from([held.key_id for held in self.held])))

    @rule(data=st.data(), limits=st.sampled_from(LIMITS), more=st.sampled_from(LIMITS))
    def generate(self, data: Any, limits: dict[str, Any], more: dict[str, Any]) -> None:
        """Make a key for somebody, somewhere."""
        holder = self.holder(data)
        place = data.draw(st.sampled_from(PLACES))
        # Mostly for themselves and where they are: else all is refused for the same few reasons.
        if data.draw(st.integers(0, 2)):
            place = {"team_id": self.row(holder.key_id)["team_id"]}
        owner = None if data.draw(st.integers(0, 2)) else data.draw(st.sampled_from(PEOPLE))
        robot = owner is None and data.draw(st.integers(0, 5)) == 0
        more = more if data.draw(st.integers(0, 2)) == 0 else {}
        body = {**limits, **more, **place, **({"user_id": owner} if owner else {})}
        body = {name: value for name, value in body.items() if value is not None}
        made = self.attempt(
            f"generate {body} {robot}", lambda: holder.generate(body, service_account=robot)
        )
        if made is not None:
            self.ledger.issue(holder.key_id, made.key_id)

    @rule(
        data=st.data(),
        limits=st.sampled_from(LIMITS),
        more=st.sampled_from(LIMITS),
        place=st.sampled_from(PLACES),
    )
    def update(
        self, data: Any, limits: dict[str, Any], more: dict[str, Any], place: dict[str, Any]
    ) -> None:
        """Change a key, perhaps its team too."""
        more = more if data.draw(st.integers(0, 2)) == 0 else {}
        patched = {**limits, **more, **(place if data.draw(st.integers(0, 3)) == 0 else {})}
        if data.draw(st.integers(0, 9)) == 0:
            patched["user_id"] = data.draw(st.sampled_from(PEOPLE))
        holder = self.holder(data)
        key = self.key(data, holder)
        if patched:
            self.attempt(f"update {key} {patched}", lambda: holder.update(key, patched))

    @rule(
        data=st.data(),
        sink=st.sampled_from(("", "vault", "shelf", "files", "own")),
        raises=st.booleans(),
    )
    def rotate(self, data: Any, sink: str, raises: bool) -> None:
        """Rotate a key into the own hands, or to a sink, of which they read some places."""
        holder = self.holder(data)
        key = self.key(data, holder)
        row = self.row(key)
        name = (row["sink"] or "shelf") if sink == "own" else sink
        hand = Into(name) if name else Hand()

        def act() -> Any:
            taken = holder.rotate(key, hand, administers=raises)
            # What lies where nobody of them reads is not theirs.
            return taken if not name or reads({**row, "sink": name}) else None

        self.attempt(f"rotate {key} to {name or 'the own hand'}", act)

    @rule(data=st.data())
    def rotate_what_is_due(self, data: Any) -> None:
        """Let a caller do what cron does; the sinks that they read are theirs anyway."""
        holder = self.holder(data)
        self.attempt("rotate --due", lambda: self.run_due(holder.workspace))

    def run_due(self, workspace: Workspace) -> None:
        """Rotate what is due, and take what is delivered where they read."""
        lines = list(DueService(workspace).rotate_due(DueOrder()))
        for line in lines:
            row = self.row(line.key_id)
            if line.result == "rotated" and reads(row):
                sink: Any = self.world.workspace.settings.sinks[row["sink"] or "shelf"]
                names = {"key_id": row["id"], "alias": row["key_alias"]}
                string = Path(sink.path.format(**names)).read_text().strip()
                self.held.append(Held(self.world.workspace, string, {"key_id": row["id"]}))

    def row(self, key_id: str) -> Mapping[str, Any]:
        """Return the row of a key."""
        with self.world.workspace.database.engine.connect() as connection:
            query = text("SELECT * FROM keys WHERE id = :id")
            return dict(connection.execute(query, {"id": key_id}).mappings().one())

    @rule(data=st.data(), verb=st.sampled_from(("block", "unblock", "delete")))
    def end(self, data: Any, verb: str) -> None:
        """Block, unblock or delete a key."""
        holder = self.holder(data)
        key = self.key(data, holder)
        if verb != "delete" or data.draw(st.integers(0, 4)) == 0:
            self.attempt(f"{verb} {key}", lambda: holder.end(verb, key))

    @rule(
        data=st.data(),
        user=st.sampled_from(PEOPLE),
        place=st.sampled_from((*((Team, team) for team in TEAMS), *ORGANIZATIONS)),
        above=st.booleans(),
    )
    def add_member(self, data: Any, user: str, place: tuple[Any, str], above: bool) -> None:
        """Make somebody a member, or give a member another role."""
        kind, object_id = place
        role = {Team: ("user", "admin"), Organization: ("internal_user", "org_admin")}[kind][above]
        holder = self.holder(data, object_id)
        self.attempt(
            f"add {user} to {object_id} as {role}",
            lambda: MemberService(holder.workspace).add(kind, object_id, user, role, keys="keep"),
        )

    @rule(data=st.data(), user=st.sampled_from(PEOPLE), team=st.sampled_from(TEAMS))
    def change_members(self, data: Any, user: str, team: str) -> None:
        """Take somebody out of a team, or free a member of limits."""
        holder = self.holder(data, team)
        if data.draw(st.booleans()):
            self.attempt(
                f"free {user} in {team}",
                lambda: MemberService(holder.workspace).update(team, user, {"max_budget": None}),
            )
        else:
            self.attempt(
                f"remove {user} from {team}",
                lambda: MemberService(holder.workspace).remove(Team, team, user, keys="keep"),
            )

    @rule(
        data=st.data(),
        user=st.sampled_from(PEOPLE),
        kind=st.sampled_from((User, Team, Organization)),
        organization=st.sampled_from(("acme", "other")),
    )
    def change_the_directory(self, data: Any, user: str, kind: Any, organization: str) -> None:
        """Change what only admins may."""
        holder = self.holder(data, organization if kind is Organization else None)
        name = {User: user, Team: "web", Organization: organization}[kind]
        values: dict[str, Any] = (
            {"role": "proxy_admin"} if kind is User else {"max_budget": None, "models": []}
        )
        self.attempt(
            f"update {name}",
            lambda: DirectoryService(holder.workspace).update(kind, name, values),
        )

    @rule(data=st.data(), dollars=st.sampled_from((1, 3, 9)), times=st.integers(1, 4))
    def spend(self, data: Any, dollars: int, times: int) -> None:
        """Make requests that cost as much as was said before."""
        holder = self.holder(data)
        model = data.draw(st.sampled_from(MODELS))
        self.last = f"spend {times} times ${dollars} with {str(holder.key_string)[:15]} on {model}"
        engine, clock = self.world.workspace.database.engine, type(self).clock
        url, string = engine.url.render_as_string(hide_password=False), str(holder.key_string)
        for _ in range(times):
            if not admitted(url, string, dollars, clock=clock, model=model):
                note(f"{self.last}: refused")
                return
            note(f"{self.last}: done")
            now = clock().replace(tzinfo=None)
            with engine.connect() as connection:
                over = self.ledger.admit(connection, string[3:15], dollars, now=now)
            assert not over, (self.last, over)

    @rule(length=st.sampled_from((timedelta(hours=1), timedelta(hours=25), timedelta(days=3))))
    def wait(self, length: timedelta) -> None:
        """Let time pass: what ends, ends."""
        self.last = f"wait {length}"
        note(self.last)
        type(self).clock.advance(length)

    @invariant()
    def nobody_holds_more(self) -> None:
        """Each element lies below one element of the start."""
        found = escaped(self.authority(), self.start)
        assert not found, (self.last, found)
