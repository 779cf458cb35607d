"""Refusals on record: each once, under the command's own name."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from clock import Clock
from world import CALLERS, Hand, World

from keyctl.config.settings import Settings
from keyctl.errors import (
    CallerDeniedError,
    DeniedError,
    PolicyDeniedError,
    RestrictedError,
    Violation,
)
from keyctl.records import Organization, Principal, Team
from keyctl.requests import GenerateRequest
from keyctl.services import identity
from keyctl.services.audit import AuditService, EventFilter
from keyctl.services.budgets import BudgetService
from keyctl.services.denials import MOST_OF_A_KEY, record_restriction
from keyctl.services.directory import DirectoryService
from keyctl.services.events.sender import DeliverOrder
from keyctl.services.events.service import EventService
from keyctl.services.issue.generate import GenerateService
from keyctl.services.issue.generate_many import BulkService
from keyctl.services.issue.order import Order
from keyctl.services.keys.end import EndingService
from keyctl.services.keys.update import ChangeService
from keyctl.services.members import MemberService
from keyctl.services.owners import WORD
from keyctl.services.repair import CheckService
from keyctl.services.rotate.one import RotateOrder, RotateService
from keyctl.services.workspace import Workspace

pytestmark = pytest.mark.sqlite_mostly


@pytest.fixture(name="world")
def _world(workspace: Workspace) -> World:
    return World(workspace)


def denials(workspace: Workspace) -> list[tuple[str, str, str]]:
    """Return action, object type and object id of every refusal on record, the oldest first."""
    events, _ = AuditService(workspace).page(EventFilter(), limit=1000)
    return [
        (event["action"], event["object_type"], event["object_id"])
        for event in reversed(events)
        if event["action"].endswith("denied")
    ]


def order(**fields: Any) -> Order:
    """Return an order for a key with these fields."""
    return Order(request=GenerateRequest(**fields))


KEY_COMMANDS: Mapping[str, Callable[[Workspace, str], object]] = {
    "key_block_denied": lambda acting, key: EndingService(acting).block([key], blocked=True),
    "key_unblock_denied": lambda acting, key: EndingService(acting).block([key], blocked=False),
    "key_delete_denied": lambda acting, key: EndingService(acting).delete([key]),
    "key_revoke_denied": lambda acting, key: EndingService(acting).revoke(key, []),
    "key_update_denied": lambda acting, key: ChangeService(acting).update(key, {"tpm_limit": 1}),
    "key_rotate_denied": lambda acting, key: RotateService(acting).rotate(
        RotateOrder(given=key), Hand()
    ),
    "key_spend_denied": lambda acting, key: BudgetService(acting).reset(key),
}


def on_directory(verb: str, kind: type[Principal]) -> Callable[[Workspace], object]:
    """Return what has the directory create, update or delete a team, a user or an organization."""
    values: tuple[dict[str, Any], ...] = () if verb == "delete" else ({},)
    return lambda acting: getattr(DirectoryService(acting), verb)(kind, "x", *values)


ADMINS_ONLY: Mapping[str, Callable[[Workspace], object]] = {
    **{
        f"{word}_{verb}_denied": on_directory(verb, kind)
        for kind, word in WORD.items()
        for verb in ("create", "update", "delete")
    },
    "team_member_add_denied": lambda acting: MemberService(acting).add(Team, "web", "eve", "user"),
    "team_member_update_denied": lambda acting: MemberService(acting).update(
        "web", "tina", {}, role="user"
    ),
    "team_member_remove_denied": lambda acting: MemberService(acting).remove(Team, "web", "tina"),
    "organization_member_add_denied": lambda acting: MemberService(acting).add(
        Organization, "acme", "eve", "internal_user"
    ),
    "budget_reset_denied": lambda acting: list(BudgetService(acting).reset_due()),
    "event_deliver_denied": lambda acting: list(EventService(acting).deliver(DeliverOrder())),
    "database_repair_denied": lambda acting: CheckService(acting).repair(),
    "database_read_denied": lambda acting: CheckService(acting).check(),
    "audit_read_denied": lambda acting: AuditService(acting).head(),
    "event_read_denied": lambda acting: EventService(acting).page(
        standing="open", hook=None, after=None, limit=1
    ),
}


class TestOneEvent:
    @pytest.mark.parametrize("action", KEY_COMMANDS)
    def test_the_action_is_the_commands(self, world: World, action: str) -> None:
        """A viewer's refused change of their own key: one event, under the key's id."""
        key_id = world.make({"user_id": "vera", "key_alias": "own"})
        acting = world.acting(CALLERS["internal_user_viewer"])

        try:
            ended: Any = KEY_COMMANDS[action](acting, "own")
        except DeniedError:
            pass
        else:
            [item] = ended if isinstance(ended, list) else [ended]
            assert isinstance(item.error, PolicyDeniedError)

        assert denials(world.workspace) == [(action, "key", key_id)]

    @pytest.mark.parametrize("action", ADMINS_ONLY)
    def test_what_only_admins_may(self, world: World, action: str) -> None:
        """Refused commands on anything but keys leave one event each, too; so does reading."""
        with pytest.raises(DeniedError):
            ADMINS_ONLY[action](world.acting(CALLERS["internal_user"]))

        assert [item[0] for item in denials(world.workspace)] == [action]

    def test_a_refused_key_is_on_record_under_the_alias_it_asked_for(self, world: World) -> None:
        """One event for one command, whether a rule or the role refuses it."""
        world.change({"team": {"policy": {"require_expiry": True}}})

        with pytest.raises(PolicyDeniedError):
            GenerateService(world.workspace).generate(order(key_alias="ci", team_id="web"), Hand())

        assert denials(world.workspace) == [("key_denied", "key", "ci")]


class TestMany:
    def test_a_batch_that_is_refused_as_a_whole(self, world: World) -> None:
        """One event, under the template: no key was judged for itself."""
        world.change({"team": {"policy": {"require_expiry": True}}})

        with pytest.raises(PolicyDeniedError):
            BulkService(world.workspace).generate(
                order(key_alias="ci-{n}", team_id="web"), 3, lambda _: None
            )

        assert denials(world.workspace) == [("key_denied", "key", "ci-{n}")]

    def test_keys_that_are_refused_one_by_one(self, world: World) -> None:
        """One event for each of them, under its own alias; the others are made."""
        world.change({"team": {"policy": {"key_alias_pattern": "ci-[13]"}}})

        done, refused = BulkService(world.workspace).generate(
            order(key_alias="ci-{n}", team_id="web"), 4, lambda _: None
        )

        assert (done, refused) == (2, 2)
        assert denials(world.workspace) == [
            ("key_denied", "key", "ci-2"),
            ("key_denied", "key", "ci-4"),
        ]

    def test_a_hook_that_refuses_a_batch(
        self, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is asked once, and its no is one event, as for a single key."""
        module = f"hook_{uuid4().hex[:8]}"
        (tmp_path / f"{module}.py").write_text(
            "def decide(request, caller):\n    return {'decision': False, 'message': 'no'}\n"
        )
        monkeypatch.syspath_prepend(tmp_path)
        settings = Settings(bcrypt_cost=4, custom_key_generate=f"{module}:decide")

        with pytest.raises(PolicyDeniedError):
            BulkService(replace(world.workspace, settings=settings)).generate(
                order(key_alias="ci-{n}"), 2, lambda _: None
            )

        assert denials(world.workspace) == [("key_denied", "key", "ci-{n}")]


class TestStrangers:
    """Callers whose key does not authenticate."""

    def refused(self, workspace: Workspace, text: str) -> None:
        """Authenticate with *text*, in vain."""
        unknown = replace(workspace, caller=identity.stranger(changed_by=None))
        with pytest.raises(CallerDeniedError):
            identity.authenticated(unknown, text)

    def test_a_known_key_is_named(self, world: World) -> None:
        """A revoked key is on record as itself; its string is nowhere."""
        hand = Hand()
        GenerateService(world.workspace).generate(order(key_alias="gone"), hand)
        (ended,) = EndingService(world.workspace).delete(["gone"])

        self.refused(world.workspace, hand.held)

        assert denials(world.workspace) == [("caller_denied", "key", ended.key_id)]
        assert hand.held not in str(list(AuditService(world.workspace).export(EventFilter())))

    def test_an_unknown_key_is_named_by_its_public_id(self, world: World) -> None:
        """What has a public id is on record by it, what has none as nothing."""
        unknown = world.workspace.mint()

        for text in (unknown.reveal(), "sk-" + "aB3" * 10, "no key at all"):
            self.refused(world.workspace, text)

        assert denials(world.workspace) == [
            ("caller_denied", "key", f"sk-{unknown.public_id}"),
            ("caller_denied", "key", ""),
            ("caller_denied", "key", ""),
        ]
        assert unknown.reveal() not in str(
            list(AuditService(world.workspace).export(EventFilter()))
        )

    def test_a_required_key_that_is_missing(self, world: World) -> None:
        """Where the configuration asks for a caller's key, acting without one is on record."""
        stranger = replace(
            world.workspace,
            settings=Settings(bcrypt_cost=4, require_caller_key=True),
            caller=identity.stranger(changed_by=None),
        )

        with pytest.raises(CallerDeniedError):
            identity.local(stranger)

        assert denials(world.workspace) == [("caller_denied", "key", "")]

    def test_who_repeats_a_dead_key_fills_no_trail(self, world: World, clock: Clock) -> None:
        """Ten in an hour; the last one says that no more are recorded; then they are again."""
        hand = Hand()
        GenerateService(world.workspace).generate(order(key_alias="gone"), hand)
        EndingService(world.workspace).delete(["gone"])

        for _ in range(MOST_OF_A_KEY + 3):
            self.refused(world.workspace, hand.held)
        assert len(denials(world.workspace)) == MOST_OF_A_KEY
        (last,) = AuditService(world.workspace).page(EventFilter(), limit=1)[0]
        assert last["reason"].endswith("; more of these within the hour are not recorded")

        clock.advance(timedelta(hours=1, seconds=1))
        self.refused(world.workspace, hand.held)
        assert len(denials(world.workspace)) == MOST_OF_A_KEY + 1

    def test_nobody_hides_a_known_key_behind_strings_that_are_none(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """All others share one number, and a known key has its own."""
        monkeypatch.setattr("keyctl.services.denials.MOST_STRANGERS", 4)
        hand = Hand()
        GenerateService(world.workspace).generate(order(key_alias="gone"), hand)
        (ended,) = EndingService(world.workspace).delete(["gone"])

        for _ in range(7):
            self.refused(world.workspace, world.workspace.mint().reveal())
        self.refused(world.workspace, hand.held)

        recorded = denials(world.workspace)
        assert (len(recorded), recorded[-1]) == (5, ("caller_denied", "key", ended.key_id))

    def test_nobody_hides_behind_known_keys(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Refusals of keys that have ended leave the strings that are none their whole number."""
        monkeypatch.setattr("keyctl.services.denials.MOST_STRANGERS", 4)
        hand = Hand()
        GenerateService(world.workspace).generate(order(key_alias="gone"), hand)
        EndingService(world.workspace).delete(["gone"])

        for _ in range(5):
            self.refused(world.workspace, hand.held)
        for _ in range(6):
            self.refused(world.workspace, "no key at all")

        strangers = [item for item in denials(world.workspace) if not item[2]]
        (last,) = AuditService(world.workspace).page(EventFilter(), limit=1)[0]
        assert len(strangers) == 4
        assert last["reason"].endswith("; more of these within the hour are not recorded")

    def test_nor_behind_places_that_are_nobodys_to_choose(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """They go on record without a number, and take none of the strangers'."""
        monkeypatch.setattr("keyctl.services.denials.MOST_STRANGERS", 4)
        place = Violation(rule="caller.restricted", field="--out-file", message="is not yours")
        for _ in range(3):
            record_restriction(world.workspace, RestrictedError("no", violations=[place]))
        for _ in range(6):
            self.refused(world.workspace, "no key at all")

        assert len(denials(world.workspace)) == 7
        (last,) = AuditService(world.workspace).page(EventFilter(), limit=1)[0]
        assert last["reason"].endswith("; more of these within the hour are not recorded")

    def test_that_no_more_are_recorded_is_said_once_in_any_case(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Two at the same time may each be the last but one: then one more says it."""
        for _ in range(5):
            self.refused(world.workspace, "no key at all")
        monkeypatch.setattr("keyctl.services.denials.MOST_STRANGERS", 4)
        for _ in range(3):
            self.refused(world.workspace, "no key at all")

        assert len(denials(world.workspace)) == 6
        (last,) = AuditService(world.workspace).page(EventFilter(), limit=1)[0]
        assert last["reason"].endswith("; more of these within the hour are not recorded")
