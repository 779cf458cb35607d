"""Vault, AWS Secrets Manager and Kubernetes as sinks: what all three promise.

Vault and Kubernetes are fakes of their documented HTTP APIs, over real sockets; AWS is moto's server.
"""

import base64
import logging
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import Cli
from places import FOREIGN, Place, place
from store_bench import Bench
from stored import everything_stored

from keyctl.errors import FileTakenError
from keyctl.requests import GenerateRequest
from keyctl.services.issue.generate import GenerateService
from keyctl.services.issue.order import Order
from keyctl.services.keys.update import ChangeService
from keyctl.services.verify import verify
from keyctl.services.workspace import Workspace
from keyctl.sinks.base import NotTakenError, UnknownError

CANARY = "sk-Canary_supplied_by_a_person-0123456789"
KINDS = ("vault", "aws", "kubernetes")
pytestmark = pytest.mark.parametrize("kind", ["sqlite"], indirect=True)


@pytest.fixture(name="there", params=KINDS)
def _there(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Place]:
    """A secret manager, and its credentials in the environment."""
    with place(request.param) as manager:
        for name, value in manager.environment(tmp_path).items():
            monkeypatch.setenv(name, value)
        yield manager


@pytest.fixture(name="bench")
def _bench(there: Place, workspace: Workspace, tmp_path: Path) -> Bench:
    bench = Bench(workspace, there, tmp_path)
    bench.configure()
    return bench


@pytest.fixture(name="program")
def _program(there: Place, cli: Cli) -> Cli:
    """The program with the sink."""
    cli.configure(there.sink())
    cli.environment.update(there.environment(cli.home))
    return cli


def patient_with(how: Any) -> str:
    """Return a time-out: a short one is only needed where a server keeps the connection."""
    return 'timeout = "4s"' if how in ("hang", "drip") else 'timeout = "30s"'


class TestTaken:
    def test_a_rotation_finds_it_and_writes_a_new_version(self, bench: Bench) -> None:
        """The same name holds the new secret; where there are versions the old one is one of them."""
        key_id = bench.generate()
        [old] = bench.place.held("ci")

        bench.rotate()

        new, *older = bench.place.held("ci")
        assert new != old
        assert older in ([], [old])
        assert (bench.verdict().key_id, bench.verdict().secret_state) == (key_id, "active")
        assert verify(bench.workspace.database, old).secret_state == "retiring"

    def test_a_supplied_key_is_recognised_too(self, bench: Bench) -> None:
        """What keyctl did not make has no public id, and is replaced by its rotation all the same."""
        bench.generate(key=CANARY)
        assert bench.place.held("ci") == [CANARY]

        bench.rotate()

        assert bench.verdict().secret_state == "active"

    def test_without_leave_to_read_the_server_s_word_is_enough_for_a_new_key(
        self, bench: Bench
    ) -> None:
        """Write-only credentials create what is not there; what cannot be read back is not compared."""
        bench.place.server.upset(bench.place.reads, bench.place.forbidden)

        bench.generate()

        bench.place.server.calm()
        assert bench.verdict().secret_state == "active"

    def test_without_leave_to_read_nothing_is_overwritten(self, bench: Bench) -> None:
        """Nobody can tell whose it is: exit 5, and what is there stays as it is.

        AWS tells by the tag and the version, which credentials without the value may see.
        """
        bench.place.plant("ci")
        bench.place.server.upset(bench.place.reads, bench.place.forbidden)

        with pytest.raises(FileTakenError):
            bench.generate()

        bench.place.server.calm()
        assert bench.place.held("ci") == [FOREIGN]
        assert "active" not in bench.states()

    def test_every_key_has_its_own_name(self, bench: Bench) -> None:
        """Aliases that differ in what a store has no place for never meet."""
        aliases = ("a_b", "a-b", "a.b", "A-B", "a b", "ax5fb", "x--ax5fb", "ä", "a/b", "%41", "=41")

        for alias in aliases:
            bench.generate(alias)

        assert len(set(bench.place.names())) == len(aliases)


class TestNotTaken:
    @pytest.mark.parametrize("status", [400, 403, 409, 429])
    def test_a_4xx_is_not_taken(self, bench: Bench, status: int) -> None:
        """A new key is archived; a rotation's secret is revoked, and the old one untouched."""
        bench.place.server.upset(bench.place.writes, status)
        bench.failed(bench.generate)
        assert bench.states() == ["revoked"]
        bench.place.server.calm()
        key_id = bench.generate()
        bench.place.server.upset(bench.place.writes, status)

        bench.failed(bench.rotate)

        assert bench.states(key_id) == ["active", "revoked"]
        assert bench.verdict().secret_state == "active"

    def test_something_foreign_stays(self, bench: Bench) -> None:
        """What is not keyctl's is not replaced, and nothing is written anywhere."""
        bench.place.plant("ci")

        with pytest.raises(FileTakenError):
            bench.generate()

        assert bench.place.held("ci") == [FOREIGN]
        assert bench.states() == []

    def test_what_came_while_the_key_was_made_stays_too(self, bench: Bench) -> None:
        """It is looked at again right before the write: not taken, and the new key is archived."""
        order = Order(request=GenerateRequest(key_alias="ci"), sink="store")
        sink = bench.sink()
        deliver = sink.deliver

        def late(parcel: Any) -> None:
            bench.place.plant("ci")
            deliver(parcel)

        sink.deliver = late

        bench.failed(lambda: GenerateService(bench.workspace).generate(order, sink))

        assert bench.place.held("ci") == [FOREIGN]
        assert bench.states() == ["revoked"]

    def test_another_key_that_works_stays(self, bench: Bench) -> None:
        """Under a name that two keys share, the first one's secret is only replaced once it is dead."""
        first = bench.generate()
        before = bench.place.held("ci")
        ChangeService(bench.workspace).update(first, {"key_alias": "old"})

        with pytest.raises(FileTakenError):
            bench.generate()

        assert bench.place.held("ci") == before
        bench.delete("old")
        second = bench.generate()
        assert bench.verdict().key_id == second

    @pytest.mark.parametrize("how", [500, 307, "reset", "hang", "drip"])
    def test_a_server_that_is_not_well_is_found_out_before(self, bench: Bench, how: Any) -> None:
        """Reading is tried before anything is written, and no key is made."""
        bench.configure(patient_with(how))
        bench.place.server.upset(".", how)
        begun = time.monotonic()

        error = bench.failed(bench.generate)

        assert time.monotonic() - begun < 30  # the server hangs for 60
        assert error.hint
        assert bench.states() == []


class TestUnknown:
    @pytest.mark.parametrize(
        ("how", "taken"),
        [
            *((500, False), (503, True), (307, False), ("drip", True)),
            *((how, taken) for how in ("reset", "hang") for taken in (False, True)),
        ],
    )
    def test_where_nobody_knows_both_secrets_work(
        self, bench: Bench, how: Any, taken: bool
    ) -> None:
        """Whatever the store holds authenticates, the write was tried once, the next one ends it."""
        key_id = bench.generate()
        bench.configure(patient_with(how))
        bench.place.server.upset(bench.place.writes, how, taken=taken)
        bench.place.server.asked.clear()
        begun = time.monotonic()

        error = bench.failed(bench.rotate)

        assert time.monotonic() - begun < 30  # the server hangs for 60
        assert "nobody knows" in error.message
        assert bench.states(key_id) == ["active", "staged"]
        asked = bench.place.server.asked
        assert len([item for item in asked if re.search(bench.place.writes, item)]) == 1
        bench.place.server.calm()
        assert bench.verdict().valid
        bench.configure()
        bench.rotate()
        assert bench.states(key_id) == ["active", "retiring", "retiring"]
        assert bench.verdict().secret_state == "active"

    @pytest.mark.parametrize("how", [500, "reset", "hang"])
    def test_a_new_key_is_archived(self, bench: Bench, how: Any) -> None:
        """Nobody depends on it: revoked, its alias free, and the same request works later."""
        bench.configure('timeout = "3s"')
        bench.place.server.upset(bench.place.writes, how, taken=True)

        bench.failed(bench.generate)

        assert bench.states() == ["revoked"]
        bench.place.server.calm()
        bench.configure()
        bench.generate()
        assert bench.verdict().valid

    @pytest.mark.parametrize("how", [500, 404, "reset"])
    def test_what_cannot_be_read_back_is_unknown(self, bench: Bench, how: Any) -> None:
        """A server that took it and then fails has not proved that it holds it."""
        key_id = bench.generate()
        bench.place.server.upset(bench.place.reads, how, after=bench.place.writes)

        error = bench.failed(bench.rotate)

        assert "nobody knows" in error.message
        assert bench.states(key_id) == ["active", "staged"]
        bench.place.server.calm()
        assert bench.verdict().secret_state == "staged"


class TestRemove:
    def test_a_deleted_key_s_secret_is_removed_once(self, bench: Bench) -> None:
        """What was stored of it is gone; asked again, nothing of it is there."""
        key_id = bench.generate()
        bench.rotate()
        bench.delete("ci")

        assert bench.remove(key_id) is True

        assert bench.place.held("ci") == []
        assert bench.remove(key_id) is False

    def test_another_key_of_the_same_name_is_left_alone(self, bench: Bench) -> None:
        """The alias was free again, and a new key came before the removal did."""
        first = bench.generate()
        bench.delete("ci")
        second = bench.generate()
        current = bench.place.held("ci")[0]

        bench.remove(first)

        assert bench.place.held("ci")[0] == current
        assert bench.verdict().key_id == second

    def test_the_name_can_be_used_again(self, bench: Bench) -> None:
        """After a removal a new key takes the alias, and the store takes its secret."""
        first = bench.generate()
        bench.delete("ci")
        bench.remove(first)

        second = bench.generate()

        assert bench.verdict().key_id == second
        assert bench.remove(first) is False
        assert bench.verdict().key_id == second

    def test_nothing_there_is_nothing_to_remove(self, bench: Bench) -> None:
        """A key of which nothing lies there, and something foreign under its name."""
        key_id = bench.generate()
        bench.remove(key_id)
        assert bench.remove(key_id) is False

    @pytest.mark.parametrize(
        ("how", "error"), [(400, NotTakenError), (500, UnknownError), ("reset", UnknownError)]
    )
    def test_a_failure_says_what_is_known(
        self, bench: Bench, how: Any, error: type[Exception]
    ) -> None:
        """A refusal and a failure are told apart, and either can be tried again."""
        key_id = bench.generate()
        bench.place.server.upset("/delete/|^DELETE|^DeleteSecret", how)

        with pytest.raises(error):
            bench.remove(key_id)

        bench.place.server.calm()
        assert bench.remove(key_id) is True

    def test_without_credentials_it_is_not_removed(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What keeps it from even asking is a refusal too, which is tried again later."""
        key_id = bench.generate()
        for name in bench.place.environment(bench.folder):
            monkeypatch.setenv(name, "")
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")

        with pytest.raises(NotTakenError):
            bench.remove(key_id)


class TestSecrecy:
    @pytest.mark.parametrize("how", [400, 403, 500, "reset"])
    def test_a_server_that_echoes_is_not_repeated(
        self, bench: Bench, database_url: str, how: Any
    ) -> None:
        """Answers that hold what was sent leave no trace in errors, audit trail or database."""
        bench.place.server.upset(bench.place.writes, how)

        error: BaseException | None = bench.failed(lambda: bench.generate(key=CANARY))

        said = everything_stored(database_url)
        while error is not None:
            said += str(error) + repr(error)
            error = error.__cause__ or error.__context__
        assert "Canary" not in said
        assert base64.b64encode(CANARY.encode()).decode() not in said

    def test_clients_that_log_everything_log_no_key(
        self, bench: Bench, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Somebody's hook that turns on every log there is sees no key string."""
        caplog.set_level(logging.DEBUG)

        bench.generate(key=CANARY)

        assert bench.place.held("ci") == [CANARY]
        assert "Canary" not in caplog.text
        assert base64.b64encode(CANARY.encode()).decode() not in caplog.text


class TestProgram:
    def test_what_is_stored_is_the_key_and_nothing_else_says_it(
        self, program: Cli, there: Place
    ) -> None:
        """The key string is in the store, verifies, and is nowhere else."""
        made = program("generate", "--alias", "ci", "--deliver", "store", "-o", "json", check=True)

        [key] = there.held("ci")
        assert program.verdict(key)["key_id"] == made.json["key_id"]
        assert "key" not in made.json
        secret = key.partition("_")[2]
        assert secret not in made.stdout + made.stderr
        assert secret not in everything_stored(str(program.database_url))

    def test_a_refusal_is_exit_8(self, program: Cli, there: Place) -> None:
        """With nothing on stdout, and the reason without the request."""
        there.server.upset(there.writes, 400)

        failed = program("generate", "--alias", "ci", "--deliver", "store", "-o", "json")

        assert (failed.exit_code, failed.stdout) == (8, "")
        assert "the server answered 400" in failed.error["message"]

    def test_something_foreign_is_exit_5(self, program: Cli, there: Place) -> None:
        """As for a file that is not keyctl's."""
        there.plant("ci")

        refused = program("generate", "--alias", "ci", "--deliver", "store", "-o", "json")

        assert (refused.exit_code, refused.stdout, refused.error["code"]) == (5, "", "file_exists")

    def test_missing_credentials_are_exit_8(self, program: Cli, there: Place) -> None:
        """Before anything is written, and with what to set."""
        for name in there.environment(program.home):
            del program.environment[name]
        program.environment["AWS_EC2_METADATA_DISABLED"] = "true"

        failed = program("generate", "--alias", "ci", "--deliver", "store", "-o", "json")

        assert (failed.exit_code, failed.stdout) == (8, "")
        assert failed.error["hint"]
        assert program.secrets() == {}

    def test_a_missing_client_is_exit_8(self, program: Cli) -> None:
        """Before anything is written, and with the command that installs it."""
        source = (
            "import sys\nfor name in ('hvac', 'boto3', 'kubernetes'): sys.modules[name] = None\n"
            "sys.argv[1:] = ['generate', '--alias', 'ci', '--deliver', 'store']\n"
            "from keyctl.entry import main\nmain()\n"
        )

        done = subprocess.run(
            [sys.executable, "-c", source],
            env=program.environment,
            cwd=program.home,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

        assert (done.returncode, done.stdout) == (8, "")
        assert "pip install 'llm-keyctl[" in done.stderr
        assert program.secrets() == {}

    def test_a_local_server_is_asked_without_a_proxy(self, program: Cli) -> None:
        """Plain http is for this machine only, and does not leave it by way of a proxy."""
        proxy = "http://127.0.0.1:9"
        for name in ("http_proxy", "HTTP_PROXY"):
            program.environment[name] = proxy
        program("generate", "--alias", "ci", "--deliver", "store", check=True)

    def test_deleting_a_key_removes_what_is_stored(self, program: Cli, there: Place) -> None:
        """Right after the commit, as an event like any other."""
        program("generate", "--alias", "ci", "--deliver", "store", check=True)

        deleted = program("delete", "ci")

        assert (deleted.exit_code, deleted.stderr) == (0, "")
        assert there.held("ci") == []
        listed = program("events", "list", "--delivered", "-o", "json", check=True).json["events"]
        assert [(row["event"], row["hook"]) for row in listed] == [("key_deleted", "sinks.store")]

    @pytest.mark.parametrize("how", ["default_sink", "deliver"])
    def test_what_a_rotation_alone_has_stored_is_removed_too(
        self, program: Cli, there: Place, how: str
    ) -> None:
        """The key has no sink of its own: the rotation went to `default_sink`, or where it was told."""
        program.configure('default_sink = "store"\n' + there.sink())
        program(
            *("generate", "--alias", "ci", "--auto-rotate", "--rotation-interval", "1s"), check=True
        )
        if how == "deliver":
            program("rotate", "ci", "--deliver", "store", check=True)
        else:
            time.sleep(1)
            program("rotate", "--due", check=True)
        assert len(there.held("ci")) == 1

        program("delete", "ci", check=True)

        assert there.held("ci") == []

    def test_a_removal_that_fails_is_tried_again_and_spares_a_successor(
        self, program: Cli, there: Place
    ) -> None:
        """The key is gone all the same; by then its alias, and the name, may be another key's."""
        program("generate", "--alias", "ci", "--deliver", "store", check=True)
        there.server.upset("", 500)
        deleted = program("delete", "ci")
        assert deleted.exit_code == 0
        assert "warning: sinks.store: " in deleted.stderr
        there.server.calm()
        made = program("generate", "--alias", "ci", "--deliver", "store", "-o", "json", check=True)

        program("events", "retry", "--all", check=True)

        [key] = there.held("ci")[:1]
        assert program.verdict(key)["key_id"] == made.json["key_id"]
        assert program("events", "list", "-o", "json", check=True).json["events"] == []

    def test_a_key_that_came_to_nothing_is_removed_too(self, program: Cli, there: Place) -> None:
        """A server that took it and failed to say so may hold what nobody asked for."""
        there.server.upset(there.writes, 500, taken=True)
        assert program("generate", "--alias", "ci", "--deliver", "store").exit_code == 8
        there.server.calm()
        program("events", "retry", "--all")

        assert there.held("ci") == []
        assert program("events", "list", "-o", "json", check=True).json["events"] == []
