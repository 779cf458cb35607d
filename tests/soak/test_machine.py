"""A key's whole life at random, watched through verify: nothing is revived, nothing lives longer."""

import shutil
import tempfile
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from clock import Clock
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from keyctl import money
from keyctl.config.settings import Settings
from keyctl.db.database import Database
from keyctl.errors import DeliveryError, KeyctlError, PolicyDeniedError
from keyctl.fields import parse_grace
from keyctl.policy.facts import Caller
from keyctl.requests import GenerateRequest
from keyctl.services.budgets import BudgetService
from keyctl.services.issue.generate import GenerateService
from keyctl.services.issue.order import Order
from keyctl.services.keys.end import EndingService
from keyctl.services.keys.read import KeyService
from keyctl.services.keys.update import ChangeService
from keyctl.services.rotate.one import RotateOrder, RotateService
from keyctl.services.verify import verify
from keyctl.services.workspace import Workspace
from keyctl.sinks.base import NotTakenError, Parcel, Target, UnknownError

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
SPANS = st.sampled_from([timedelta(minutes=1), HOUR, 12 * HOUR, 24 * HOUR, 30 * 24 * HOUR])


class Hand:
    """A sink in memory that takes the key string, or fails as it is told to."""

    name = "hand"
    timeout = timedelta(0)
    shows_answer = True

    def __init__(self, fault: type[Exception] | None = None) -> None:
        self.fault = fault
        self.held: str | None = None

    def check(self, target: Target) -> None:
        """Accept every key."""

    def deliver(self, parcel: Parcel) -> None:
        """Take the key string, and then perhaps say that it was not taken."""
        self.held = parcel.key.reveal()
        if self.fault is not None:
            raise self.fault("told to")


@dataclass
class Model:
    """What must be true of one key: its limits, and until when each of its strings may work."""

    id: str
    expires: datetime | None
    max_budget: int | None
    period_ends: datetime | None
    blocked: bool = False
    deleted: bool = False
    spend: int = 0
    rotations: int = 0
    current: str = ""
    ends: dict[str, datetime | None] = field(default_factory=dict)
    staged: set[str] = field(default_factory=set)


class Life(RuleBasedStateMachine):
    """Create, rotate, block, spend, reset, expire, delete, and let time pass, in any order."""

    keys = Bundle("keys")
    template: Path

    @initialize()
    def begin(self) -> None:
        """Open an empty database with a clock of its own."""
        self.folder = Path(tempfile.mkdtemp(prefix="keyctl-life-"))
        shutil.copy(self.template, self.folder / "keyctl.db")
        self.clock = Clock()
        self.database = Database(f"sqlite:///{self.folder}/keyctl.db", clock=self.clock)
        self.workspace = Workspace(
            database=self.database,
            settings=Settings(bcrypt_cost=4),
            caller=Caller(actor="local:tester@host", role="proxy_admin"),
            runs_folder=self.folder / "runs",
        )
        self.models: list[Model] = []

    def teardown(self) -> None:
        """Close and remove the database."""
        if hasattr(self, "database"):
            self.database.engine.dispose()
            shutil.rmtree(self.folder)

    @rule(
        target=keys,
        duration=st.sampled_from([None, "1h", "1d", "30d"]),
        budget=st.sampled_from([None, 1, 5]),
        period=st.sampled_from([None, "1d"]),
    )
    def create(self, duration: str | None, budget: int | None, period: str | None) -> Any:
        """Make a key."""
        given = {"duration": duration, "max_budget": budget, "budget_duration": period}
        request = GenerateRequest.model_validate(
            {name: value for name, value in given.items() if value is not None}
        )
        hand = Hand()
        answer = GenerateService(self.workspace).generate(Order(request=request), hand).answer
        model = Model(
            id=answer["key_id"],
            expires=answer["expires"],
            max_budget=None if budget is None else budget * money.NANO,
            period_ends=None if period is None else self.clock.now + DAY,
            current=str(hand.held),
            ends={str(hand.held): answer["expires"]},
        )
        self.models.append(model)
        return model if len(self.models) <= 4 else multiple()

    @rule(model=keys, grace=st.sampled_from(["none", "1h", "24h"]))
    def rotate(self, model: Model, grace: str) -> None:
        """Give the key a new secret; refused unless it is in use."""
        hand = Hand()
        if not self.usable(model):
            with pytest.raises(PolicyDeniedError):
                RotateService(self.workspace).rotate(
                    RotateOrder(given=model.id, grace=parse_grace(grace)), hand
                )
            assert hand.held is None
            return
        RotateService(self.workspace).rotate(
            RotateOrder(given=model.id, grace=parse_grace(grace)), hand
        )
        length = {"none": timedelta(0), "1h": HOUR, "24h": 24 * HOUR}[grace]
        end = earliest(self.clock.now + length, model.expires)
        for text in {model.current, *model.staged}:
            model.ends[text] = end
        model.staged.clear()
        model.current = str(hand.held)
        model.ends[model.current] = model.expires
        model.rotations += 1

    @rule(model=keys, fault=st.sampled_from([NotTakenError, UnknownError]))
    def rotate_in_vain(self, model: Model, fault: type[Exception]) -> None:
        """A delivery that fails leaves the old secret alone; one in doubt leaves both."""
        if not self.usable(model):
            return
        hand = Hand(fault)
        with pytest.raises(DeliveryError):
            RotateService(self.workspace).rotate(RotateOrder(given=model.id), hand)
        if fault is UnknownError:
            model.staged.add(str(hand.held))
            model.ends[str(hand.held)] = model.expires
        else:
            model.ends[str(hand.held)] = self.clock.now

    @rule(model=keys, blocked=st.booleans())
    def block(self, model: Model, blocked: bool) -> None:
        """Suspend the key or let it in again."""
        ended = EndingService(self.workspace).block([model.id], blocked=blocked)
        if not model.deleted:
            assert ended[0].error is None
            model.blocked = blocked

    @rule(model=keys)
    def delete(self, model: Model) -> None:
        """End the key for good."""
        EndingService(self.workspace).delete([model.id])
        model.deleted = True

    @rule(model=keys)
    def revoke(self, model: Model) -> None:
        """End grace periods now."""
        EndingService(self.workspace).revoke(model.id, [])
        if not model.deleted:
            for text in set(model.ends) - {model.current} - model.staged:
                model.ends[text] = earliest(self.clock.now, model.ends[text])

    @rule(model=keys, cents=st.integers(0, 300))
    def spend(self, model: Model, cents: int) -> None:
        """Record spend, in the period that is now."""
        try:
            BudgetService(self.workspace).add(model.id, cents * money.NANO // 100)
        except KeyctlError:
            assert model.deleted
        else:
            self.begin_period(model)
            model.spend += cents * money.NANO // 100

    @rule()
    def reset_budgets(self) -> None:
        """Begin the periods that are due: only these start at zero."""
        for reset in list(BudgetService(self.workspace).reset_due()):
            model = next(item for item in self.models if item.id == reset.object_id)
            assert (reset.previous_spend, model.deleted) == (model.spend, False)
            assert self.begin_period(model)
            assert reset.budget_reset_at == model.period_ends

    @rule(model=keys)
    def shorten(self, model: Model) -> None:
        """Let the key expire in an hour; its secrets end with it."""
        if model.deleted or (model.expires is not None and model.expires <= self.clock.now):
            return
        ChangeService(self.workspace).update(
            model.id, {"duration": "1h"}, overrides=(), reason=None
        )
        model.expires = self.clock.now + HOUR
        for text in model.ends:
            if text == model.current or text in model.staged:
                model.ends[text] = model.expires
            else:
                model.ends[text] = earliest(model.expires, model.ends[text])

    @rule(span=SPANS)
    def wait(self, span: timedelta) -> None:
        """Let time pass."""
        self.clock.advance(span)

    @invariant()
    def verify_says_what_the_model_says(self) -> None:
        """Each string that ever was one of a key works exactly when it should."""
        for model in getattr(self, "models", ()):
            spend = 0 if self.is_due(model) else model.spend
            allowed = self.usable(model) and (model.max_budget is None or spend < model.max_budget)
            for text, end in model.ends.items():
                expected = allowed and (end is None or end > self.clock.now)
                verdict = verify(self.database, text)
                assert verdict.valid == expected, (verdict, model, self.clock.now)

    @invariant()
    def the_record_keeps_what_rotation_must_not_touch(self) -> None:
        """Spend, budget and expiry are what they were made; rotations are counted once."""
        for model in getattr(self, "models", ()):
            info = KeyService(self.workspace).info(model.id)
            assert info["spend"] == money.dollars(model.spend)
            assert info["rotation_count"] == model.rotations
            assert info["expires"] == model.expires
            states = [secret["state"] for secret in info["secrets"]]
            assert states.count("active") == (0 if model.deleted or self.is_over(model) else 1)

    def is_due(self, model: Model) -> bool:
        """Tell whether the key's budget period is over."""
        return model.period_ends is not None and model.period_ends <= self.clock.now

    def begin_period(self, model: Model) -> bool:
        """Begin the period that is now at zero, if the last one is over; tell whether it is."""
        if model.period_ends is None or not self.is_due(model):
            return False
        while model.period_ends <= self.clock.now:
            model.period_ends += DAY
        model.spend = 0
        return True

    def is_over(self, model: Model) -> bool:
        """Tell whether the key has expired."""
        return model.expires is not None and model.expires <= self.clock.now

    def usable(self, model: Model) -> bool:
        """Tell whether the key is in use."""
        return not (model.deleted or model.blocked or self.is_over(model))


def earliest(first: datetime, second: datetime | None) -> datetime:
    """Return the earlier instant; None is never."""
    return first if second is None else min(first, second)


def test_a_life_at_random(template: Path) -> None:
    """Whatever happens to a key in whatever order, verify agrees with a model of a few lines."""
    Life.template = template
    run_state_machine_as_test(
        Life,
        settings=settings(
            max_examples=60,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            derandomize=True,
        ),
    )
