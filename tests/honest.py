"""Honest days: random commands of a local operator, through the services, as people would give them."""

import random
from collections import Counter
from datetime import timedelta
from decimal import Decimal
from typing import Any

from clock import Clock
from world import Hand, World, order_of

from keyctl.errors import KeyctlError
from keyctl.fields import parse_grace
from keyctl.records import Organization, Principal, Team, User
from keyctl.services.budgets import BudgetService
from keyctl.services.directory import DirectoryService
from keyctl.services.issue.generate_many import BulkService
from keyctl.services.keys.end import EndingService
from keyctl.services.keys.update import ChangeService
from keyctl.services.members import MemberService
from keyctl.services.rotate.one import RotateOrder, RotateService
from keyctl.services.tiers import TierService
from keyctl.sinks.base import NotTakenError, Parcel, UnknownError


class Fickle(Hand):
    """A sink that takes the key, or does not, or leaves it open."""

    def __init__(self, outcome: str) -> None:
        super().__init__()
        self._outcome = outcome

    def deliver(self, parcel: Parcel) -> None:
        """Do one of them."""
        if self._outcome == "not taken":
            raise NotTakenError("full")
        if self._outcome == "unknown":
            raise UnknownError("no answer")
        super().deliver(parcel)


class Honest:
    """Carries out random commands; what is refused is refused.  `done` counts what was not."""

    def __init__(self, world: World, clock: Clock, choice: random.Random) -> None:
        self.world = world
        self.clock = clock
        self.choice = choice
        self.keys: list[str] = []
        self.done: Counter[str] = Counter()
        self._serial = 0

    def furnish(self) -> None:
        """Make one of everything, each with as much in it as one command gives."""
        TierService(self.world.workspace).create("small", {"max_budget": 10**9})
        for name in ("generate", "rotate", "update", "block", "update_owner", "limits"):
            for _ in range(3):
                getattr(self, f"_{name}")()

    def step(self) -> None:
        """Give one command, or let time pass."""
        names = [name for name in dir(self) if name.startswith("_do_")]
        name = self.choice.choice(names)
        try:
            getattr(self, name)()
        except KeyctlError:
            return
        self.done[name] += 1

    def _some_key(self) -> str:
        return self.choice.choice(self.keys) if self.keys else self._generate()

    def _fresh(self, word: str) -> str:
        self._serial += 1
        return f"{word}-{self._serial}"

    def _generate(self, outcome: str = "taken") -> str:
        request: dict[str, Any] = {
            "key_alias": self._fresh("key"),
            **self.choice.choice(
                [
                    {},
                    {"team_id": "web"},
                    {"team_id": "web", "user_id": "ada"},
                    {"user_id": "eve"},
                    {"team_id": "else", "metadata": {"a": [1, {"b": Decimal("2.5")}], "ü": "é"}},
                ]
            ),
            **self.choice.choice(
                [
                    {},
                    {"max_budget": Decimal("5.5"), "budget_duration": "1d", "models": ["gpt-4o"]},
                    {"duration": "30d", "tags": ["x"], "rpm_limit": 3},
                    {"auto_rotate": True, "rotation_interval": "7d", "grace_period": "1h"},
                    {
                        "model_max_budget": {
                            "gpt-4o": {"max_budget": Decimal("1.25"), "budget_duration": "1d"}
                        }
                    },
                ]
            ),
        }
        key_id = self.world.make(request, hand=Fickle(outcome))
        self.keys.append(key_id)
        return key_id

    def _rotate(self, outcome: str = "taken") -> None:
        order = RotateOrder(
            given=self._some_key(),
            grace=self.choice.choice([None, *map(parse_grace, ("none", "1h", "2d"))]),
        )
        RotateService(self.world.workspace).rotate(order, Fickle(outcome))

    def _update(self) -> None:
        patches: list[dict[str, Any]] = [
            {"tpm_limit": 7, "metadata": {"n": 1}},
            {"duration": "9d"},
            {"expires": None, "duration": None},
            {"max_budget": 2, "budget_duration": "weekly"},
            {"team_id": "web"},
            {"user_id": "tina"},
            {"auto_rotate": True, "rotation_interval": "3d"},
            {"key_alias": self._fresh("renamed")},
        ]
        patch = self.choice.choice(patches)
        ChangeService(self.world.workspace).update(self._some_key(), patch)

    def _block(self) -> None:
        blocked = self.choice.random() < 0.5
        EndingService(self.world.workspace).block([self._some_key()], blocked=blocked)

    def _update_owner(self) -> None:
        owners: list[tuple[type[Principal], str]] = [
            (Team, "web"),
            (User, "eve"),
            (Organization, "acme"),
        ]
        changes: list[dict[str, Any]] = [
            {"max_budget": 10**10, "budget_duration": "30d"},
            {"models": ["gpt-4o", "o1"]},
            {"rpm_limit": 99},
        ]
        kind, object_id = self.choice.choice(owners)
        values = self.choice.choice(changes)
        amount = {"max_budget": Decimal("1.25"), "budget_duration": "1d"}
        if kind is not User:
            values |= {"model_max_budget": {"gpt-4o": amount}, "tpd_limit": 5}
            values |= {"max_parallel_requests": 2}
        if kind is Team:
            values |= {"budget_limits": [amount]}
        DirectoryService(self.world.workspace).update(kind, object_id, values)

    def _do_generate(self) -> None:
        self._generate(self.choice.choice(["taken", "taken", "not taken", "unknown"]))

    def _do_many(self) -> None:
        order = order_of({"key_alias": self._fresh("many") + "-{n}", "team_id": "web"})
        BulkService(self.world.workspace).generate(order, 3, lambda _: None)

    def _do_rotate(self) -> None:
        self._rotate(self.choice.choice(["taken", "taken", "not taken", "unknown"]))

    def _do_update(self) -> None:
        self._update()

    def _do_block(self) -> None:
        self._block()

    def _do_delete(self) -> None:
        if len(self.keys) > 5:
            EndingService(self.world.workspace).delete([self.keys.pop(0)])

    def _do_revoke(self) -> None:
        EndingService(self.world.workspace).revoke(self._some_key(), [])

    def _do_spend(self) -> None:
        BudgetService(self.world.workspace).add(self._some_key(), 10**8)

    def _do_reset(self) -> None:
        list(BudgetService(self.world.workspace).reset_due())

    def _do_owner(self) -> None:
        self._update_owner()

    def _do_members(self) -> None:
        members = MemberService(self.world.workspace)
        if self.choice.random() < 0.5:
            members.add(Team, "web", "eve", self.choice.choice(["admin", "user"]))
        else:
            members.remove(Team, "web", "eve")

    def _limits(self) -> None:
        """Set or clear limits of a member, and of a tier."""
        limits: list[dict[str, Any]] = [
            {"max_budget": 3 * 10**9, "budget_duration": "1d"},
            {"max_budget": None, "budget_duration": None},
            {"rpm_limit": 5},
            {"rpm_limit": None},
        ]
        MemberService(self.world.workspace).update("web", "ada", self.choice.choice(limits))
        TierService(self.world.workspace).update("small", self.choice.choice(limits))

    def _do_limits(self) -> None:
        self._limits()

    def _do_tiers(self) -> None:
        service = TierService(self.world.workspace)
        if self.choice.random() < 0.5:
            service.create("small", {"max_budget": 10**9, "budget_duration": "1h"})
        else:
            service.delete("small")

    def _do_come_and_go(self) -> None:
        service, name = DirectoryService(self.world.workspace), self.choice.choice(["u", "v"])
        if self.choice.random() < 0.5:
            service.create(User, name, {"email": f"{name}@example.com"})
            MemberService(self.world.workspace).add(Team, "web", name, "user")
        else:
            service.delete(User, name)

    def _do_wait(self) -> None:
        self.clock.advance(timedelta(hours=self.choice.randrange(1, 60)))
        self.world.workspace.database.is_swept = False
