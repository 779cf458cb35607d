"""What ended long ago leaves the daily tables, and every answer about it stays."""

from datetime import timedelta
from typing import Any

import pytest
from clock import Clock
from sqlalchemy import text
from world import Hand, World

from keyctl.errors import KeyTakenError
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
    RotateService(workspace).rotate(RotateOrder(given="a", grace="1h"), hand)
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
