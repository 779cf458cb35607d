"""Fleet files are read strictly: every trap of YAML, every unknown name, all of them at once."""

import textwrap
import tracemalloc

import pytest

from keyctl.errors import MalformedRequestError
from keyctl.fleetfile.described import FleetText, read_fleet


def faults(*texts: str) -> list[tuple[str, str, str]]:
    """Return rule, path and message of everything that is wrong in some files."""
    sources = [
        FleetText(name=f"{number}.yaml", text=textwrap.dedent(text))
        for number, text in enumerate(texts, start=1)
    ]
    with pytest.raises(MalformedRequestError) as caught:
        read_fleet(sources)
    return [(item.rule, item.field, item.message) for item in caught.value.violations]


def first(*texts: str) -> tuple[str, str, str]:
    """Return the only fault."""
    (only,) = faults(*texts)
    return only


class TestTraps:
    def test_a_name_given_twice(self) -> None:
        """Which of two objects is meant is not guessed."""
        assert first("keys:\n  a: {team_id: x}\n  a: {team_id: y}\n") == (
            "yaml.duplicate",
            "keys.a",
            "1.yaml:3: is named twice, first on line 2; name it once",
        )

    @pytest.mark.parametrize("word", ["no", "On", "YES", "off"])
    def test_words_that_are_truth_values_to_some(self, word: str) -> None:
        """Norway is a team, and no truth value."""
        rule, path, message = first(f"teams:\n  {word}: {{}}\n")

        assert (rule, path) == ("yaml.ambiguous", f"teams.{word}")
        assert message.startswith(f"1.yaml:2: {word!r} is a truth value to some readers")
        assert faults(f"keys:\n  a: {{blocked: {word}}}\n")[0][0] == "yaml.ambiguous"

    @pytest.mark.parametrize("number", ["007", "0o17", "0x1F", "0b1", "-012"])
    def test_numbers_that_have_several_values(self, number: str) -> None:
        """Seven or octal seven: the person says which."""
        rule, path, message = first(f"keys:\n  a: {{rpm_limit: {number}}}\n")

        assert (rule, path) == ("yaml.number", "keys.a.rpm_limit")
        assert message.startswith(f"1.yaml:2: {number!r} is read differently")

    @pytest.mark.parametrize("name", ["123", "1.5", "true", "null"])
    def test_names_that_are_no_texts(self, name: str) -> None:
        """A numeric id is quoted."""
        assert first(f"teams:\n  {name}: {{}}\n")[0] == "yaml.name"
        assert read_fleet([FleetText(name="f", text=f'teams:\n  "{name}": {{}}\n')]).owners

    def test_tags(self) -> None:
        """Nothing in a file makes an object of the program."""
        assert first("keys:\n  a: {tags: !!python/tuple [x]}\n")[:2] == ("yaml.tag", "keys.a.tags")

    def test_anchors_that_explode(self) -> None:
        """A kilobyte does not become a gigabyte."""
        bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
            f"{chr(98 + n)}: &{chr(98 + n)} [{','.join([f'*{chr(97 + n)}'] * 9)}]\n"
            for n in range(9)
        )

        assert first(bomb)[0] == "yaml.anchor"

    def test_anchors_that_help(self) -> None:
        """What keys have in common may be written once, and `<<` takes it over."""
        text = "keys:\n  a: &base {team_id: web, max_budget: 5}\n  b: {<<: *base, max_budget: 7}\n"

        a, b = read_fleet([FleetText(name="f", text=text)]).keys

        assert (a.values["max_budget"], b.values["max_budget"]) == (5 * 10**9, 7 * 10**9)
        assert b.values["team_id"] == "web"

    @pytest.mark.parametrize(
        "text",
        ["a: [1", "a: b: c", "a:\n\tb: 1", "a: \x07", "---\nkeys: {}\n---\nkeys: {}\n", "- a"],
    )
    def test_texts_that_are_no_fleet(self, text: str) -> None:
        """Each is refused with its line, and no traceback."""
        rule, _, message = first(text)

        assert rule in ("yaml.syntax", "yaml.document", "fleet.file")
        assert message.startswith("1.yaml:")

    def test_half_a_json_file(self) -> None:
        """JSON is read as JSON."""
        with pytest.raises(MalformedRequestError, match="is not JSON"):
            read_fleet([FleetText(name="fleet.json", text='{"keys": {"a": {"team_id": "web"')])


class TestObjects:
    def test_all_faults_of_all_files_at_once(self) -> None:
        """File, line, path and rule of each."""
        found = faults(
            """
            version: 2
            """,
            """
            keys:
              a:
                max_budgt: 5
              b:
                max_budget: many
                key: sk-secret
            teem: {}
            """,
            "users:\n  kim: {user_role: emperor}\n",
        )

        assert [(rule, path, message.partition(": ")[0]) for rule, path, message in found] == [
            ("request.type", "version", "1.yaml:2"),
            ("request.unknown_field", "keys.a.max_budgt", "2.yaml:4"),
            ("request.value", "keys.b.max_budget", "2.yaml:6"),
            ("fleet.value", "keys.b.key", "2.yaml:7"),
            ("fleet.section", "teem", "2.yaml:8"),
            ("request.type", "users.kim.role", "3.yaml:2"),
        ]
        assert "did you mean max_budget?" in found[1][2]

    def test_described_twice(self) -> None:
        """Both places are told, also where a template counts up to the name."""
        template = "keys:\n  w-{n}: {count: 3}\n"

        assert first(template, "keys:\n\n  w-2: {}\n") == (
            "fleet.twice",
            "keys.w-2",
            "2.yaml:3: is described twice (w-2), first in 1.yaml:2",
        )

    @pytest.mark.parametrize(
        "entry",
        [
            "w-{n}: {}",
            "w: {count: 2}",
            "w-{n}: {count: 2, was: old}",
            "'': {}",
            "-w: {}",
            "sk-x: {}",
        ],
    )
    def test_names_that_cannot_be(self, entry: str) -> None:
        """A counter needs a count, a count a counter, and an alias is an alias."""
        assert faults(f"keys:\n  {entry}\n")

    def test_order_does_not_matter(self) -> None:
        """The same objects in other files and in another order are the same fleet."""
        one = "keys:\n  b: {}\n  a: {}\nteams: {y: {}}\n"
        two = "teams: {x: {}}\n"

        def names(*texts: str) -> list[str]:
            fleet = read_fleet([FleetText(name=str(n), text=text) for n, text in enumerate(texts)])
            return [item.name for item in fleet.owners] + [item.name for item in fleet.keys]

        assert names(one, two) == names(two, one) == ["x", "y", "a", "b"]


class TestSize:
    def test_a_key_takes_little(self) -> None:
        """A fleet may have a hundred thousand: a key of two fields takes less than a kilobyte at any time."""
        count = 3000
        lines = [
            f"  k-{number}: {{team_id: team-of-all, max_budget: 5}}" for number in range(count)
        ]
        source = FleetText(name="fleet.yaml", text="\n".join(["keys:", *lines, ""]))
        read_fleet([source])  # what is made once

        tracemalloc.start()
        try:
            fleet = read_fleet([source])
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

        assert len(fleet.keys) == count
        assert most / count < 1000

    def test_an_alias_of_a_whole_section_is_read_for_each(self) -> None:
        """What is let go after it was read in one section is still there for the other."""
        fleet = read_fleet(
            [FleetText(name="fleet.yaml", text="teams: &all {a: {}}\nusers: *all\n")]
        )

        assert [(owner.section, owner.name) for owner in fleet.owners] == [
            ("users", "a"),
            ("teams", "a"),
        ]
