"""Finding keys and events by what people know of them, and no wrong word read as success."""

import itertools
import json

import jsonschema
import pytest
from harness import Cli
from inside import Inside

from keyctl.gateway import Verifier

pytestmark = pytest.mark.in_process


@pytest.fixture(name="world")
def _world(inside: Inside) -> Inside:
    """Two teams, a user and keys with aliases, tags and models."""
    inside("team", "create", "web", check=True)
    inside("team", "create", "data", check=True)
    inside("user", "create", "alice@example.com", check=True)
    inside(
        *("generate", "--alias", "Alice's notebook", "--team", "web", "--tag", "laboratory"),
        *("--model", "gpt-4o", "--max-budget", "20"),
        check=True,
    )
    inside("generate", "--alias", "notes_50%", "--team", "data", "--tag", 'a "b"', check=True)
    inside("generate", "--alias", "checkout", "--user", "alice@example.com", check=True)
    return inside


class TestFilters:
    def test_what_each_finds(self, world: Inside) -> None:
        """Parts, patterns, tags, models, spent budgets and dates, on both databases alike."""
        world("spend", "Alice's notebook", "--add", "20", check=True)
        book, notes, checkout = "Alice's notebook", "notes_50%", "checkout"
        wanted: dict[tuple[str, ...], set[str]] = {
            ("--alias", "*note*"): {book, notes},
            ("--alias", "NOTES_*"): {notes},
            ("--alias", "*_5*"): {notes},
            ("--team", "d*"): {notes},
            ("--search", "ALICE"): {book, checkout},
            # Longer than a chance likeness to the ids of the keys, which are random.
            ("--search", "laboratory"): {book},
            ("--search", "nothing like it"): set(),
            ("--tag", 'a "b"'): {notes},
            ("--model", "gpt-4o"): {book},
            ("--over-budget",): {book},
            ("--created-after", "yesterday"): {book, notes, checkout},
            ("--unused-for", "1h"): set(),
        }
        found = {
            arguments: {
                key["key_alias"]
                for key in world("list", *arguments, "-o", "json", check=True).json["keys"]
            }
            for arguments in wanted
        }

        assert found == wanted

    def test_spent_budgets_are_those_that_refuse_the_key(self, world: Inside, cli: Cli) -> None:
        """Also of a window, a model, a tier or a day's tokens; not of a period that is over, nor an owner's."""
        world("budget", "create", "small", "--max-budget", "1", check=True)
        day = {"max_budget": 1, "budget_duration": "1d"}
        bodies: dict[str, dict[str, object]] = {
            "window": {"budget_limits": [day]},
            "window-over": {"budget_limits": [day]},
            "window-left": {"budget_limits": [{**day, "max_budget": 1.000000001}]},
            "window-of-nothing": {"budget_limits": [{**day, "max_budget": 0}]},
            "model": {"model_max_budget": {"o1": {"budget_limit": 1}}},
            "other-model": {"model_max_budget": {"o3": {"budget_limit": 1}}},
            "tier": {"budget_id": "small"},
            "tokens": {"tpd_limit": 10},
            "own": day,
            "own-over": day,
            "of-team": {"team_id": "data"},
            "deleted": {"budget_limits": [day]},
        }
        with Verifier(str(cli.database_url)) as verifier:
            for alias, body in bodies.items():
                made = world(
                    *("generate", "--alias", alias, "--request", "-"),
                    input=json.dumps(body).encode(),
                    check=True,
                )
                verifier.verify(made.stdout.strip(), model="o1").record(1, tokens=10)
        world("team", "update", "data", "--max-budget", "1", check=True)
        past = "budget_reset_at = '2026-01-01 00:00:00+00:00'"
        cli.execute(f"UPDATE keys SET {past} WHERE key_alias = 'own-over'")
        window = "(SELECT id FROM keys WHERE key_alias = 'window-over')"
        cli.execute(f"UPDATE meters SET {past} WHERE object_id = {window}")
        cli.execute("UPDATE keys SET model_max_budget = '{' WHERE key_alias = 'other-model'")
        world("delete", "deleted", check=True)

        listed = world("list", "--over-budget", "-o", "json", check=True).json["keys"]
        blocked = world("block", "--over-budget", "--yes", "-o", "json", check=True).json

        assert {key["key_alias"] for key in listed} == {
            *("window", "window-of-nothing", "model", "tier", "tokens", "own")
        }
        assert len(blocked["results"]) == 6

    @pytest.mark.parametrize(
        "arguments",
        [
            ("list", "--created-after", "2999-01-01"),
            ("list", "--unused-for", "tomorrow"),
            ("delete", "--unused-for", "2999-01-01", "--yes"),
            ("audit", "list", "--since", "2999-01-01T00:00:00Z"),
            ("audit", "export", "--since", "tomorrow"),
        ],
    )
    def test_nothing_has_been_after_now(self, world: Inside, arguments: tuple[str, ...]) -> None:
        """A bound that is still to come would fit nothing, or every key."""
        refused = world(*arguments)

        assert (refused.exit_code, refused.stdout) == (2, "")
        option, moment = next(
            pair
            for pair in itertools.pairwise(arguments)
            if pair[0] in ("--since", "--created-after", "--unused-for")
        )
        assert f"error: {option} {moment} is still to come\nhint: it is 20" in refused.stderr
        assert len(world("list", "-o", "json", check=True).json["keys"]) == 3

    @pytest.mark.parametrize(
        ("arguments", "status", "hint"),
        [
            (("list", "--team", "wbe"), 3, "did you mean web?"),
            (("list", "--user", "alice@exmaple.com"), 3, "did you mean alice@example.com?"),
            (("list", "--org", "acme"), 3, "keyctl org list"),
            (("list", "--team", "x*"), 3, "keyctl team list"),
            (("list", "--alias", "chekout"), 3, "did you mean checkout?"),
            (("list", "--tag", "laboratry"), 3, "did you mean laboratory?"),
            (("list", "--model", "gpt-4"), 3, "did you mean gpt-4o?"),
            (("list", "--state", "blockd"), 2, "did you mean blocked?"),
            (("list", "web"), 2, "keyctl list --team web"),
            (("list", "alice@example.com"), 2, "--user alice@example.com"),
            (("list", "lab"), 2, "--search lab"),
            (("delete", "--user", "nobody", "--yes"), 3, "keyctl user list"),
            (("block", "--team", "wbe", "--yes"), 3, "did you mean web?"),
            (("info", "chekout"), 3, "did you mean checkout?"),
            (("team", "info", "wbe"), 3, "did you mean web?"),
            (("generate", "--team", "wbe"), 3, "did you mean web?"),
            (("audit", "list", "--team", "wbe"), 3, "did you mean web?"),
            (("audit", "list", "--key", "chekout"), 3, "did you mean checkout?"),
            (("audit", "list", "--object", "nobody"), 3, "keyctl audit list"),
            (("audit", "list", "--action", "key_generate"), 2, "did you mean key_generated"),
            (("events", "list", "--hook", "siem"), 3, "keyctl config show"),
            (("schema", "generate-reqest"), 2, "did you mean generate-request"),
            (("team", "add-member", "web", "alice@example.com", "--role", "admn"), 2, "admin"),
            (("user", "create", "bob", "--role", "proxy_admn"), 2, "did you mean proxy_admin"),
            (("list", "--taem", "web"), 2, "keyctl list --help"),
            (("lst",), 2, "keyctl --help"),
        ],
    )
    @pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
    def test_no_wrong_word_is_success(
        self, world: Inside, arguments: tuple[str, ...], status: int, hint: str
    ) -> None:
        """Exit 3, or 2 for a closed set, with the nearest name; stdout stays empty."""
        result = world(*arguments, "-o", "json")

        assert (result.exit_code, result.stdout) == (status, "")
        assert hint in result.error["hint"]


class TestBeginningsOfIds:
    def test_a_unique_one_stands_for_the_id(self, world: Inside) -> None:
        """Eight characters are enough, wherever a key is read."""
        key_id = world("info", "checkout", "-o", "json", check=True).json["key_id"]

        found = world("info", key_id[:12], "-o", "json", check=True).json

        assert found["key_id"] == key_id
        assert world("update", key_id[:12], "--rpm-limit", "5").exit_code == 0

    def test_an_ambiguous_one_lists_what_fits(self, world: Inside, cli: Cli) -> None:
        """Exit 2 with the ids and aliases."""
        ids = ["key_aaaa" + "b" * 16, "key_aaaa" + "c" * 16]
        for key_id in ids:
            twin = world("generate", "-o", "json", check=True).json["key_id"]
            cli.execute(f"DELETE FROM secrets WHERE key_id = '{twin}'")
            cli.execute(f"UPDATE keys SET id = '{key_id}' WHERE id = '{twin}'")

        result = world("info", "key_aaaa", "-o", "json")

        assert (result.exit_code, result.error["code"]) == (2, "ambiguous_key")
        assert all(key_id in result.error["message"] for key_id in ids)

    @pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
    def test_nothing_ends_by_one_without_a_person(self, world: Inside) -> None:
        """With --yes a key is named whole: another one may fit the beginning tomorrow."""
        key_id = world("info", "checkout", "-o", "json", check=True).json["key_id"]

        result = world("delete", key_id[:12], "--yes")

        assert (result.exit_code, "whole id" in result.stderr) == (2, True)


class TestIdsOfSecrets:
    def test_stand_for_the_key_as_logs_show_them(self, world: Inside) -> None:
        """Alone, as in `secret_id`, or as the beginning of the string; the old secret's too."""
        key = world("info", "checkout", "-o", "json", check=True).json
        old = key["secrets"][0]["id"]
        world("rotate", "checkout", "--grace", "1h", "-q", check=True)

        for written in (old, f"sk-{old}", f"sk-{old}…"):
            found = world("list", "--search", written, "-o", "json", check=True).json["keys"]
            shown = world("info", written, "-o", "json", check=True).json
            assert [item["key_id"] for item in (*found, shown)] == [key["key_id"]] * 2

    def test_are_no_names_where_an_alias_is_the_same(self, world: Inside) -> None:
        """An alias says more than a secret's id."""
        key = world("info", "checkout", "-o", "json", check=True).json
        alias = key["secrets"][0]["id"]
        other = world("generate", "--alias", alias, "-o", "json", check=True).json

        assert world("info", alias, "-o", "json", check=True).json["key_id"] == other["key_id"]

    def test_of_nobody_name_nothing(self, world: Inside) -> None:
        """Twelve characters that are no secret's id are a wrong alias like any other."""
        result = world("info", "AbcdefGhijkl")

        assert (result.exit_code, result.stdout) == (3, "")


class TestTheAuditTrail:
    def test_says_what_changed(self, world: Inside) -> None:
        """In one line: money in dollars, what came to a list and what left it."""
        world(
            *("update", "Alice's notebook", "--max-budget", "50", "--models", "gpt-4o-mini"),
            check=True,
        )

        shown = world("audit", "list", "--key", "Alice's notebook", "--action", "key_updated")

        assert "max_budget $20 → $50" in shown.stdout
        assert "models +gpt-4o-mini -gpt-4o" in shown.stdout

    def test_has_money_as_numbers(self, world: Inside) -> None:
        """Scripts add it up without parsing text."""
        world("update", "Alice's notebook", "--max-budget", "50", check=True)

        event = world("audit", "list", "--limit", "1", "-o", "json", check=True).json["events"][0]

        assert (event["before"]["max_budget"], event["after"]["max_budget"]) == (20, 50)

    def test_is_found_by_owner_object_and_deleted_alias(self, world: Inside) -> None:
        """Whose a key was, what it was called, and part of an id."""
        world("delete", "checkout", check=True)

        def actions(*arguments: str) -> list[str]:
            document = world("audit", "list", *arguments, "-o", "json", check=True).json
            return [event["action"] for event in document["events"]]

        assert actions("--key", "checkout") == ["key_deleted", "key_generated", "key_staged"]
        assert actions("--team", "data") == ["key_generated", "key_staged", "team_created"]
        assert actions("--user", "alice@example.com") == [
            *("key_deleted", "key_generated", "key_staged", "user_created")
        ]
        assert actions("--object", "alice*") == ["user_created"]
        turned = world("audit", "list", "--since", "yesterday", "--until", "7d")
        assert (turned.exit_code, turned.stdout) == (2, "")
        assert "nothing is between --since yesterday and --until 7d" in turned.stderr

    def test_folds_steps_for_people(self, world: Inside) -> None:
        """A screen has one line for what a person did; a pipe has every event."""
        shown = world("audit", "list", "--key", "checkout", terminal=120, check=True).stdout
        piped = world("audit", "list", "--key", "checkout", check=True).stdout

        assert ("key_generated" in shown, "key_staged" in shown) == (True, False)
        assert ("key_generated" in piped, "key_staged" in piped) == (True, True)

    def test_shows_every_field_with_diff(self, world: Inside) -> None:
        """Before and after, a line each."""
        world("update", "checkout", "--rpm-limit", "7", check=True)

        shown = world("audit", "list", "--limit", "1", "--diff", check=True).stdout

        assert "  + rpm_limit: 7\n" in shown


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
class TestManyKeys:
    def test_are_one_document(self, world: Inside) -> None:
        """`-o json` is one document also with keys that were refused."""
        result = world("generate", "--count", "3", "--alias", "ci-{n}", "-o", "json", check=True)

        assert [key["key_alias"] for key in result.json["keys"]] == ["ci-1", "ci-2", "ci-3"]
        assert (result.json["failed"], result.stderr) == ([], "")

    def test_that_were_refused_are_in_it(self, world: Inside) -> None:
        """Exit 9, and the document says which and why."""
        world("generate", "--alias", "ci-2", check=True)

        result = world("generate", "--count", "3", "--alias", "ci-{n}", "-o", "json")

        assert result.exit_code == 9
        assert [key["key_alias"] for key in result.json["keys"]] == ["ci-1", "ci-3"]
        assert [item["key_alias"] for item in result.json["failed"]] == ["ci-2"]

    def test_the_document_is_closed_when_interrupted(
        self, world: Inside, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Ctrl-C between two batches leaves a document that a parser takes."""
        from keyctl.services.issue import generate_many

        monkeypatch.setattr(generate_many, "batch_size", lambda _: 2)
        made = generate_many.BulkService._make

        def interrupted(*arguments: object) -> None:
            made(*arguments)  # type: ignore[arg-type]
            raise KeyboardInterrupt

        monkeypatch.setattr(generate_many.BulkService, "_make", interrupted)
        result = world("generate", "--count", "6", "--alias", "ci-{n}", "-o", "json")

        assert result.exit_code == 130
        assert len(json.loads(result.stdout)["keys"]) == 2


class TestADryRunOfManyKeys:
    @pytest.fixture(name="wanted")
    def _wanted(self, inside: Inside) -> list[str]:
        """Four keys, of which one has a name that is taken and one is more than the team can pay."""
        guaranteed = b'{"budget_allocation": "guaranteed"}'
        inside(
            *("team", "create", "web", "--max-budget", "50", "--policy", "-"),
            input=guaranteed,
            check=True,
        )
        inside("generate", "--team", "web", "--alias", "ci-1", "--max-budget", "1", check=True)
        return [
            *("generate", "--team", "web", "--alias", "ci-{n}"),
            *("--max-budget", "20", "--count", "4"),
        ]

    def test_says_what_the_run_will_do(self, inside: Inside, wanted: list[str]) -> None:
        """Each refusal with the key's name, the count, and nothing is written."""
        head = inside("audit", "head", check=True).stdout

        judged = inside(*wanted, "--dry-run", "-o", "json")
        unwritten = inside("audit", "head", check=True).stdout
        done = inside(*wanted, "-o", "json")

        assert unwritten == head
        assert (judged.exit_code, done.exit_code) == (4, 9)
        assert judged.json["allowed"] is False
        assert (judged.json["count"], judged.json["would_make"]) == (4, len(done.json["keys"]))
        assert judged.json["failed"] == done.json["failed"]
        assert [item["rule"] for item in judged.json["violations"]] == ["team.budget_allocation"]
        schema = inside("schema", "verdict-response", check=True).json
        jsonschema.validate(judged.json, schema)

    def test_tells_a_person_the_same(self, inside: Inside, wanted: list[str]) -> None:
        """How many would be made, which not and why, and what the refused key would have been."""
        more = "max_budget: the budgets of the team's keys would add up to more than its own"

        judged = inside(*wanted, "--dry-run")

        assert judged.exit_code == 4
        assert judged.stdout.splitlines()[:4] == [
            "2 of 4 keys allowed",
            f"  team.budget_allocation: {more} (allowed: 50)",
            "  refused: ci-1: alias 'ci-1' is taken by a live key",
            f"  refused: ci-4: denied by team.budget_allocation: {more}",
        ]
        assert "  alias: ci-4" in judged.stdout

    def test_that_fits_is_exit_0(self, inside: Inside, wanted: list[str]) -> None:
        """With the first key as it would be."""
        fits = [*wanted[:4], "app-{n}", "--max-budget", "20", "--count", "2", "--dry-run"]

        judged = inside(*fits, check=True)
        answer = inside(*fits, "-o", "jsonl", check=True).json

        assert judged.stdout.splitlines()[:2] == ["2 of 2 keys allowed", "  alias: app-1"]
        assert (answer["allowed"], answer["would_make"], answer["failed"]) == (True, 2, [])

    def test_shows_the_first_ten_refusals(self, inside: Inside) -> None:
        """A person needs no more; JSON has them all."""
        inside("team", "create", "web", "--max-budget", "5", check=True)
        many = ["generate", "--team", "web", "--alias", "ci-{n}", "--max-budget", "6"]

        judged = inside(*many, "--count", "12", "--dry-run")

        told = [line for line in judged.stdout.splitlines() if line.startswith("  refused: ")]
        assert judged.stdout.startswith("0 of 12 keys allowed\n")
        assert (len(told), told[-1]) == (11, "  refused: 2 more")

    @pytest.mark.parametrize(
        "beside", [("--alias", "x"), ("--alias", "x-{n}", "--request-id", "r"), ("--deliver", "f")]
    )
    def test_refuses_what_the_run_refuses(self, inside: Inside, beside: tuple[str, ...]) -> None:
        """An alias for all, a request id, and a sink."""
        judged = inside("generate", *beside, "--count", "2", "--dry-run")

        assert (judged.exit_code, judged.stdout) == (2, "")
        assert "--count" in judged.stderr


class TestAnAliasThatIsGone:
    def test_names_the_deleted_key_that_had_it_last(self, inside: Inside) -> None:
        """Its id, and when it ended."""
        inside("generate", "--alias", "old", check=True)
        inside("delete", "old", check=True)
        inside("generate", "--alias", "old", check=True)
        ended = inside("delete", "old", "-o", "json", check=True).json["results"][0]["key_id"]
        at = inside("info", ended, "-o", "json", check=True).json["updated_at"]

        for command in (("info", "old"), ("update", "old", "--max-budget", "1"), ("rotate", "old")):
            done = inside(*command)
            assert (done.exit_code, done.stderr.splitlines()) == (
                3,
                [
                    f"error: key 'old' was deleted at {at[:19]}Z: {ended}",
                    f"hint: a deleted key answers to its id: keyctl info {ended}",
                ],
            )

    def test_says_nothing_to_who_may_not_see_that_key(self, cli: Cli) -> None:
        """As if there had never been one."""
        for user in ("ann", "bob"):
            cli("user", "create", user, check=True)
        anns = cli.key("--user", "ann")
        cli.key("--user", "bob", "--alias", "old")
        cli("delete", "old", check=True)

        asked = [cli("info", name, environment={"KEYCTL_API_KEY": anns}) for name in ("old", "new")]

        assert [done.exit_code for done in asked] == [3, 3]
        assert asked[0].stderr.replace("'old'", "'new'") == asked[1].stderr

    def test_shows_the_pattern_that_finds_a_part_of_one(self, inside: Inside) -> None:
        """As it is to be typed."""
        inside("generate", "--alias", "checkout", check=True)

        done = inside("list", "--alias", "heck")

        assert done.exit_code == 3
        assert done.stderr.splitlines()[-1].endswith(": keyctl list --alias '*heck*'")


def test_verify_says_that_nothing_came(cli: Cli) -> None:
    """An unset variable in a pipe is no malformed key."""
    done = cli("verify", "-", input="")

    assert (done.exit_code, done.stdout, done.stderr.splitlines()[0]) == (
        2,
        "",
        "error: nothing came on stdin",
    )
