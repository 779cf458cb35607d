"""What ended long ago leaves the daily tables, and every answer about it stays."""

from datetime import timedelta
from typing import Any

import pytest
from clock import Clock
from holders import Holder
from litellm_tables import LiteLLM, key
from migrating import OLD, RunImport, results
from sqlalchemy import text
from world import Hand, World

from keyctl.errors import KeyTakenError, PolicyDeniedError, RequestReplayedError
from keyctl.fields import parse_grace
from keyctl.requests import GenerateRequest
from keyctl.services.audit import AuditService
from keyctl.services.delivery.overwrite import replaceable
from keyctl.services.issue.generate import GenerateService
from keyctl.services.issue.order import Order
from keyctl.services.keys.end import EndingService
from keyctl.services.keys.read import KeyService
from keyctl.services.prune import PruneService
from keyctl.services.rotate.one import RotateOrder, RotateService
from keyctl.services.verify import verify
from keyctl.services.workspace import Workspace


def rotated(workspace: Workspace, hand: Hand) -> str:
    """Rotate the key `a` and return the new key string."""
    RotateService(workspace).rotate(RotateOrder(given="a", grace=parse_grace("1h")), hand)
    return hand.held


class TestASecret:
    def test_that_ended_long_ago_goes_and_is_still_known(
        self, workspace: Workspace, clock: Clock
    ) -> None:
        """Verify, look-up, overwriting and `--state` answer as before."""
        hand = Hand()
        World(workspace)
        GenerateService(workspace).generate(
            Order(request=GenerateRequest(key_alias="a", team_id="web")), hand
        )
        first = hand.held
        second = rotated(workspace, hand)
        clock.advance(timedelta(days=200))
        third = rotated(workspace, hand)
        clock.advance(timedelta(days=200))
        workspace.database.is_swept = False  # as another process finds it
        service = PruneService(workspace)
        assert service.prunable(None)["secrets"] == 0  # the first one's end is not on record yet
        assert service.prune(None)["secrets"] == 1
        assert service.prune(None)["secrets"] == 0
        key_id = verify(workspace.database, third).key_id
        verdicts = [verify(workspace.database, item) for item in (first, second, third)]
        assert [item.reason for item in verdicts] == ["revoked", "revoked", None]
        assert {item.key_id for item in verdicts} == {key_id}
        assert KeyService(workspace).info(first[:15])["key_id"] == key_id
        assert replaceable(workspace)({first[3:15]}, "key_other")
        AuditService(workspace).verify(state=True, step=lambda: None)
        with workspace.database.read() as connection:
            left = connection.execute(text("SELECT count(*) FROM secrets")).scalar_one()
        assert left == 2

    def test_that_was_supplied_is_not_taken_again(self, workspace: Workspace, clock: Clock) -> None:
        supplied = "sk-AbCdEfGhIjKlMnOpQrStUvWx0123"
        world = World(workspace)

        def make(**fields: Any) -> None:
            GenerateService(world.workspace).generate(
                Order(request=GenerateRequest(key=supplied, **fields)), Hand()
            )

        make(key_alias="a")

        EndingService(workspace).delete(["a"])
        clock.advance(timedelta(days=400))
        assert PruneService(workspace).prune(None)["secrets"] == 1
        with pytest.raises(KeyTakenError):
            make(key_alias="b")
        assert verify(workspace.database, supplied).reason == "revoked"


class TestADeletedKey:
    def test_loses_its_details_and_every_answer_about_it_stays(
        self, workspace: Workspace, clock: Clock
    ) -> None:
        """A repeated request finds it, its alias leads to it, `--state` holds; the next run finds nothing."""
        world = World(workspace)
        request = GenerateRequest(
            key_alias="a", team_id="web", metadata={"n": 1}, max_budget=5, tags=["t"]
        )
        order = Order(request=request, request_id="once")
        made = GenerateService(workspace).generate(order, Hand()).answer
        EndingService(workspace).delete(["a"])
        clock.advance(timedelta(days=364))
        service = PruneService(workspace)
        assert service.prune(None)["keys"] == 0
        clock.advance(timedelta(days=2))
        assert service.prunable(None)["keys"] == 1
        assert service.prune(None)["keys"] == 1
        assert service.prune(None)["keys"] == 0
        clock.advance(timedelta(days=800))
        assert service.prune(None)["keys"] == 0
        found = KeyService(workspace).info(made["key_id"])
        assert (found["key_alias"], found["team_id"], found["state"]) == ("a", "web", "deleted")
        assert (found["metadata"], found["max_budget"], found["tags"]) == ({}, None, [])
        with pytest.raises(RequestReplayedError, match=made["key_id"]):
            GenerateService(workspace).generate(order, Hand())
        AuditService(workspace).verify(state=True, step=lambda: None)
        assert world.make({"key_alias": "a"}) != made["key_id"]

    def test_counts_as_made_by_the_key_that_made_it(
        self, workspace: Workspace, clock: Clock
    ) -> None:
        """A caller's key that may make two keys ever makes no third one when the first two are pruned."""
        World(workspace)
        local = Holder(workspace, None)
        bounds = {"max_keys": 2, "duration": "9000d"}
        ci = local.generate({"user_id": "ada", "key_type": "management", "may_issue": bounds})
        for _ in range(2):
            local.end("delete", ci.generate({"duration": "1d"}).key_id)
        clock.advance(timedelta(days=400))
        pruned = PruneService(workspace).prune(None)
        assert (pruned["keys"], pruned["secrets"]) == (2, 2)
        with pytest.raises(PolicyDeniedError, match="max_keys"):
            ci.generate({"duration": "1d"})

    def test_that_was_imported_is_not_imported_again(
        self, workspace: Workspace, clock: Clock, litellm: LiteLLM, run: RunImport
    ) -> None:
        litellm.add("keys", key(OLD, key_alias="ci"))
        run()
        EndingService(workspace).delete(["ci"])
        clock.advance(timedelta(days=400))
        assert PruneService(workspace).prune(None)["secrets"] == 1
        assert results(run()) == {("key", "present"): 1}
        assert verify(workspace.database, OLD).reason == "revoked"
