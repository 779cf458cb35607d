"""A run that another one took over, or that is run again: what it did late hides nothing and revives nothing."""

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from clock import Clock

from keyctl.config.document import read
from keyctl.db import queries
from keyctl.db.database import Database
from keyctl.errors import DeliveryError, FencedError
from keyctl.fields import parse_grace
from keyctl.records import Claim
from keyctl.requests import GenerateRequest
from keyctl.services.delivery.confirm import uninterrupted
from keyctl.services.issue.generate import GenerateService
from keyctl.services.issue.order import Order
from keyctl.services.keys.end import EndingService
from keyctl.services.keys.update import ChangeService
from keyctl.services.repair import CheckService
from keyctl.services.rotate.one import RotateOrder, RotateService
from keyctl.services.verify import verify
from keyctl.services.workspace import Workspace
from keyctl.sinks.base import NotTakenError, Parcel, Target, UnknownError

SUPPLIED = "sk-" + "chosen-by-a-person-0123456789-abcdef"
PAST_DEADLINE = timedelta(seconds=61)


class Place:
    """Where keys end up; `before` and `after` a key is put there something may happen."""

    name = "place"
    timeout = timedelta(0)
    shows_answer = False

    def __init__(self) -> None:
        self.held = ""
        self.before: Callable[[], object] = bool
        self.after: Callable[[], object] = bool

    def check(self, target: Target) -> None:
        """Accept every key."""

    def deliver(self, parcel: Parcel) -> None:
        """Hold the key from now on."""
        before, self.before = self.before, bool
        before()
        self.held = parcel.key.reveal()
        after, self.after = self.after, bool
        after()


def fail(error: Exception) -> Callable[[], object]:
    """Return something that raises *error*."""

    def step() -> object:
        raise error

    return step


def made(workspace: Workspace, place: Place, **fields: Any) -> str:
    """Make a key in *place* and return its id."""
    request_id = fields.pop("request_id", None)
    order = Order(request=GenerateRequest.model_validate(fields), request_id=request_id)
    return str(GenerateService(workspace).generate(order, place).answer["key_id"])


def rotated(workspace: Workspace, key_id: str, place: Place, **how: Any) -> str:
    """Rotate the key into *place* and return the new secret's id."""
    order = RotateOrder(given=key_id, **how)
    return str(RotateService(workspace).rotate(order, place)["secret_id"])


def works(workspace: Workspace, key: str) -> bool:
    """Tell whether the key string authenticates."""
    return verify(workspace.database, key).valid


def problems(workspace: Workspace) -> list[str]:
    """Return what `db check` finds."""
    return [entry["problem"] for entry in CheckService(workspace).check()["left"]]


@pytest.mark.parametrize("grace", ["24h", "none"])
def test_a_run_that_was_taken_over_does_not_report_success(
    workspace: Workspace, clock: Clock, grace: str
) -> None:
    """It delivers after its successor; the key's sink is in doubt until it is rotated again."""
    place = Place()
    key_id = made(workspace, place)

    def overtake() -> None:
        clock.advance(PAST_DEADLINE)
        rotated(workspace, key_id, place, grace=parse_grace(grace))

    place.before = overtake
    with pytest.raises(FencedError if grace == "24h" else DeliveryError):
        rotated(workspace, key_id, place, grace=parse_grace("24h"))
    assert problems(workspace) == ["sink_suspect"]

    clock.advance(timedelta(seconds=1))
    rotated(workspace, key_id, place)
    assert (problems(workspace), works(workspace, place.held)) == ([], True)


def test_a_secret_that_is_revoked_in_flight_leaves_the_sink_in_doubt(workspace: Workspace) -> None:
    """The dead key string has replaced a working one there."""
    place = Place()
    key_id = made(workspace, place)

    def revoke() -> None:
        with workspace.database.read() as connection:
            secrets = queries.secrets_of(connection, key_id)
        (staged,) = [secret.id for secret in secrets if secret.state == "staged"]
        EndingService(workspace).revoke(key_id, [staged])

    place.before = revoke
    with pytest.raises(DeliveryError, match="was revoked before"):
        rotated(workspace, key_id, place)
    assert problems(workspace) == ["sink_suspect"]


@pytest.mark.parametrize("how", ["rotate", "update", "rotate-early"])
def test_what_a_killed_generate_left_lives_no_longer_than_its_deadline(
    workspace: Workspace, database_url: str, clock: Clock, tmp_path: Path, how: str
) -> None:
    """Not after the key was taken over and confirmed, and then rotated or given another end."""
    lost = tmp_path / "lost"
    child = os.fork()
    if child == 0:
        own = Place()
        own.after = lambda: (lost.write_text(own.held), os._exit(9))
        database = Database(database_url, clock=clock)
        made(replace(workspace, database=database), own, key_alias="a")
        os._exit(1)
    os.waitpid(child, 0)
    abandoned, place = lost.read_text(), Place()
    key_id = made(workspace, place, key_alias="a")
    assert (works(workspace, abandoned), problems(workspace)) == (True, [])

    clock.advance(timedelta(seconds=1) if how == "rotate-early" else PAST_DEADLINE)
    if how == "update":
        ChangeService(workspace).update(key_id, {"duration": "30d"})
    else:
        rotated(workspace, key_id, place)
    clock.advance(PAST_DEADLINE)
    assert (works(workspace, abandoned), works(workspace, place.held)) == (False, True)


@pytest.mark.parametrize("generated_form", [False, True])
def test_a_supplied_string_may_be_rotated_to_again(
    workspace: Workspace, generated_form: bool
) -> None:
    """After *unknown* it goes on working whatever comes; after *not taken* it is as if never supplied."""
    place = Place()
    key_id = made(workspace, place)
    supplied = workspace.mint().reveal() if generated_form else SUPPLIED

    place.before = fail(NotTakenError("the disk is full"))
    with pytest.raises(DeliveryError):
        rotated(workspace, key_id, place, supplied=supplied)
    place.after = fail(UnknownError("exit 1 after writing"))
    with pytest.raises(DeliveryError):
        rotated(workspace, key_id, place, supplied=supplied)
    place.before = fail(NotTakenError("could not be started"))
    with pytest.raises(DeliveryError):
        rotated(workspace, key_id, place, supplied=supplied)
    assert (place.held, works(workspace, supplied)) == (supplied, True)

    rotated(workspace, key_id, place, supplied=supplied)
    assert (problems(workspace), works(workspace, supplied)) == ([], True)


def test_the_request_id_of_a_key_that_came_to_nothing_is_free(workspace: Workspace) -> None:
    """A key that was deleted while it was delivered does not keep its request waiting for ever."""
    place = Place()

    def delete() -> None:
        with workspace.database.read() as connection:
            key = queries.find_key_by_alias(connection, "a")
        assert key is not None
        EndingService(workspace).delete([key.id])

    place.after = delete
    with pytest.raises(DeliveryError):
        made(workspace, place, key_alias="a", request_id="once")
    made(workspace, place, key_alias="a", request_id="once")
    assert works(workspace, place.held)


def test_a_dead_run_is_known_to_be_dead_until_its_last_claim_is_gone(
    workspace: Workspace, clock: Clock
) -> None:
    """Its lock file proves it: who takes one claim over leaves the file for the others."""
    place = Place()
    key_ids = [made(workspace, place) for _ in range(2)]
    lock = workspace.runs_folder / "dead.lock"
    lock.touch(mode=0o600)
    ends = clock.now + timedelta(hours=1)
    claims = [
        Claim(key_id=key_id, run_id="dead", fingerprint=None, staged_at=clock.now, deadline_at=ends)
        for key_id in key_ids
    ]
    with workspace.database.write() as connection:
        queries.insert_claim(connection, *claims)

    for key_id in key_ids:
        rotated(workspace, key_id, place)
    assert not lock.exists()


def test_repair_gives_no_key_to_the_default_sink_that_a_person_holds(
    workspace: Workspace, database_url: str, clock: Clock, tmp_path: Path
) -> None:
    """It names the command instead: a rotation would end the secret that the person uses."""
    place = Place()
    key_id = made(workspace, place)
    child = os.fork()
    if child == 0:
        own = Place()
        own.before = lambda: os._exit(9)
        database = Database(database_url, clock=clock)
        rotated(replace(workspace, database=database), key_id, own)
        os._exit(1)
    os.waitpid(child, 0)

    shared = {"type": "file", "path": str(tmp_path / "shared")}
    settings = read({"bcrypt_cost": 4, "default_sink": "shared", "sinks": {"shared": shared}})
    (left,) = CheckService(replace(workspace, settings=settings)).repair()["left"]
    assert left["result"] == f"left: keyctl rotate {key_id}"
    assert works(workspace, place.held)


def test_a_signal_during_a_confirm_is_told_after_it() -> None:
    """It is put off, not lost: who is to stop hears of it."""
    caught: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _frame: caught.append(number))
    try:
        with uninterrupted():
            signal.raise_signal(signal.SIGTERM)
            assert caught == []
        assert caught == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)
