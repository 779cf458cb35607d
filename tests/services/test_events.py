"""Events that leave the program: written with the change, sent at least once, never in the way of it."""

import os
import select
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from harness import Cli
from processes import group
from receivers import SECRET, WebServer, lines_of, web_server

from keyctl.config.document import read
from keyctl.services.events.sender import pause_after
from keyctl.services.events.service import EventService
from keyctl.services.workspace import Workspace

WEBHOOK = """
bcrypt_cost = 4
[hooks.siem]
type = "webhook"
url = "{url}"
secret_file = "{home}/webhook-secret"
timeout = "2s"
events = {events}
"""
EVERYTHING = '["*"]'
USUAL = '["key_generated", "key_rotated", "key_deleted", "key_updated", "key_blocked"]'
FUNCTION = """
import json, os, sys, time
from pathlib import Path

FOLDER = Path(__file__).parent

def note(event):
    with open(FOLDER / "noted", "a") as file:
        file.write(json.dumps(event) + "\\n")

def tell(event):
    (FOLDER / "environment").write_text(" ".join(os.environ))

def fail(event):
    raise ValueError(event)

def dawdle_once(event):
    pid = FOLDER / "pid"
    if pid.exists():
        return
    (FOLDER / "pid.new").write_text(str(os.getpid()))
    (FOLDER / "pid.new").rename(pid)
    time.sleep(60)

def leave(event):
    sys.exit()

def leave_at_once(event):
    os._exit(0)

def hang(event):
    time.sleep(60)
"""


@pytest.fixture(name="web")
def _web() -> Iterator[WebServer]:
    """A web server that verifies signatures."""
    with web_server() as server:
        yield server


@pytest.fixture(name="hooked")
def _hooked(cli: Cli, web: WebServer) -> Cli:
    """The program with a webhook for the usual events."""
    return with_webhook(cli, web, USUAL)


def with_webhook(cli: Cli, web: WebServer, events: str) -> Cli:
    """Configure a webhook for *events*."""
    (cli.home / "webhook-secret").write_text(f"{SECRET}\n")
    cli.configure(WEBHOOK.format(url=web.url, home=cli.home, events=events))
    return cli


def waiting(cli: Cli, *options: str) -> list[Any]:
    """Return what the outbox holds."""
    return list(cli("events", "list", *options, "-o", "json", check=True).json["events"])


def make_due(cli: Cli) -> None:
    """Let every pause be over."""
    cli.execute("UPDATE outbox SET next_at = '2020-01-01 00:00:00', claimed_until = NULL")


def told(web: WebServer) -> list[tuple[str, str]]:
    """Return the type of each event that arrived and the object it is about."""
    return [(item.body["type"], item.body["data"]["object_id"]) for item in web.received]


class TestWebhook:
    def test_a_change_is_told_signed_as_soon_as_it_is_committed(
        self, hooked: Cli, web: WebServer
    ) -> None:
        """Each change of a key arrives once, in order, verified by the specification's library."""
        answer = hooked("generate", "--alias", "ci", "-o", "json", check=True).json
        hooked("update", "ci", "--max-budget", "5", check=True)
        hooked("rotate", "ci", check=True)
        hooked("block", "ci", check=True)
        hooked("delete", "ci", check=True)

        names = ["key_generated", "key_updated", "key_rotated", "key_blocked", "key_deleted"]
        assert told(web) == [(name, answer["key_id"]) for name in names]
        assert len({item.id for item in web.received}) == 5
        assert waiting(hooked) == []
        assert [row["event"] for row in waiting(hooked, "--delivered")] == names

    def test_the_event_tells_who_what_and_how_the_key_is_now(
        self, hooked: Cli, web: WebServer
    ) -> None:
        """It names actor, audit number, what changed, and the key's fields as `info` shows them."""
        hooked("generate", "--alias", "ci", "--max-budget", "2", check=True)

        result = hooked(
            "update", "ci", "--max-budget", "5.5", "--changed-by", "alice", "-o", "json"
        )

        body = web.received[-1].body
        assert set(body) == {"type", "timestamp", "data"}
        data = body["data"]
        assert (data["changed_by"], data["seq"]) == ("alice", result.json["audit"]["seq"])
        assert data["changes"]["max_budget"] == {"before": "2", "after": "5.5"}
        assert data["key"]["max_budget"] == 5.5
        assert data["key"]["key_alias"] == "ci"

    def test_an_event_keeps_to_the_schema_that_keyctl_prints(
        self, cli: Cli, web: WebServer
    ) -> None:
        """`keyctl schema event` describes what arrives, whatever the event."""
        import jsonschema

        with_webhook(cli, web, EVERYTHING)
        cli("team", "create", "web", check=True)
        cli("generate", "--team", "web", "--alias", "ci", check=True)
        cli("generate", "--alias", "ci")
        cli("rotate", "ci", check=True)
        schema = cli("schema", "event", check=True).json

        assert {"team_created", "key_staged", "key_rotated"} <= {kind for kind, _ in told(web)}
        for item in web.received:
            jsonschema.validate(item.body, schema)

    def test_nothing_that_leaves_holds_a_key_string(self, cli: Cli, web: WebServer) -> None:
        """Neither the outbox nor a request carries any of it."""
        with_webhook(cli, web, EVERYTHING)
        keys = [cli.key("--alias", "ci"), cli("rotate", "ci", check=True).stdout.strip()]
        web.behaviour = "500"
        keys.append(cli.key("--alias", "other"))

        sent = repr([item.body for item in web.received]) + repr(waiting(cli))
        assert not [key for key in keys if key in sent or key[-40:] in sent]

    @pytest.mark.parametrize("behaviour", ["500", "301", "404", "hang", "reset", "drip"])
    def test_a_server_that_fails_neither_fails_nor_delays_the_command(
        self, hooked: Cli, web: WebServer, behaviour: str
    ) -> None:
        """Exit 0 with the key, within the time-out, a warning on stderr, and a row to retry."""
        web.behaviour = behaviour
        begun = time.monotonic()

        result = hooked("generate", "--alias", "ci")

        assert time.monotonic() - begun < 20  # the time-out is 2; the server hangs for 30
        assert result.exit_code == 0
        assert hooked.verdict(result.stdout.strip())["valid"]
        assert "warning: hooks.siem: " in result.stderr
        (row,) = waiting(hooked, "--failed")
        assert (row["event"], row["attempts"]) == ("key_generated", 1)
        assert web.attempts == 1  # a redirect is not followed

    def test_a_server_that_is_not_there_is_a_row_to_retry(
        self, hooked: Cli, web: WebServer
    ) -> None:
        """A refused connection says so; the event is sent when the server is back."""
        good = hooked.config.read_text()
        hooked.configure(good.replace(web.url, "http://127.0.0.1:9/"))
        assert "refused" in hooked("generate", "--alias", "ci").stderr.lower()
        hooked.configure(good)
        assert hooked("events", "deliver").stdout == ""  # not due yet

        result = hooked("events", "retry", "--all", "-o", "json")

        assert [item["result"] for item in result.json["results"]] == ["delivered"]
        assert [kind for kind, _ in told(web)] == ["key_generated"]

    def test_a_local_server_is_told_without_a_proxy(self, hooked: Cli, web: WebServer) -> None:
        """Plain http is for this machine only, and does not leave it by way of a proxy."""
        hooked.environment["http_proxy"] = "http://127.0.0.1:9"
        hooked("generate", "--alias", "ci", check=True)
        assert [kind for kind, _ in told(web)] == ["key_generated"]

    def test_a_retry_has_the_same_id(self, hooked: Cli, web: WebServer) -> None:
        """Who takes an event twice can tell by its id."""
        web.behaviour = "500"
        hooked("generate", "--alias", "ci", check=True)
        (row,) = waiting(hooked)
        web.behaviour = "200"
        make_due(hooked)

        result = hooked("events", "deliver", "-o", "jsonl")

        assert (result.exit_code, [item.id for item in web.received]) == (0, [row["event_id"]])
        assert [line["result"] for line in lines_of(result.stdout)] == ["delivered"]

    def test_what_fails_again_is_exit_9_and_waits_longer(self, hooked: Cli, web: WebServer) -> None:
        """A run in which some events failed says which and when they are tried again."""
        web.behaviour = "500"
        hooked("generate", "--alias", "ci", check=True)
        make_due(hooked)

        result = hooked("events", "deliver", "-o", "json")

        assert result.exit_code == 9
        (line,) = result.json["results"]
        assert (line["result"], line["reason"]) == ("failed", "HTTP 500")
        (row,) = waiting(hooked, "--failed")
        assert (row["attempts"], row["last_error"]) == (2, "HTTP 500")

    def test_a_hook_that_keeps_failing_is_left_alone_for_the_run(
        self, hooked: Cli, web: WebServer
    ) -> None:
        """After three failures in a row the rest stays due: a dead server does not cost hours."""
        web.behaviour = "500"
        hooked("generate", "--count", "10", "--alias", "c-{n}", "-o", "jsonl", check=True)
        make_due(hooked)
        web.attempts = 0

        assert hooked("events", "deliver").exit_code == 9

        assert web.attempts == 3
        assert len(waiting(hooked)) == 10

    def test_a_missing_secret_file_fails_the_event_only(self, hooked: Cli, web: WebServer) -> None:
        """Nothing is sent unsigned."""
        (hooked.home / "webhook-secret").unlink()

        result = hooked("generate", "--alias", "ci")

        assert (result.exit_code, web.attempts) == (0, 0)
        assert "secret_file: the file that it names cannot be read" in result.stderr

    def test_a_hook_that_the_configuration_forgot_strands_its_events(
        self, hooked: Cli, web: WebServer
    ) -> None:
        """They are neither lost nor tried; `deliver` says so, and `discard` gives them up on record."""
        web.behaviour = "500"
        hooked("generate", "--alias", "ci", check=True)
        hooked.configure("bcrypt_cost = 4\n")
        make_due(hooked)

        result = hooked("events", "deliver")

        assert result.exit_code == 0
        assert result.stderr == "1 event for hooks.siem, which is not configured here\n"
        (row,) = waiting(hooked)
        hooked("events", "discard", row["event_id"], "--reason", "moved away", check=True)
        assert waiting(hooked) == []
        found = hooked(
            "audit", "list", "--action", "event_discarded", "-o", "json", check=True
        ).json
        assert [event["reason"] for event in found["events"]] == ["moved away"]

    def test_a_row_that_is_broken_holds_up_no_other(self, hooked: Cli, web: WebServer) -> None:
        """What somebody has written into the outbox fails alone, and waits like what a server refused."""
        web.behaviour = "500"
        hooked("generate", "--count", "4", "--alias", "c-{n}", "-o", "jsonl", check=True)
        web.behaviour = "200"
        make_due(hooked)
        first, second, third, _ = [row["seq"] for row in waiting(hooked)]
        hooked.execute(f"UPDATE outbox SET payload = '{{' WHERE seq = {first}")
        hooked.execute(f"UPDATE outbox SET payload = '{{}}' WHERE seq = {second}")
        hooked.execute(f"UPDATE outbox SET created_at = 'infinity' WHERE seq = {third}")

        result = hooked("events", "deliver", "-o", "json")

        assert result.exit_code == 9
        broken = "the event is not what was written"
        told = [(item["result"], item["reason"]) for item in result.json["results"]]
        assert told == [("failed", broken), ("failed", broken), *[("delivered", None)] * 2]
        assert {row["last_error"] for row in waiting(hooked)} == {broken}
        assert hooked("events", "deliver").stdout == ""  # not due yet

    def test_an_event_that_is_not_there_is_exit_3(self, hooked: Cli) -> None:
        """Retry and discard say so."""
        hooked.key()
        assert hooked("events", "retry", "evt_none").exit_code == 3
        assert hooked("events", "discard", "evt_none", "--reason", "x").exit_code == 3


class TestWhenItIsSent:
    @pytest.mark.parametrize("step", ["staged", "delivered", "confirm_uncommitted"])
    def test_a_change_that_was_not_committed_is_never_told(
        self, hooked: Cli, web: WebServer, step: str
    ) -> None:
        """A run killed before its confirm is committed leaves nothing in the outbox."""
        hooked.killed(step, "generate", "--alias", "ci")

        assert waiting(hooked) == []
        assert hooked("events", "deliver").exit_code == 0
        assert web.received == []

    @pytest.mark.parametrize("step", ["confirmed", "sending", "sent"])
    def test_a_change_that_was_committed_is_told_at_least_once(
        self, hooked: Cli, web: WebServer, step: str
    ) -> None:
        """However a run is killed after its commit, the next delivery tells of it, under one id."""
        hooked.killed(step, "generate", "--alias", "ci")

        result = hooked("events", "deliver", "-o", "jsonl")

        assert [line["result"] for line in lines_of(result.stdout)] == ["delivered"]
        assert len(web.received) == (2 if step == "sent" else 1)
        assert len({item.id for item in web.received}) == 1
        assert waiting(hooked) == []

    def test_every_key_of_a_bulk_run_is_told(self, hooked: Cli, web: WebServer) -> None:
        """What the time-out left over is sent by the next delivery; nothing twice."""
        hooked("generate", "--count", "50", "--alias", "c-{n}", "-o", "jsonl", check=True)
        hooked("events", "deliver", check=True)

        aliases = Counter(item.body["data"]["key"]["key_alias"] for item in web.received)
        assert aliases == {f"c-{number}": 1 for number in range(1, 51)}

    def test_a_command_that_wrote_very_many_events_ends_well(
        self, workspace: Workspace, tmp_path: Path
    ) -> None:
        """It sends what it has time for; naming all of them would be more than a statement can hold."""
        hook = {"type": "webhook", "url": "https://127.0.0.1:9/", "secret_file": str(tmp_path)}
        settings = read({"hooks": {"siem": hook}})
        busy = replace(workspace, settings=settings)
        busy.outgoing.extend(f"evt_{number}" for number in range(300_000))

        assert EventService(busy).deliver_own() == []
        assert busy.outgoing == []

    def test_a_command_waits_no_longer_than_a_hook_s_own_time_out(
        self, hooked: Cli, web: WebServer
    ) -> None:
        """Neither another hook's longer one nor several events give a server that hangs more time."""
        hooked.configure(
            hooked.config.read_text() + '[hooks.ledger]\ntype = "python"\nfunction = "acme:note"\n'
            'timeout = "1h"\nevents = ["team_created"]\n'
        )
        web.behaviour = "hang"

        hooked("generate", "--count", "4", "--alias", "c-{n}", "-o", "jsonl", check=True)

        assert web.attempts == 1
        assert [row["attempts"] for row in waiting(hooked)] == [1, 0, 0, 0]

    def test_sigterm_ends_the_sending_and_not_the_command(
        self, hooked: Cli, web: WebServer
    ) -> None:
        """The key was made and shown: exit 0, as with Ctrl-C, and a warning that the events wait."""
        web.behaviour = "hang"
        process = hooked.start("generate", "--alias", "ci")
        assert web.arrived.wait(60)

        process.terminate()

        out, err = process.communicate(timeout=60)
        assert (process.returncode, hooked.verdict(out.decode().strip())["valid"]) == (0, True)
        assert b"warning: events: interrupted; tried again by keyctl events deliver" in err
        assert [row["event"] for row in waiting(hooked)] == ["key_generated"]

    @pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
    def test_a_fault_while_sending_does_not_fail_the_command(self, hooked: Cli) -> None:
        """Whatever goes wrong after the commit, the change is made: exit 0 and a warning."""
        hooked.key()
        hooked.execute(
            "CREATE TRIGGER fault BEFORE UPDATE ON outbox BEGIN SELECT RAISE(ABORT, 'x'); END"
        )

        result = hooked("generate", "--alias", "ci")

        assert (result.exit_code, hooked.verdict(result.stdout.strip())["valid"]) == (0, True)
        assert "warning: events: not sent, because of a fault; tried again" in result.stderr

    @pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
    def test_an_error_in_json_is_alone_on_stderr(self, cli: Cli, web: WebServer) -> None:
        """A hook that fails adds no line to it; without JSON it warns as always."""
        cli("user", "create", "bob", check=True)
        bob = {"KEYCTL_API_KEY": cli.key("--user", "bob")}
        with_webhook(cli, web, EVERYTHING)
        web.behaviour = "500"

        as_json = cli("team", "create", "mine", "-o", "json", environment=bob)
        as_text = cli("team", "create", "mine", environment=bob)

        assert (as_json.exit_code, as_json.stderr.count("\n")) == (4, 1)
        assert as_json.error["code"] == "denied"
        assert "warning: hooks.siem: HTTP 500" in as_text.stderr
        assert [row["event"] for row in waiting(cli, "--failed")] == ["team_create_denied"] * 2

    def test_any_number_of_deliveries_send_each_event_once(
        self, hooked: Cli, web: WebServer
    ) -> None:
        """Six processes at once on 60 events: each arrives once, and all of them succeed."""
        web.behaviour = "500"
        hooked("generate", "--count", "60", "--alias", "c-{n}", "-o", "jsonl", check=True)
        web.behaviour = "200"
        make_due(hooked)

        results = hooked.race([["events", "deliver", "-o", "jsonl"]] * 6)

        assert [result.exit_code for result in results] == [0] * 6, [r.stderr for r in results]
        assert sum(len(result.stdout.splitlines()) for result in results) == 60
        assert Counter(Counter(item.id for item in web.received).values()) == {1: 60}
        assert waiting(hooked) == []

    def test_the_pauses_double_up_to_six_hours(self) -> None:
        """30 s, 1 min, 2 min, …, each times a half to one by chance."""
        longest = [pause_after(attempts, jitter=1) for attempts in range(1, 13)]

        minutes = [0.5, 1, 2, 4, 8, 16, 32, 64, 128, 256, 360, 360]
        assert longest == [timedelta(minutes=length) for length in minutes]
        assert [pause_after(attempts, jitter=0) * 2 for attempts in range(1, 13)] == longest
        assert pause_after(1000, jitter=1) == timedelta(hours=6)


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
class TestPythonFunction:
    def test_it_is_called_with_the_event(self, cli: Cli) -> None:
        """It gets id, type, timestamp and data."""
        with_function(cli, "note")
        cli("generate", "--alias", "ci", check=True)

        (event,) = lines_of((cli.home / "noted").read_text())
        assert (event["type"], event["data"]["key"]["key_alias"]) == ("key_generated", "ci")
        assert event["id"].startswith("evt_")

    def test_it_gets_none_of_keyctl_s_credentials(self, cli: Cli) -> None:
        """Neither the database's URL nor that of what is imported."""
        with_function(cli, "tell")
        cli.environment["KEYCTL_SOURCE_URL"] = "postgresql://a:b@c/d"
        cli("generate", "--alias", "ci", check=True)

        inherited = (cli.home / "environment").read_text().split()
        assert [name for name in inherited if name.startswith("KEYCTL_")] == ["KEYCTL_CONFIG"]

    @pytest.mark.parametrize("name", ["fail", "leave", "leave_at_once", "hang", "missing"])
    def test_one_that_does_not_return_is_a_row_to_retry(self, cli: Cli, name: str) -> None:
        """The command succeeds and warns."""
        with_function(cli, name)

        result = cli("generate", "--alias", "ci")

        assert result.exit_code == 0
        assert "warning: hooks.ledger: hook ledger " in result.stderr
        assert len(waiting(cli, "--failed")) == 1


class TestPythonFunctionWhoseRunEnds:
    def started(self, cli: Cli) -> tuple["subprocess.Popen[bytes]", str]:
        """Start a command whose hook takes long; return it and the id of the hook's process."""
        with_function(cli, "dawdle_once", timeout="50s")
        process = cli.start("generate", "--alias", "ci")
        pid = cli.home / "pid"
        while not pid.exists() and process.poll() is None:
            time.sleep(0.05)
        return process, pid.read_text()

    def test_it_is_not_called_again_beside_itself(self, cli: Cli) -> None:
        """Of a killed run the function goes on, and its event stays claimed until it is dead too."""
        process, pid = self.started(cli)
        process.kill()
        process.communicate()

        assert cli("events", "deliver").stdout == ""

        with open(os.pidfd_open(int(pid))) as dying:
            os.killpg(int(pid), signal.SIGKILL)
            select.select([dying], [], [], 30)
        result = cli("events", "deliver", "--deadline", "1mo", "-o", "jsonl")
        assert [line["result"] for line in lines_of(result.stdout)] == ["delivered"]

    def test_it_ends_with_a_run_that_is_interrupted(self, cli: Cli) -> None:
        """Its event is free at once, because nobody is at it any more."""
        process, pid = self.started(cli)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)

        assert group(pid) == []

        result = cli("events", "deliver", "-o", "jsonl")
        assert [line["result"] for line in lines_of(result.stdout)] == ["delivered"]


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
class TestConfiguration:
    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ('type = "webhook"\nurl = "http://example.com/"\nsecret_file = "/s"', "https://"),
            ('type = "webhook"\nurl = "https://u:p@example.com/"\nsecret_file = "/s"', "password"),
            ('type = "webhook"\nurl = "https://u@example.com/"\nsecret_file = "/s"', "password"),
            ('type = "webhook"\nurl = "https://h\\\\@example.com"\nsecret_file = "/s"', "password"),
            ('type = "webhook"\nurl = "https://example.com/"\nsecret_file = "s"', "absolute"),
            ('type = "webhook"\nurl = "https://example.com/"', "secret_file"),
            ('type = "mail"\nto = "ops@example.com"', "there is no [smtp]"),
            ('type = "python"\nfunction = "not a function"', "module:function"),
            ('type = "python"\nfunction = "a:b"\nevents = ["key_exploded"]', "is no event"),
            ('type = "python"\nfunction = "a:b"\nevents = []', "at least 1"),
        ],
    )
    def test_a_hook_that_cannot_work_is_refused(self, cli: Cli, text: str, said: str) -> None:
        """Exit 2, before anything is written, with what is wrong."""
        cli.configure(f"[hooks.x]\n{text}\n")

        result = cli("generate")

        assert (result.exit_code, result.stdout) == (2, "")
        assert said in result.stderr

    def test_an_address_in_what_a_webhook_is_asked_is_no_user(self, cli: Cli) -> None:
        """An `@` behind the host sends the password of nobody."""
        cli.configure(
            '[hooks.x]\ntype = "webhook"\nsecret_file = "/s"\n'
            'url = "https://example.com/keys@v1?to=ops@example.com"\n'
        )

        assert cli("config", "show").exit_code == 0

    def test_mail_without_encryption_stays_on_this_host(self, cli: Cli) -> None:
        """`tls = "none"` is refused for another one."""
        cli.configure('[smtp]\nhost = "mail.example.com"\ntls = "none"\nsender_email = "a@b"\n')

        assert 'tls = "none" is for a server on this host only' in cli("generate").stderr


def with_function(cli: Cli, name: str, *, timeout: str = "2s") -> None:
    """Configure a hook that is a Python function."""
    (cli.home / "acme_hook.py").write_text(FUNCTION)
    cli.environment["PYTHONPATH"] = str(cli.home)
    cli.configure(
        "bcrypt_cost = 4\n[hooks.ledger]\n"
        f'type = "python"\nfunction = "acme_hook:{name}"\ntimeout = "{timeout}"\n'
    )
