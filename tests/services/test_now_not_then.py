"""A caller who loses the right to act in the middle of a long command stops there."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from holders import Held, Holder, operator
from world import Hand, World

from keyctl.db.queries import KeyFilter
from keyctl.errors import BatchError, CallerDeniedError, DeniedError
from keyctl.fields import validate
from keyctl.records import Team, User
from keyctl.requests import GenerateRequest
from keyctl.services.directory import DirectoryService
from keyctl.services.issue.generate import GenerateService
from keyctl.services.issue.generate_many import BulkService, Made
from keyctl.services.issue.order import Order
from keyctl.services.keys import end
from keyctl.services.keys.end import EndingService
from keyctl.services.keys.read import KeyService
from keyctl.services.members import MemberService
from keyctl.services.workspace import Workspace

Lose = Callable[[Holder, Held, Any], None]


def deleted(local: Holder, caller: Held, _clock: Any) -> None:
    local.end("delete", caller.key_id)


def blocked(local: Holder, caller: Held, _clock: Any) -> None:
    local.end("block", caller.key_id)


def expired(_local: Holder, _caller: Held, clock: Any) -> None:
    clock.advance(timedelta(days=2))


def demoted(local: Holder, _caller: Held, _clock: Any) -> None:
    role = {"role": "internal_user_viewer"}
    DirectoryService(local.workspace).update(User, "tina", role, keys="keep")


def removed(local: Holder, _caller: Held, _clock: Any) -> None:
    MemberService(local.workspace).remove(Team, "web", "tina", keys="keep")


LOSES: tuple[Lose, ...] = (deleted, blocked, expired, demoted, removed)


@pytest.fixture(name="local")
def _local(workspace: Workspace) -> Holder:
    return operator(World(workspace))


@pytest.fixture(name="tina")
def _tina(local: Holder) -> Held:
    return local.generate({"user_id": "tina", "team_id": "web", "duration": "1d"})


def request(**fields: Any) -> GenerateRequest:
    """Return a body."""
    return validate(GenerateRequest, fields, what="t", schema="generate-request")


def keys_of(local: Holder) -> list[str]:
    """Return the aliases of the keys that live and were made in bulk."""
    page, _ = KeyService(local.workspace).page(KeyFilter(team_id="web"), after=None, limit=1000)
    return sorted(key["key_alias"] for key in page if (key["key_alias"] or "").startswith("ci-"))


@pytest.mark.parametrize("lose", LOSES, ids=[lose.__name__ for lose in LOSES])
class TestALostCaller:
    def test_makes_no_more_of_many_keys(
        self, local: Holder, tina: Held, clock: Any, lose: Lose
    ) -> None:
        """What was confirmed before stays; the batch in hand is taken back; exit 9."""
        batches: list[Sequence[Made]] = []

        def deliver(made: Sequence[Made]) -> None:
            batches.append(made)
            if len(batches) == 3:
                lose(local, tina, clock)

        order = Order(request=request(team_id="web", key_alias="ci-{n}"))
        with pytest.raises(BatchError, match="10 keys were made, then no more"):
            BulkService(tina.workspace).generate(order, 30, deliver, batch=5)

        assert keys_of(local) == sorted(f"ci-{number}" for number in range(1, 11))
        assert len(batches) == 3

    def test_has_the_key_in_hand_taken_back(
        self, local: Holder, tina: Held, clock: Any, lose: Lose
    ) -> None:
        """Delivered, and dead: nothing is active that the caller had no right to."""

        class Losing(Hand):
            def deliver(self, parcel: Any) -> None:
                super().deliver(parcel)
                lose(local, tina, clock)

        order = Order(request=request(team_id="web", key_alias="ci-one"))
        with pytest.raises(Exception, match="before it could be confirmed"):
            GenerateService(tina.workspace).generate(order, Losing())
        assert keys_of(local) == []


def test_a_lost_caller_ends_no_more_keys(
    local: Holder, tina: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the next transaction on: those keys are reported as failed, and live on."""
    monkeypatch.setattr(end, "BATCH", 2)
    keys = [local.generate({"team_id": "web", "key_alias": f"ci-{n}"}).key_id for n in range(3)]
    ended = EndingService(tina.workspace).delete([keys[0], tina.key_id, *keys[1:]])
    assert [item.result for item in ended] == ["deleted", "deleted", "failed", "failed"]
    assert isinstance(ended[-1].error, CallerDeniedError)
    assert keys_of(local) == ["ci-1", "ci-2"]


def test_a_caller_lost_from_the_start_is_refused(local: Holder, tina: Held) -> None:
    """Nothing was done: exit 4."""
    acting = tina.workspace
    local.end("block", tina.key_id)
    key = local.generate({"team_id": "web", "key_alias": "ci-0"})
    with pytest.raises(DeniedError):
        EndingService(acting).delete([key.key_id])
    order = Order(request=request(team_id="web", key_alias="ci-{n}"))
    with pytest.raises(DeniedError):
        BulkService(replace(acting)).generate(order, 5, lambda _: None)
