"""Key strings in files: how they get there, what they replace, and what is never touched."""

import os
import stat
from pathlib import Path

import pytest
from harness import Cli

pytestmark = pytest.mark.parametrize("kind", ["sqlite"], indirect=True)


class TestOutFile:
    def test_holds_the_bare_key_for_its_owner_only(self, cli: Cli, tmp_path: Path) -> None:
        """Mode 0600 under any umask, the key and a newline, nothing beside it, stdout empty."""
        folder = tmp_path / "out"
        folder.mkdir()
        out = folder / "key"

        made = cli("generate", "--out-file", str(out), preexec_fn=lambda: os.umask(0), check=True)

        assert made.stdout == ""
        assert stat.S_IMODE(out.stat().st_mode) == 0o600
        assert out.read_text().count("\n") == 1
        assert cli.verdict(out.read_text().strip())["valid"]
        assert os.listdir(folder) == ["key"]

    def test_as_json_the_answer_has_no_key(self, cli: Cli) -> None:
        """The key goes to one place; a relative path is from the current folder."""
        answer = cli("generate", "--out-file", "key", "-o", "json", check=True).json
        assert "key" not in answer
        assert (cli.home / "key").read_text()[3:15] == answer["key_name"][3:15]

    @pytest.mark.parametrize(("form", "begins"), [("env", "TOKEN=sk-"), ("json", "{")])
    def test_in_other_forms(self, cli: Cli, form: str, begins: str) -> None:
        """An env line under a name of one's own, or the whole answer."""
        cli(
            *("generate", "--out-file", "key", "--out-format", form, "--env-var", "TOKEN"),
            check=True,
        )
        assert (cli.home / "key").read_text().startswith(begins)

    @pytest.mark.parametrize(
        "content", ["", "something of mine\n", "sk-not-one-of-keyctl's-keys\n"]
    )
    def test_what_is_not_ours_is_not_replaced(self, cli: Cli, content: str) -> None:
        """A file that may still be needed is exit 5; --force replaces it."""
        out = cli.home / "key"
        out.write_text(content)

        refused = cli("generate", "--out-file", "key", "-o", "json")

        assert (refused.exit_code, refused.stdout, refused.error["code"]) == (5, "", "file_exists")
        assert out.read_text() == content
        cli("generate", "--out-file", "key", "--force", check=True)
        assert cli.verdict(out.read_text().strip())["valid"]

    def test_a_key_that_works_is_not_replaced_by_another(self, cli: Cli) -> None:
        """The file of a living key stays until that key is dead."""
        cli("generate", "--alias", "a", "--out-file", "key", check=True)
        before = (cli.home / "key").read_text()

        refused = cli("generate", "--alias", "b", "--out-file", "key")

        assert (refused.exit_code, (cli.home / "key").read_text()) == (5, before)
        cli("delete", "a", check=True)
        assert cli("generate", "--alias", "b", "--out-file", "key").exit_code == 0

    def test_a_rotation_replaces_the_same_key_s_file(self, cli: Cli) -> None:
        """The older secret of the same key makes way without --force."""
        cli("generate", "--alias", "a", "--out-file", "key", check=True)
        before = (cli.home / "key").read_text()
        cli("rotate", "a", "--out-file", "key", check=True)
        after = (cli.home / "key").read_text()
        assert after != before
        assert cli.verdict(after.strip())["secret_state"] == "active"

    @pytest.mark.parametrize("force", [[], ["--force"]])
    @pytest.mark.parametrize("make", ["symlink", "fifo", "folder"])
    def test_anything_but_a_regular_file_is_refused(
        self, cli: Cli, make: str, force: list[str]
    ) -> None:
        """A link is not followed, a FIFO not waited for, a folder not entered: exit 5."""
        out, target = cli.home / "key", cli.home / "target"
        target.write_text("mine")
        if make == "symlink":
            out.symlink_to(target)
        elif make == "fifo":
            os.mkfifo(out)
        else:
            out.mkdir()

        result = cli("generate", "--out-file", "key", *force)

        assert (result.exit_code, result.stdout) == (5, "")
        assert target.read_text() == "mine"

    def test_a_file_and_a_sink_are_one_too_many(self, cli: Cli) -> None:
        """A key goes to one place."""
        cli.configure('bcrypt_cost = 4\n[sinks.f]\ntype = "file"\npath = "/tmp/x"\n')
        result = cli("generate", "--out-file", "key", "--deliver", "f")
        assert (result.exit_code, (cli.home / "key").exists()) == (2, False)


class TestSinks:
    @pytest.mark.parametrize(
        ("alias", "name"),
        [
            ("web", "web"),
            ("a@b.c", "a@b.c"),
            ("../up", "%2E%2E%2Fup"),
            (".hidden", "%2Ehidden"),
            ("a b", "a%20b"),
            ("ä", "%C3%A4"),
        ],
    )
    def test_names_stay_in_their_folder(self, cli: Cli, alias: str, name: str) -> None:
        """Everything but harmless characters is percent-encoded when a template is filled in."""
        folder = cli.home / "keys"
        folder.mkdir()
        cli.configure(f'bcrypt_cost = 4\n[sinks.f]\ntype = "file"\npath = "{folder}/{{alias}}"\n')
        cli("generate", "--alias", alias, "--deliver", "f", check=True)
        assert os.listdir(folder) == [name]

    def test_a_template_needs_what_it_names(self, cli: Cli) -> None:
        """A key without a team has no path that names it: refused before anything is written."""
        cli.configure('bcrypt_cost = 4\n[sinks.f]\ntype = "file"\npath = "/tmp/{team}"\n')
        result = cli("generate", "--deliver", "f", "-o", "json")
        assert (result.exit_code, result.stdout) == (2, "")
        assert "team" in result.error["message"]
        assert cli.secrets() == {}

    def test_a_name_does_not_become_an_option(self, cli: Cli) -> None:
        """A team may begin with a hyphen; an argument that is to be its name may not: exit 2."""
        cli.configure(
            "bcrypt_cost = 4\n"
            '[sinks.bare]\ntype = "command"\nargv = ["cat", "{team}"]\n'
            '[sinks.named]\ntype = "command"\nargv = ["sh", "-c", "cat > $0", "team={team}"]\n'
        )
        cli("team", "create", "--", "-u", check=True)

        refused = cli("generate", "--team=-u", "--deliver", "bare", "-o", "json")

        assert (refused.exit_code, refused.stdout) == (2, "")
        assert "an option" in refused.error["message"]
        assert cli.secrets() == {}
        cli("generate", "--team=-u", "--deliver", "named", check=True)

    @pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
    def test_a_configuration_that_others_may_write_to(self, cli: Cli, mode: int) -> None:
        """Who can write sinks can run programs: such a file is refused."""
        cli.configure('bcrypt_cost = 4\n[sinks.f]\ntype = "file"\npath = "/tmp/{key_id}"\n')
        cli.config.chmod(mode)
        result = cli("generate", "-o", "json")
        assert (result.exit_code, result.stdout) == (2, "")
        assert "others may write" in result.error["message"]

    def test_a_configuration_of_somebody_else(self, cli: Cli) -> None:
        """A file that names sinks belongs to whoever runs keyctl, or to root."""
        if os.geteuid() != 0:
            pytest.skip("only root can give a file away")
        cli.configure('bcrypt_cost = 4\n[sinks.f]\ntype = "file"\npath = "/tmp/{key_id}"\n')
        os.chown(cli.config, 12345, 12345)
        assert cli("generate").exit_code == 2


class TestReading:
    def test_a_key_may_come_from_a_file_with_one_newline(self, cli: Cli) -> None:
        """One trailing newline is stripped, and no more."""
        text = "sk-Supplied_by_a_person-0123456789"
        (cli.home / "one").write_text(text + "\n")
        (cli.home / "two").write_text(text + "\n\n")
        assert cli("generate", "--key-file", "two").exit_code == 2
        assert cli("generate", "--key-file", "one", check=True).stdout == text + "\n"

    def test_a_request_may_come_from_a_file(self, cli: Cli) -> None:
        """--request FILE reads a body; options add to it and win."""
        (cli.home / "body.json").write_text('{"key_alias": "a", "max_budget": 5}')
        answer = cli(
            *("generate", "--request", "body.json", "--max-budget", "6", "-o", "json"), check=True
        ).json
        assert (answer["key_alias"], answer["max_budget"]) == ("a", 6)
