"""The audit trail: what is on record, and that nobody changes it unseen."""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from clock import Clock
from harness import Cli
from sqlalchemy import Connection, delete, insert, select, text, update

from keyctl import jsontext
from keyctl.db.database import Database
from keyctl.db.queries import audit
from keyctl.db.queries.audit import GENESIS, Event, Head
from keyctl.db.queries.events import Conditions
from keyctl.db.tables import audit_events, audit_head
from keyctl.errors import BrokenChainError
from keyctl.services.audit import AuditService
from keyctl.services.workspace import Workspace

EVENTS = 1000
COLUMNS = [column.name for column in audit_events.c]
# What each column is changed to: something of its kind, and for text also nothing or something.
CHANGES: dict[str, list[Any]] = {
    "seq": [5000],
    "at": [
        "2031-01-01 00:00:00.000001",
        "2030-01-31 12:00:00.000000+09:00",
        "2030-01-31 12:00:00 BC",
        "20000-01-01 00:00:00",
        "infinity",
        "-infinity",
    ],
    "actor": ["local:mallory@host", ""],
    "changed_by": ["mallory", None, ""],
    "action": ["key_updated"],
    "object_type": ["team"],
    "object_id": ["key_another"],
    "before": ['{"max_budget":"1"}', None, ""],
    "after": ['{"max_budget":"1"}', None, ""],
    "reason": ["because", None, ""],
    "prev_hash": ["f" * 64],
    "hash": ["f" * 64],
}
# Other texts that read as the instant of the events in these tests.
SAME_INSTANT = (
    "2030-01-31T12:00:00.000000",
    "2030-01-31T12:00:00.000000Z",
    "2030-01-31 12:00:00.000000+00:00",
    "2030-01-31 12:00:00",
    "20300131T120000",
)


@pytest.fixture(name="log")
def _log(workspace: Workspace, clock: Clock) -> Database:
    """A chain of a thousand events with every column filled or empty."""
    database = workspace.database
    events = [
        Event(
            actor="local:tester@host",
            changed_by="alice" if number % 2 else None,
            action="key_generated",
            object_type="key",
            object_id=f"key_{number}",
            before={"number": number} if number % 3 else None,
            after={"number": number + 1} if number % 5 else None,
            reason="why" if number % 7 else None,
        )
        for number in range(1, EVENTS + 1)
    ]
    with database.write() as connection:
        audit.append(connection, events, at=clock.now)
    return database


def service(workspace: Workspace) -> AuditService:
    """Return what reads the trail."""
    return AuditService(workspace)


def verified(workspace: Workspace, expected: Head | None = None) -> Head:
    """Return the head of a chain that holds."""
    return service(workspace).verify(expected=expected, step=lambda: None)


def broken(workspace: Workspace, expected: Head | None = None) -> str:
    """Return what is said of a chain that does not hold."""
    with pytest.raises(BrokenChainError) as caught:
        verified(workspace, expected)
    return caught.value.message


def tampered(workspace: Workspace, change: Callable[[Connection], object]) -> str:
    """Change the log behind keyctl's back, return what verify says, and take the change back."""
    database = workspace.database
    with database.engine.connect() as connection, connection.begin() as transaction:
        change(connection)
        said = chain_says(connection)
        transaction.rollback()
    return said


def chain_says(connection: Connection) -> str:
    """Return why the chain that *connection* sees does not hold, "" if it does."""
    try:
        for _ in audit.check_chain(connection):
            pass
    except audit.BrokenLinkError as error:
        return str(error)
    return ""


class TestMutations:
    def test_an_untouched_log_holds(self, workspace: Workspace, log: Database) -> None:
        """A thousand events verify, and the head is the last of them."""
        head = verified(workspace)

        with log.read() as connection:
            assert head == audit.find_head(connection) == Head(EVENTS, head.hash)

    def test_every_change_of_a_field_is_found(self, workspace: Workspace, log: Database) -> None:
        """Each column of the first, a middle and the last event is changed in turn; each is named."""
        missed = []
        for seq in (1, 2, 500, 501, EVENTS):
            for name in COLUMNS:
                for value in CHANGES[name]:
                    said = tampered(workspace, changing(seq, name, value))
                    if f"event {seq}" not in said and not is_no_change(log, seq, name, value):
                        missed.append((seq, name, value, said))

        assert missed == []

    @pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
    def test_an_instant_kept_as_text_has_one_form(
        self, workspace: Workspace, log: Database
    ) -> None:
        """Where the database takes any text, no other one that means the same instant passes."""
        assert log.is_sqlite
        for form in SAME_INSTANT:
            said = tampered(workspace, changing(500, "at", form))
            assert said == "event 500 is not what was written", form

    @pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
    def test_bytes_that_are_no_text_are_found(self, workspace: Workspace, log: Database) -> None:
        """What the driver cannot read is named as well, wherever in a batch it is."""
        assert log.is_sqlite
        for seq in (1, 500, EVENTS):
            statement = f"UPDATE audit_events SET actor = CAST(x'ff' AS TEXT) WHERE seq = {seq}"
            said = tampered(workspace, running(statement))
            assert said == f"event {seq} is not what was written"

    def test_every_deletion_is_found(self, workspace: Workspace, log: Database) -> None:
        """Whichever event is deleted, it is the first that does not fit; the last is missed by the head."""
        for seq in (1, 2, 499, 500, EVENTS - 1):
            said = tampered(workspace, partial(remove, seq=seq))
            assert said == f"event {seq} is missing: event {seq + 1} is next"
        said = tampered(workspace, partial(remove, seq=EVENTS))
        assert said == f"the chain ends at event {EVENTS - 1}, the head says otherwise"

    def test_every_swap_is_found(self, workspace: Workspace, log: Database) -> None:
        """Two events that change places are found at the first of them."""
        for first, second in ((1, 2), (1, EVENTS), (500, 501), (EVENTS - 1, EVENTS)):
            said = tampered(workspace, partial(swap, first=first, second=second))
            assert said == f"event {first} does not follow the event before it"

    def test_every_insertion_is_found(self, workspace: Workspace, log: Database) -> None:
        """An event put in between or behind is found, whatever it claims to follow."""
        for after in (0, 1, 500, EVENTS - 1):
            said = tampered(workspace, partial(squeeze_in, after=after))
            # The one put in may fit what is before it; what is behind it does not fit any more.
            assert said == f"event {after + 2} does not follow the event before it"
        said = tampered(workspace, partial(squeeze_in, after=EVENTS))
        assert said == f"the chain ends at event {EVENTS + 1}, the head says otherwise"

    def test_every_truncation_is_found(self, workspace: Workspace, log: Database) -> None:
        """Whatever is cut off at the end, the head tells; cutting everything, too."""
        for left in (EVENTS - 1, 500, 1, 0):
            said = tampered(workspace, partial(cut, seq=left))
            assert said == f"the chain ends at event {left}, the head says otherwise"

    def test_a_missing_head_is_found(self, workspace: Workspace, log: Database) -> None:
        """Without its head the chain does not hold."""
        assert "the head says otherwise" in tampered(
            workspace, lambda c: c.execute(delete(audit_head))
        )


class TestKeptHeads:
    def test_a_truncated_tail_with_a_rewritten_head_is_found(
        self, workspace: Workspace, log: Database
    ) -> None:
        """Who cuts the end off and moves the head is caught by a head that was kept elsewhere."""
        kept = verified(workspace)
        cut_at(log, EVENTS - 10)

        assert verified(workspace).seq == EVENTS - 10
        assert broken(workspace, kept) == (
            f"the audit chain ends at event {EVENTS - 10}: event {EVENTS} is missing"
        )

    def test_a_chain_that_was_computed_anew_is_found(
        self, workspace: Workspace, log: Database, clock: Clock
    ) -> None:
        """Who replaces the tail by events that fit is caught by a head from the middle of it."""
        kept = verified(workspace)
        cut_at(log, EVENTS - 10)
        other = Event(
            actor="local:mallory@host",
            changed_by=None,
            action="key_deleted",
            object_type="key",
            object_id="key_1",
        )
        with log.write() as connection:
            audit.append(connection, [other] * 10, at=clock.now)

        assert verified(workspace).seq == EVENTS
        assert broken(workspace, kept) == (
            f"event {EVENTS} has another hash than the head that was kept"
        )

    def test_an_older_head_that_was_kept_still_fits(
        self, workspace: Workspace, log: Database, clock: Clock
    ) -> None:
        """Events that came later do not hurt."""
        kept = verified(workspace)
        with log.write() as connection:
            audit.append(
                connection,
                [replace(_some_event(), object_id=str(number)) for number in range(5)],
                at=clock.now + timedelta(seconds=1),
            )

        assert verified(workspace, kept).seq == EVENTS + 5


class TestCommands:
    def test_verify_says_that_the_chain_holds(self, cli: Cli) -> None:
        """It prints number and hash of the last event, which `audit head` prints too."""
        cli.key("--alias", "ci")
        head = cli("audit", "head", "-o", "json", check=True).json

        result = cli("audit", "verify", "-o", "json")

        assert (result.exit_code, result.json) == (0, {"valid": True, **head})
        plain = cli("audit", "verify")
        assert plain.stdout == f"{head['seq']} events, unbroken: {head['head']}\n"

    def test_verify_of_a_broken_chain_is_exit_11_and_names_the_event(self, cli: Cli) -> None:
        """A changed row is named, on stderr, and stdout stays empty."""
        cli.key("--alias", "ci")
        cli.execute("UPDATE audit_events SET actor = 'nobody' WHERE seq = 1")

        result = cli("audit", "verify", "-o", "json")

        assert (result.exit_code, result.stdout) == (11, "")
        assert result.error["code"] == "audit_broken"
        assert result.error["message"] == (
            "the audit chain is broken: event 1 is not what was written"
        )

    @pytest.mark.parametrize(
        "statement", ["DELETE FROM audit_head", "UPDATE audit_head SET seq = 1"]
    )
    def test_a_head_that_is_gone_or_moved_is_exit_11(self, cli: Cli, statement: str) -> None:
        """No command goes on with it: neither verify nor one that would write the next event."""
        cli.key("--alias", "ci")
        cli.execute(statement)

        for command in (["audit", "verify"], ["generate"]):
            result = cli(*command, "-o", "json")
            assert (result.exit_code, result.stdout) == (11, ""), result.stderr
            assert result.error["code"] == "audit_broken"
        assert cli("audit", "head").exit_code == (11 if "DELETE" in statement else 0)

    def test_what_was_tampered_with_is_shown_as_it_is(self, cli: Cli) -> None:
        """An instant or a document that is none is printed as text, and what follows it, too."""
        cli.key("--alias", "ci")
        cli.execute("UPDATE audit_events SET at = 'infinity', after = '{' WHERE seq = 1")

        listed = cli("audit", "list", "-o", "json", check=True).json["events"]
        exported = cli("audit", "export", check=True).stdout.splitlines()

        assert (listed[1]["at"], listed[1]["after"]) == ("infinity", "{")
        # The list has money as numbers, the export the text that was hashed.
        money = {"before": None, "after": None}
        found = [cli_json(line) | money for line in reversed(exported)]
        assert found == [event | money for event in listed]
        assert cli("audit", "list", check=True).stdout.count("\n") == 3

    @pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
    def test_bytes_that_are_no_text_are_spelt_out(self, cli: Cli) -> None:
        """Where the database takes any bytes they do not hide what follows."""
        cli.key("--alias", "ci")
        cli.execute("UPDATE audit_events SET actor = CAST(x'ff' AS TEXT), reason = x'fe'")

        exported = cli("audit", "export", check=True).stdout.splitlines()

        shown = [(event["actor"], event["reason"]) for event in map(cli_json, exported)]
        assert shown == [("\\xff", "\\xfe")] * 2

    def test_the_anchor_in_an_answer_can_be_checked_later(self, cli: Cli) -> None:
        """What `generate -o json` prints under `audit` is what --expect-head and --at-seq take."""
        anchor = cli("generate", "-o", "json", check=True).json["audit"]
        cli.key()
        asked = ["audit", "verify", "--expect-head", anchor["head"], "--at-seq"]

        assert cli(*asked, str(anchor["seq"])).exit_code == 0
        assert cli(*asked, str(anchor["seq"] + 1)).exit_code == 11
        assert cli("audit", "verify", "--expect-head", anchor["head"]).exit_code == 2

    def test_every_command_that_changes_something_tells_where_it_is_on_record(
        self, cli: Cli
    ) -> None:
        """`audit` in each answer is the number and hash of an event that is there."""
        answers = [
            cli(*command, "-o", "json", check=True).json
            for command in (
                ["org", "create", "acme"],
                ["team", "create", "web", "--org", "acme", "--max-budget", "5"],
                ["user", "create", "alice"],
                ["team", "add-member", "web", "alice"],
                ["generate", "--team", "web", "--alias", "ci", "--budget-duration", "1h"],
                ["update", "ci", "--max-budget", "1"],
                ["block", "ci"],
                ["unblock", "ci"],
                ["spend", "ci", "--add", "0.5"],
                ["rotate", "ci"],
                ["revoke", "ci"],
                ["delete", "ci"],
            )
        ]
        known = {
            event["seq"]: event["hash"]
            for event in cli("audit", "list", "-o", "json", check=True).json["events"]
        }
        assert [answer["audit"]["head"] for answer in answers] == [
            known[answer["audit"]["seq"]] for answer in answers
        ]

    def test_budget_resets_and_due_rotations_tell_it_too(self, cli: Cli) -> None:
        """Each line of `budget reset` and of `rotate --due` has its own anchor."""
        cli.configure(
            f'bcrypt_cost = 4\ndefault_sink = "f"\n[sinks.f]\ntype = "file"\npath = "{cli.home}/{{alias}}"\n'
        )
        cli.key(
            "--alias", "ci", "--budget-duration", "1h", "--auto-rotate", "--rotation-interval", "1d"
        )
        cli.execute(
            "UPDATE keys SET budget_reset_at = NULL, key_rotation_at = '2020-01-01 00:00:00'"
        )

        reset = cli("budget", "reset", "--due", "-o", "json", check=True).json
        rotated = cli("rotate", "--due", "-o", "json", check=True).json

        known = {
            event["seq"]: (event["action"], event["hash"])
            for event in cli("audit", "list", "-o", "json", check=True).json["events"]
        }
        anchors = [reset["audit"], reset["results"][0]["audit"], rotated["results"][0]["audit"]]
        assert [known[anchor["seq"]] for anchor in anchors] == [
            ("budget_reset", anchors[0]["head"]),
            ("budget_reset", anchors[0]["head"]),
            ("key_rotated", anchors[2]["head"]),
        ]

    def test_export_prints_the_whole_chain_in_order(self, cli: Cli) -> None:
        """Each line is one event with its hashes, so that the chain can be checked elsewhere."""
        cli.key("--alias", "ci")
        cli("block", "ci", check=True)

        lines = cli("audit", "export", "-o", "jsonl", check=True).stdout.splitlines()

        events = [cli_json(line) for line in lines]
        assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
        assert [event["prev_hash"] for event in events] == [
            GENESIS,
            *(event["hash"] for event in events[:-1]),
        ]
        assert events[-1]["action"] == "key_blocked"

    def test_export_to_a_closed_stdout_is_exit_8(self, cli: Cli) -> None:
        """Nobody would get what it is for."""
        cli.key()

        result = cli("audit", "export", preexec_fn=lambda: os.close(1))

        assert (result.exit_code, result.stdout) == (8, "")
        assert "stdout is closed" in result.stderr

    def test_filters_choose_what_is_listed_and_exported(self, cli: Cli) -> None:
        """Key, actor, action and time can be asked for; an action that does not exist is exit 2, an actor exit 3."""
        cli.key("--alias", "ci")
        cli.key("--alias", "other")
        actor = cli("audit", "list", "-o", "json", check=True).json["events"][0]["actor"]

        def asked(*options: str) -> list[tuple[str, str]]:
            lines = cli("audit", "export", *options, check=True).stdout.splitlines()
            return [(event["action"], event["object_id"]) for event in map(cli_json, lines)]

        key_id = cli("info", "ci", "-o", "json", check=True).json["key_id"]
        assert asked("--key", "ci") == [("key_staged", key_id), ("key_generated", key_id)]
        assert asked("--key", "ci", "--action", "key_staged") == [("key_staged", key_id)]
        assert len(asked("--actor", actor)) == 4
        assert asked("--until", "2020-01-01T00:00:00Z") == []
        assert len(asked("--since", "2020-01-01T00:00:00Z")) == 4
        assert cli("audit", "list", "--action", "key_exploded").exit_code == 2
        assert cli("audit", "export", "--actor", "key:nobody").exit_code == 3

    def test_an_owner_has_every_event_of_its_keys_those_made_in_bulk_too(self, cli: Cli) -> None:
        """An event that tells only what changed belongs to whom the key belonged to then."""
        for create in (
            ["team", "create", "tt"],
            ["team", "create", "uu"],
            ["user", "create", "u9"],
        ):
            cli(*create, check=True)
        cli("team", "add-member", "tt", "u9", check=True)
        rows = "user_id,key_alias\nu9,k9\n"
        cli("generate", "--from", "-", "--team", "tt", "--out-dir", "one", input=rows, check=True)
        cli("generate", "--count", "2", "--alias", "n{n}", "--team", "tt", check=True)
        cli("rotate", "k9", "--grace", "1h", check=True)
        cli("revoke", "k9", check=True)

        def asked(*options: str) -> list[str]:
            events = cli("audit", "list", "-o", "json", *options, check=True).json["events"]
            return [event["action"] for event in reversed(events)]

        whole = asked("--key", "k9")
        assert whole == [
            "key_staged",
            "key_generated",
            "key_rotation_staged",
            "key_rotated",
            "secret_revoked",
        ]
        assert asked("--user", "u9") == ["user_created", "team_member_added", *whole]
        assert asked("--team", "tt").count("key_generated") == 3
        cli("update", "n1", "--team", "uu", check=True)
        cli("rotate", "n1", "--grace", "none", check=True)
        assert asked("--team", "uu") == [
            "team_created",
            "key_updated",
            "key_rotation_staged",
            "key_rotated",
        ]
        assert asked("--team", "tt").count("key_rotated") == 1


class TestWhatIsOnRecord:
    def test_the_end_of_a_grace_period(self, cli: Cli) -> None:
        """An old secret that has ended by itself is put on record by the next command that writes."""
        cli.key("--alias", "ci")
        cli("rotate", "ci", "--grace", "1h", check=True)
        cli.execute("UPDATE secrets SET not_after = '2020-01-01 00:00:00' WHERE state = 'retiring'")

        cli("block", "ci", check=True)

        found = cli("audit", "list", "--action", "grace_ended", "-o", "json", check=True).json
        (event,) = found["events"]
        assert (event["before"]["state"], event["after"]["state"]) == ("retiring", "revoked")
        assert sorted(next(iter(cli.secrets().values())).values()) == ["active", "revoked"]

    def test_what_a_caller_was_refused(self, cli: Cli) -> None:
        """Changes that only an admin may make are on record when somebody else tries."""
        cli("user", "create", "bob", "--role", "internal_user", check=True)
        cli("team", "create", "web", check=True)
        cli("team", "add-member", "web", "bob", check=True)
        bob = {"KEYCTL_API_KEY": cli.key("--user", "bob")}

        for command in (
            ["team", "create", "mine"],
            ["team", "update", "web", "--max-budget", "1"],
            ["team", "add-member", "web", "bob", "--role", "admin"],
            ["budget", "reset", "--due"],
            ["events", "deliver"],
        ):
            assert cli(*command, environment=bob).exit_code == 4

        found = cli("audit", "list", "--action", "denied", "-o", "json", check=True).json["events"]
        assert [(event["object_type"], event["object_id"]) for event in reversed(found)] == [
            ("team", "mine"),
            ("team", "web"),
            ("team", "web"),
            ("budget", ""),
            ("event", ""),
        ]
        assert {event["actor"][:4] for event in found} == {"key:"}

    def test_a_refused_correction_of_spend_names_the_key_and_not_its_string(self, cli: Cli) -> None:
        """A key string on stdin is on record as its key's id to who may see that, else as nothing."""
        cli("user", "create", "bob", "--role", "internal_user", check=True)
        own, other = cli.key("--user", "bob", "--alias", "own"), cli.key("--alias", "other")
        key_id = cli("info", "own", "-o", "json", check=True).json["key_id"]

        for given in (own, other):
            result = cli("spend", "-", "--reset", input=given, environment={"KEYCTL_API_KEY": own})
            assert result.exit_code == 4

        assert denied(cli) == [key_id, "sk-[redacted]"]
        exported = cli("audit", "export", check=True).stdout
        assert (own in exported, other in exported) == (False, False)

    def test_what_is_refused_may_be_named_at_any_length(self, cli: Cli) -> None:
        """Exit 4, and on record with the first 600 characters of what was given."""
        cli("user", "create", "bob", "--role", "internal_user", check=True)
        bob = {"KEYCTL_API_KEY": cli.key("--user", "bob")}

        for command in (["spend", "x" * 700, "--reset"], ["user", "delete", "y" * 700]):
            assert cli(*command, environment=bob).exit_code == 4

        assert denied(cli) == ["x" * 600, "y" * 600]


def denied(cli: Cli) -> list[str]:
    """Return what the callers who were refused had asked for, in order."""
    found = cli("audit", "list", "--action", "denied", "-o", "json", check=True).json["events"]
    return [event["object_id"] for event in reversed(found)]


def cli_json(line: str) -> Any:
    """Return the JSON value of one line."""
    return json.loads(line)


def changing(seq: int, name: str, value: Any) -> Callable[[Connection], object]:
    """Return what sets one column of one event, past every type that keyctl's own tables have."""
    statement = text(f"UPDATE audit_events SET {name} = :value WHERE seq = :seq")
    return lambda connection: connection.execute(statement, {"value": value, "seq": seq})


def running(statement: str) -> Callable[[Connection], object]:
    """Return what runs one statement."""
    return lambda connection: connection.execute(text(statement))


def test_an_event_is_hashed_over_its_canonical_form(log: Database) -> None:
    """What the quick form says of strings, numbers, instants and nothing is what the slow one says."""
    with log.read() as connection:
        rows = [dict(row) for row in connection.execute(select(audit_events)).mappings()]
    odd = [
        {**rows[0], "actor": '"\\\u2028é\x7f\n%s', "reason": "{}", "before": "", "after": None},
        {**rows[0], "seq": "7", "object_id": True},
    ]

    for row in [*rows[:3], *odd]:
        covered = {name: value for name, value in row.items() if name != "hash"}
        expected = hashlib.sha256(jsontext.canonical(covered).encode()).hexdigest()
        assert audit.event_hash(row) == expected


def is_no_change(log: Database, seq: int, name: str, value: Any) -> bool:
    """Tell whether the column holds *value* already."""
    with log.read() as connection:
        query = text(f"SELECT {name} FROM audit_events WHERE seq = :seq")
        return bool(connection.execute(query, {"seq": seq}).scalar_one() == value)


def remove(connection: Connection, seq: int) -> None:
    """Delete one event."""
    connection.execute(delete(audit_events).where(audit_events.c.seq == seq))


def cut(connection: Connection, seq: int) -> None:
    """Delete every event behind number *seq*."""
    connection.execute(delete(audit_events).where(audit_events.c.seq > seq))


def swap(connection: Connection, first: int, second: int) -> None:
    """Let two events change their numbers."""
    for old, new in ((first, -1), (second, first), (-1, second)):
        connection.execute(update(audit_events).where(audit_events.c.seq == old).values(seq=new))


def squeeze_in(connection: Connection, after: int) -> None:
    """Put a copy of an event behind number *after* and renumber what follows."""
    row = dict(connection.execute(select(audit_events).limit(1)).mappings().one())
    connection.execute(
        text("UPDATE audit_events SET seq = -(seq + 1) WHERE seq > :after"), {"after": after}
    )
    connection.execute(text("UPDATE audit_events SET seq = -seq WHERE seq < 0"))
    previous = connection.execute(
        select(audit_events.c.hash).where(audit_events.c.seq == after)
    ).scalar()
    row.update(seq=after + 1, prev_hash=previous or GENESIS)
    row["hash"] = audit.event_hash(row)
    connection.execute(insert(audit_events), row)


def cut_at(log: Database, seq: int) -> None:
    """Cut the chain off behind an event and move the head there, as somebody with SQL can."""
    with log.engine.begin() as connection:
        cut(connection, seq)
        last = select(audit_events.c.hash).where(audit_events.c.seq == seq).scalar_subquery()
        connection.execute(update(audit_head).values(seq=seq, hash=last))


def _some_event() -> Event:
    return Event(
        actor="local:tester@host",
        changed_by=None,
        action="key_blocked",
        object_type="key",
        object_id="key_1",
    )


def test_an_export_leaves_the_connection_as_it_was(workspace: Workspace) -> None:
    """Only its own statement streams: what is asked on the same connection afterwards does not."""
    with workspace.database.read() as connection:
        before = dict(connection.get_execution_options())
        list(audit.export(connection, Conditions()))

        assert dict(connection.get_execution_options()) == before
