"""What is said needs no knowledge of a library: wrong values, other programs' words, what is missing."""

import pytest
from harness import Cli
from inside import Inside
from terminal import shown_to_end, spawn, uncoloured

pytestmark = pytest.mark.parametrize("kind", ["sqlite"], indirect=True)


class TestAWrongValue:
    @pytest.mark.parametrize(
        ("line", "said"),
        [
            ("generate --rpm-limit abc", "--rpm-limit takes a whole number, not 'abc'"),
            ("generate --rpm-limit=1.5", "--rpm-limit takes a whole number, not '1.5'"),
            ("list --limit 0", "--limit takes at least 1, not '0'"),
            ("rotate --due --max x", "--max takes a whole number, not 'x'"),
            ("generate --rpm-limit -5", "the request is malformed: rpm_limit: must be at least 0"),
        ],
    )
    def test_of_an_option(self, inside: Inside, line: str, said: str) -> None:
        """What it takes, and what was given: exit 2."""
        result = inside(*line.split())

        assert (result.exit_code, result.stderr.splitlines()[0]) == (2, f"error: {said}")

    @pytest.mark.parametrize(
        ("body", "said"),
        [
            ('{"rpm_limit": "5"}', "rpm_limit: must be a whole number"),
            ('{"models": "gpt-4o"}', "models: must be a list"),
            ('{"blocked": "no"}', "blocked: must be true or false"),
            ('{"key_alias": 5}', "key_alias: must be text"),
            ('{"metadata": []}', "metadata: must be an object"),
            ('{"key_type": "x"}', "key_type: must be 'llm_api', 'management', "),
        ],
    )
    def test_of_a_field(self, inside: Inside, cli: Cli, body: str, said: str) -> None:
        """In a body too."""
        (cli.home / "body.json").write_text(body, "utf-8")

        result = inside("generate", "--request", str(cli.home / "body.json"))

        assert result.exit_code == 2
        assert said in result.stderr

    def test_money_may_have_its_sign(self, inside: Inside) -> None:
        """As it is shown; one sign, and nothing else."""
        inside("generate", "--alias", "a", "--max-budget", "$120", check=True)

        assert inside("info", "a", "-o", "json", check=True).json["max_budget"] == 120
        for wrong in ("$$5", "$", "5$", "$-5", "+50"):
            assert inside("generate", "--max-budget", wrong).exit_code == 2


class TestACommandThatIsNone:
    @pytest.mark.parametrize(
        ("line", "meant"),
        [
            ("create", "keyctl generate"),
            ("creat", "keyctl generate"),
            ("new", "keyctl generate"),
            ("ls", "keyctl list"),
            ("show", "keyctl info"),
            ("rm", "keyctl delete"),
            ("renew", "keyctl rotate"),
            ("disable", "keyctl block"),
            ("enable", "keyctl unblock"),
            ("lst", "keyctl list"),
            ("team rm", "keyctl team delete"),
            ("team add", "keyctl team create"),
            ("user show", "keyctl user info"),
        ],
    )
    def test_names_the_one_that_was_meant(self, inside: Inside, line: str, meant: str) -> None:
        """Words of other programs first, then what is spelt alike."""
        result = inside(*line.split())

        error, hint = result.stderr.splitlines()
        assert (result.exit_code, result.stdout) == (2, "")
        assert error == f"error: there is no command keyctl {line}"
        assert hint.startswith(f"hint: did you mean {meant}? try: keyctl ")


class TestDenials:
    def test_of_a_user_who_is_no_member(self, inside: Inside) -> None:
        """Who, and what makes a member of them."""
        inside("user", "create", "alice", check=True)
        inside("team", "create", "web", check=True)

        result = inside("generate", "--team", "web", "--user", "alice")

        assert result.exit_code == 4
        error, hint = result.stderr.splitlines()
        assert error == (
            "error: denied by team.owner_member: user_id: user 'alice' is not a member of team 'web'"
        )
        assert hint.startswith("hint: keyctl team add-member web alice; an admin overrides it")
        (broken,) = inside("generate", "--team", "web", "--user", "alice", "-o", "json").error[
            "violations"
        ]
        assert (broken["bound"], broken["value"]) == ("web", "alice")


class TestWarnings:
    def test_of_a_key_without_a_total(self, inside: Inside) -> None:
        """What its holder can do, and what sets a total."""
        inside("team", "create", "web", check=True)
        inside("user", "create", "ann", check=True)
        inside("team", "add-member", "web", "ann", "--role", "admin", check=True)

        owner = ("--team", "web", "--user", "ann", "--max-budget", "50")
        told = inside("generate", *owner, "-o", "json", check=True).json["warnings"]
        inside("team", "update", "web", "--max-budget", "100", check=True)
        after = inside("generate", *owner, "-o", "json", check=True).json["warnings"]

        said = (
            "whoever holds this key can make more keys with it, of up to $50 each, without a"
            " total; to set a total: keyctl team update web --max-budget N"
        )
        assert (said in told, said in after) == (True, False)


class TestOnATerminal:
    def test_verify_leaves_out_what_is_empty(self, cli: Cli) -> None:
        """In a pipe every line stays."""
        key = cli.key("--alias", "a")
        piped = cli("verify", "-", input=key).stdout
        child = spawn(cli, "verify", columns=120)
        child.expect("key")
        child.sendline(key)
        shown, status = shown_to_end(child)

        assert status == 0
        assert "reason: \n" in piped
        assert "reason" not in uncoloured(shown)
        assert "key_alias: a" in uncoloured(shown)

    def test_rotate_due_says_that_nothing_is(self, inside: Inside) -> None:
        """Not in a pipe, and not with -q."""
        inside("generate", "--alias", "a", check=True)

        assert inside("rotate", "--due", terminal=80).stderr == "no key is due\n"
        assert inside("rotate", "--due", "-q", terminal=80).stderr == ""
        assert inside("rotate", "--due").stderr == ""

    def test_a_place_in_the_audit_trail_is_short(self, inside: Inside) -> None:
        """A pipe has the whole hash."""
        piped = inside("team", "create", "a", check=True).stderr.split()[-1]
        shown = inside("team", "create", "b", terminal=80, check=True).stderr.split()[-1]

        assert (len(piped), len(shown)) == (64, 13)
        assert inside("audit", "head", "-o", "json").json["head"].startswith(shown[:12])
