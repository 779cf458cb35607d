"""Fleets of very many keys: what is planned, ended and made of them is not held whole."""

import json
import tracemalloc
from dataclasses import replace
from pathlib import Path
from weakref import ref

import pytest
from fleet_files import Fleets
from sqlalchemy import select
from tampering import differing

from keyctl.db import queries
from keyctl.db.queries.audit import export
from keyctl.db.queries.events import Conditions
from keyctl.db.tables import outbox
from keyctl.services.fleet.jobs import NewKeyJobs
from keyctl.services.fleet.model import NewKeyChange
from keyctl.services.fleet.service import FleetService
from keyctl.services.workspace import Workspace

MANY = 3000
SOME = 600
ONE = "version: 1\nkeys: {one: {deliver: files}}\n"
NONE = "version: 1\n"


@pytest.fixture(name="fleets")
def _fleets(workspace: Workspace, tmp_path: Path) -> Fleets:
    """Fleet files on the test's database, and a hook that hears of keys that end."""
    heard = {"siem": {"type": "command", "argv": ["true"], "events": ["key_deleted"]}}
    return Fleets.at(workspace, tmp_path / "keys", hooks=heard)


class TestPrune:
    @pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
    def test_holds_no_key_whole(self, fleets: Fleets) -> None:
        """A stored key takes several kilobytes; of the end of one, a plan holds a part of that."""
        fleets.apply(ONE)
        with fleets.workspace.database.write() as connection:
            like = queries.find_key_by_alias(connection, "one")
            assert like is not None
            others = [(f"key_{number:020d}", f"other-{number}") for number in range(MANY)]
            first, *rest = others
            record = replace(like, id=first[0], key_alias=first[1])
            queries.insert_like(connection, record, rest)
        fleets.plan(NONE, prune=True)  # what is made once

        tracemalloc.start()
        plan = fleets.plan(NONE, prune=True)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()

        assert plan.summary()["delete"] == MANY + 1
        assert peak / MANY < 2500

    def test_tells_the_chain_what_became_of_the_secrets(self, fleets: Fleets) -> None:
        """With the end of the key, and not to hooks; what is stored is what the chain says."""
        fleets.apply(ONE)

        fleets.apply(NONE, prune=True)

        with fleets.workspace.database.read() as connection:
            last = list(export(connection, Conditions()))[-1]
            told = list(connection.execute(select(outbox.c.payload)).scalars())
        assert last["action"] == "key_deleted"
        secrets = json.loads(last["after"])["secrets"]
        assert [item["state"] for item in secrets] == ["revoked"]
        assert len(told) == 1
        assert "secrets" not in json.loads(told[0])["data"]["changes"]
        assert differing(fleets.workspace) == []


class TestNewKeys:
    @pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
    def test_have_no_facts_kept_for_each(self, fleets: Fleets) -> None:
        """The facts around one take seven kilobytes; those of the latest are at hand, not of all."""
        entries = "".join(f"  key-{number}: {{deliver: files}}\n" for number in range(SOME))
        order = fleets.order(f"version: 1\nkeys:\n{entries}")
        service = FleetService(fleets.workspace)
        service.plan(fleets.order(ONE))  # what is made once

        peaks = []
        # Twice: threads of the worker allocate too, at times; what is kept for each key is so each time.
        for _ in range(2):
            tracemalloc.start()
            plan = service.plan(order)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
            assert plan.summary()["create"] == SOME

        assert min(peaks) / SOME < 2500, peaks

    def test_have_their_jobs_made_when_they_are_asked_for(self, fleets: Fleets) -> None:
        """What a sink holds on to is gone with its job, and keys of one template share what they are."""
        plan = fleets.plan("version: 1\nkeys:\n  ci-{n}: {count: 3, deliver: files}\n")
        made = [change for change in plan.changes if isinstance(change, NewKeyChange)]
        jobs = NewKeyJobs(workspace=fleets.workspace, made=made, sink_of=None)

        first, *others = (ref(job.sink) for job in jobs)

        assert [item() for item in (first, *others)] == [None] * 3
        assert [job.alias for job in jobs[1:]] == ["ci-2", "ci-3"]
        assert len({id(job.wanted) for job in jobs}) == 1
