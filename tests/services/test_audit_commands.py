"""The audit commands: what they show, export and verify, and which changes and refusals are on record."""

import json
import os
from typing import Any

import pytest
from harness import Cli

from keyctl.db.queries.audit import GENESIS


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
