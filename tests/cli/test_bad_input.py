"""What people and scripts get wrong: one line that helps, the right status, and nothing written."""

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import Cli
from inside import Inside
from pydantic import TypeAdapter, ValidationError
from sqlalchemy import make_url

from keyctl.fields import Email

pytestmark = pytest.mark.in_process

STRONG = "sk-Supplied_by_a_person-0123456789"


def assert_nothing_written(cli: Cli) -> None:
    """No key came of it, not even a pending one."""
    assert cli("list", "-o", "json", check=True).json["keys"] == []
    assert cli("list", "--state", "pending", "-o", "json", check=True).json["keys"] == []


BODIES: list[tuple[str, str, str]] = [
    # What stdin holds, the field that is named, and what is said of it.
    ("", "", "is not JSON"),
    ("{", "", "is not JSON"),
    ("[]", "", "is not a JSON object"),
    ('{"a": 1, "a": 1}', "", "names 'a' twice"),
    ('{"max_budget": NaN}', "", "NaN"),
    ('{"metadata": {"a": "x\\u0000"}}', "metadata.a", "NUL"),
    ('{"key_alias": "\\ud800"}', "key_alias", "surrogate"),
    ('{"tags": ["\\udfff"]}', "tags.0", "surrogate"),
    ('{"max_budget": "50"}', "max_budget", ""),
    ('{"max_budget": true}', "max_budget", ""),
    ('{"max_budget": -1}', "max_budget", ""),
    ('{"max_budget": 1e400}', "max_budget", ""),
    ('{"max_budget": 0.0000000001}', "max_budget", "9 decimals"),
    ('{"tpm_limit": 1.5}', "tpm_limit", ""),
    ('{"tpm_limit": -1}', "tpm_limit", ""),
    ('{"models": "gpt-4"}', "models", ""),
    ('{"metadata": []}', "metadata", ""),
    ('{"blocked": "yes"}', "blocked", ""),
    ('{"max_bugdet": 1}', "max_bugdet", "max_budget"),
    ('{"alias": "ci"}', "alias", "did you mean key_alias?"),
    ('{"team": "web"}', "team", "did you mean team_id?"),
    ('{"budget": 1}', "budget", "did you mean max_budget?"),
    ('{"duration": "30days"}', "duration", "is not a duration"),
    ('{"duration": ""}', "duration", ""),
    ('{"duration": "1d", "expires": "2050-01-01T00:00:00Z"}', "", "expires"),
    ('{"expires": "2020-01-01T00:00:00Z"}', "expires", "past"),
    ('{"expires": "tomorrow"}', "expires", ""),
    ('{"expires": "2050-01-01T00:00:00"}', "expires", ""),
    ('{"auto_rotate": true}', "", "rotation_interval"),
    ('{"rotation_interval": "30d"}', "", "auto_rotate"),
    ('{"budget_duration": "yearly"}', "budget_duration", ""),
    ('{"key_alias": "key_x"}', "key_alias", ""),
    ('{"key_alias": "-x"}', "key_alias", ""),
    ('{"key_alias": "a\\nb"}', "key_alias", ""),
    ('{"key_alias": "  "}', "key_alias", "blanks"),
    ('{"key_alias": "\\u2800\\u3164"}', "key_alias", "blanks"),
    ('{"team_id": " "}', "team_id", "blanks"),
    ('{"user_id": " "}', "user_id", "blanks"),
    ('{"tags": ["a", " "]}', "tags.1", "blanks"),
    ('{"model_rpm_limit": {" ": 1}}', "model_rpm_limit", "blanks"),
    ('{"key_type": "king"}', "key_type", ""),
    ('{"metadata": {"a": "' + "x" * 1024 * 1024 + '"}}', "metadata", ""),
]


@pytest.mark.parametrize(("body", "field", "said"), BODIES, ids=[item[0][:40] for item in BODIES])
@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
def test_a_malformed_request(cli: Cli, body: str, field: str, said: str) -> None:
    """Exit 2, stdout empty, one error object with a hint that names the field; nothing written."""
    cli("db", "upgrade", check=True)

    result = cli("generate", "--request", "-", "-o", "json", input=body)

    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert (result.error["exit_code"], bool(result.error["hint"])) == (2, True)
    assert said in result.stderr
    if field:
        assert field in {item["field"] for item in result.error["violations"]}
    assert len(result.stderr) < 4000
    assert_nothing_written(cli)


OPTIONS: list[tuple[list[str], int]] = [
    *((["--duration", text], 2) for text in ("30days", "5ms", "0d", "-1", "", "1.5h", "٣d")),
    *((["--max-budget", text], 2) for text in ("nan", "inf", "-1", "1e400", "", "ten")),
    (["--tpm-limit", "many"], 2),
    (["--tpm-limit", "-5"], 2),
    (["--alias", "a\nb"], 2),
    (["--metadata", "no-equals"], 2),
    (["--no-such-option"], 2),
    (["--request", "no-such-file"], 2),
    (["--out-format", "xml", "--out-file", "k"], 2),
    (["--env-var", "1X", "-o", "env"], 2),
    (["--override", "team.models"], 2),
    (["--request-id", ""], 2),
    (["--count", "0"], 2),
    (["--count", "2", "--alias", "same"], 2),
    (["--deliver", "nowhere"], 2),
    (["--team", "nowhere"], 3),
    (["--user", "nowhere"], 3),
    (["--org", "nowhere"], 3),
    ([STRONG], 2),
    (["--alias", STRONG], 2),
    ([f"--alias={STRONG}"], 2),
]


@pytest.mark.parametrize(
    ("options", "status"), OPTIONS, ids=[" ".join(item[0]) for item in OPTIONS]
)
@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
def test_a_wrong_option(cli: Cli, options: list[str], status: int) -> None:
    """One line and a hint on stderr for people, the same as JSON for programs; nothing written."""
    cli("db", "upgrade", check=True)

    for_people = cli("generate", *options)
    for_programs = cli("generate", *options, *([] if "-o" in options else ["-o", "json"]))

    assert (for_people.exit_code, for_people.stdout) == (status, "")
    lines = for_people.stderr.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["error", "hint"], lines
    assert (for_programs.exit_code, for_programs.stdout) == (status, "")
    assert STRONG not in for_people.stderr + for_programs.stderr
    assert_nothing_written(cli)


class TestSuppliedKeys:
    @pytest.mark.parametrize(
        ("text", "status"),
        [
            ("pk-0123456789abcdefghijKLMN", 2),
            ("sk-short", 2),
            ("sk-" + "x" * 510, 2),
            ("sk-0123456789äöü-abcdefghij", 2),
            ("sk-0123456789 abcdefghij-x", 2),
            ("", 2),
            ("sk-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 4),
            ("sk-000000000000_" + "0" * 49, 2),
        ],
    )
    def test_a_string_that_cannot_be_a_key(self, cli: Cli, text: str, status: int) -> None:
        """Weak, short, long, foreign or mistyped: refused, and never repeated."""
        result = cli("generate", "--key-stdin", "-o", "json", input=text)

        assert (result.exit_code, result.stdout) == (status, "")
        assert len(text) < 9 or text[3:] not in result.stderr
        if status == 4:
            assert [item["rule"] for item in result.error["violations"]] == ["key.strength"]
            assert_nothing_written(cli)

    def test_a_string_is_a_key_once(self, cli: Cli) -> None:
        """A second key with the same string is a conflict, even after the first is deleted."""
        first = cli("generate", "--key-stdin", "-o", "json", input=STRONG, check=True).json
        for _ in range(2):
            again = cli("generate", "--key-stdin", "-o", "json", input=STRONG)
            assert (again.exit_code, again.stdout, again.error["code"]) == (5, "", "key_taken")
            cli("delete", first["key_id"])


def test_a_taken_alias_is_a_conflict(cli: Cli) -> None:
    """An alias means one live key; deleting that frees it."""
    cli.key("--alias", "ci")
    again = cli("generate", "--alias", "ci", "-o", "json")
    assert (again.exit_code, again.stdout, again.error["code"]) == (5, "", "alias_taken")
    assert "'ci'" in again.error["message"]
    cli("delete", "ci", check=True)
    assert cli("generate", "--alias", "ci").exit_code == 0


@pytest.mark.parametrize(
    "address",
    [
        *("victim@example.com,mallory@example.org", "a@b.c;d@e.f", "group:a@b.c,d@e.f;@g"),
        *("Boss<mallory@example.org>", "<@x", "a(b)@c", '"a b"@c', "a\\b@c", "a@[127.0.0.1]"),
        *("a@b@c", "@b", "a@", "a b@c", "a@b\n", "a\u00a0@b", "a\u200b@b", "a" * 320 + "@b"),
        *("=?utf-8?q?mallory=40example.org=2C?=victim@example.com", "x@=?utf-8?q?b=2Ca=40c?="),
    ],
)
def test_an_address_that_is_not_one_address(address: str) -> None:
    """A list, a group, a name with an address, and what mail programs decode to one, are refused."""
    with pytest.raises(ValidationError):
        TypeAdapter(Email).validate_python(address)


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
def test_a_user_has_one_address(cli: Cli) -> None:
    """Two are exit 2, and nobody is made; a plus, an apostrophe and letters of all kinds are fine."""
    two = cli("user", "create", "ada", "--email", "ada@example.com,mallory@example.org")
    assert (two.exit_code, two.stdout) == (2, "")
    cli("user", "create", "ada", "--email", "ada.o'hara+ci_1@bücher.example", check=True)


@pytest.mark.parametrize(
    "command",
    [
        ["audit", "list", "--after", "9" * 23],
        ["audit", "list", "--since", "0001-01-01T00:00:00+14:00"],
        ["audit", "list", "--until", "9999-12-31T23:59:59-14:00"],
        ["audit", "list", "--actor", "a\udcff"],
        ["events", "list", "--after", f"{'9' * 20}:hooks.siem"],
        ["events", "list", "--hook", "a\udcff"],
        ["info", "a\udcff"],
        ["info", "-"],
    ],
    ids=lambda command: " ".join(command[:3]),
)
def test_a_value_that_no_database_can_be_asked_for(cli: Cli, command: list[str]) -> None:
    """Numbers, times and texts beyond what is stored are refused before anybody is asked."""
    cli("db", "upgrade", check=True)

    result = cli(*command, "-o", "json", input="sk-a\0b")

    assert (result.exit_code, result.stdout, result.error["code"]) == (2, "", "usage")


@pytest.mark.parametrize("name", ["KEYCTL_API_KEY", "KEYCTL_DATABASE_URL", "KEYCTL_CONFIG"])
@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
def test_a_variable_that_is_set_but_empty(cli: Cli, name: str) -> None:
    """A CI secret that is missing never becomes the local admin, nor the embedded default."""
    result = cli("generate", environment={name: ""})
    assert (result.exit_code, result.stdout) == (2, "")
    assert name in result.stderr


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
class TestNamesOfBlanks:
    @pytest.mark.parametrize(
        "command",
        [
            ["team", "create", "  "],
            ["user", "create", " "],
            ["org", "create", " "],
            ["budget", "create", " ", "--max-budget", "1"],
            ["org", "create", "acme", "--name", " "],
            ["update", "ci", "--alias", " "],
            ["update", "ci", "--tag", " "],
            ["generate", "--request-id", " "],
            ["generate", "--changed-by", " "],
            ["generate", "--override", "team.models", "--reason", " "],
            ["update", "ci", "--override", "team.models", "--reason", " "],
            ["audit", "accept", "--reason", " "],
            ["events", "discard", "evt_1", "--reason", " "],
        ],
        ids=" ".join,
    )
    def test_a_command_refuses_one(self, cli: Cli, command: list[str]) -> None:
        """Exit 2 that says what is wrong, and nothing is on record."""
        cli("generate", "--alias", "ci", check=True)
        head = cli("audit", "head", check=True).stdout

        result = cli(*command)

        assert (result.exit_code, result.stdout) == (2, "")
        assert "blanks" in result.stderr
        assert cli("audit", "head", check=True).stdout == head

    def test_a_list_refuses_one(self, cli: Cli, tmp_path: Path) -> None:
        """The line is named; a cell of blanks is an empty one, as in any table."""
        rows = tmp_path / "teams.jsonl"
        rows.write_text('{"team_id": "ok"}\n{"team_id": " "}\n')

        result = cli("team", "create", "--from", str(rows))

        assert result.exit_code == 2
        assert "teams.jsonl:2: team_id: must not consist of blanks only" in result.stderr
        assert cli("team", "list", "-o", "json", check=True).json["teams"] == []

    def test_a_fleet_file_refuses_one(self, cli: Cli, tmp_path: Path) -> None:
        """Of owners, tiers and keys, each with its line."""
        fleet = tmp_path / "fleet.yaml"
        fleet.write_text(
            'version: 1\nteams:\n  " ": {}\nusers:\n  " ": {}\nkeys:\n  " ": {deliver: x}\n'
            '  ci: {deliver: x, tags: [" "]}\nbudgets:\n  " ": {max_budget: 1}\n'
        )

        result = cli("plan", str(fleet), "-o", "json")

        assert result.exit_code == 2
        assert [item["message"] for item in result.error["violations"]] == [
            f"{fleet}:{line}: must not consist of blanks only" for line in (3, 5, 7, 8, 10)
        ]


class TestTheDatabase:
    def told(self, cli: Cli, url: str | None, *arguments: str) -> Any:
        """Run generate, or *arguments*, against a database and return the error."""
        environment = {} if url is None else {"KEYCTL_DATABASE_URL": url}
        result = cli(*(arguments or ("generate",)), "-o", "json", environment=environment)
        assert (result.exit_code, result.stdout) == (6, "")
        assert result.error["hint"]
        return result.error

    def test_a_file_that_is_none(self, bare_cli: Cli) -> None:
        """A corrupt file is left as it is."""
        path = bare_cli.home / "corrupt.db"
        path.write_bytes(b"this is no database at all, " * 400)
        before = path.read_bytes()
        assert "not a SQLite database" in self.told(bare_cli, f"sqlite:///{path}")["message"]
        assert path.read_bytes() == before

    @pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
    def test_a_file_that_is_read_only(self, cli: Cli, database_url: str, read_only: Path) -> None:
        """A file that may not be written is told, with what to check."""
        error = self.told(cli, f"sqlite:///{read_only}/keyctl.db")
        assert "read-only" in error["message"]
        assert (read_only / "keyctl.db").read_bytes()[:6] == b"SQLite"
        assert database_url.startswith("sqlite:")

    @pytest.fixture(name="read_only")
    def _read_only(self, cli: Cli, database_url: str) -> Iterator[Path]:
        """A folder with a database that nobody can write to, not even root."""
        folder = cli.home / "read_only"
        folder.mkdir(mode=0o700)
        root = os.geteuid() == 0
        if root:
            mounted = subprocess.run(
                ["mount", "-t", "tmpfs", "tmpfs", str(folder)],
                capture_output=True,
                check=False,
                timeout=10,
            )
            if mounted.returncode != 0:
                pytest.skip("root may write to every file, and may not mount here")
        shutil.copy(str(make_url(database_url).database), folder / "keyctl.db")
        if root:
            subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True, timeout=60)
        else:
            (folder / "keyctl.db").chmod(0o400)
            folder.chmod(0o500)
        yield folder
        if root:
            subprocess.run(["umount", str(folder)], check=True, timeout=60)
        else:
            folder.chmod(0o700)

    def test_a_folder_in_its_place(self, bare_cli: Cli) -> None:
        """A path that is a folder cannot be opened."""
        self.told(bare_cli, f"sqlite:///{bare_cli.home}")

    def test_a_server_that_is_not_there(self, bare_cli: Cli) -> None:
        """A closed port is told without the password, and within seconds."""
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = listener.getsockname()[1]
        host = f"127.0.0.1:{port}/keys"
        for url in (f"postgresql://app:hunter2@{host}", f"postgresql://{host}?password=hunter2"):
            assert "hunter2" not in json.dumps(self.told(bare_cli, url))

    @pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
    def test_a_value_that_the_driver_cannot_read(self, cli: Cli) -> None:
        """A server that answers is not said to be out of reach: the row is named, the others are served."""
        cli.key("--alias", "good")
        cli.key("--alias", "bad")
        cli.execute("UPDATE keys SET created_at = 'infinity' WHERE key_alias = 'bad'")

        result = cli("list", "-o", "json")

        assert (result.exit_code, result.error["code"]) == (11, "unreadable_row")
        assert [key["key_alias"] for key in result.json["keys"]] == ["good"]

    @pytest.mark.parametrize(("revision", "said"), [("0_0001", "schema"), ("9_0001", "newer")])
    def test_another_schema(self, cli: Cli, revision: str, said: str) -> None:
        """An older or newer schema is never written to, and the way out is named."""
        cli.execute(f"UPDATE alembic_version SET version_num = '{revision}'")
        assert said in json.dumps(self.told(cli, None))

    def test_nothing_there_yet_is_no_reason_to_create_it(self, bare_cli: Cli) -> None:
        """A command that only reads creates no database."""
        self.told(bare_cli, None, "list")
        assert list(bare_cli.home.rglob("*.db")) == []

    @pytest.mark.parametrize("url", ["mysql://localhost/x", "sqlite://", "sqlite:///:memory:", "x"])
    def test_a_url_of_another_kind(self, bare_cli: Cli, url: str) -> None:
        """What keyctl cannot use is a usage error."""
        result = bare_cli("generate", environment={"KEYCTL_DATABASE_URL": url})
        assert (result.exit_code, result.stdout) == (2, "")

    @pytest.mark.parametrize(
        ("query", "said"),
        [
            ("?sslmod=require", "has a parameter that PostgreSQL does not know"),
            ("?sslmode=require&sslmode=disable", "gives a parameter twice"),
            ("?host=a,b&port=1,2,3", "has hosts and ports that do not fit together"),
        ],
    )
    @pytest.mark.parametrize(
        ("name", "command"),
        [
            ("--database-url", "list"),
            ("KEYCTL_DATABASE_URL", "list"),
            ("KEYCTL_DATABASE_URL_FILE", "list"),
            ("database_url_file", "list"),
            ("--target-url", "db copy"),
            ("KEYCTL_TARGET_URL", "db copy"),
            ("--source-url", "import litellm"),
            ("KEYCTL_SOURCE_URL_FILE", "import litellm"),
        ],
    )
    @pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
    def test_a_url_that_the_driver_refuses_is_told_by_where_it_comes_from(
        self,
        cli: Cli,
        inside: Inside,
        tmp_path: Path,
        name: str,
        command: str,
        query: str,
        said: str,
    ) -> None:
        """A command may be told of two databases; the value itself is not repeated."""
        url, file = f"postgresql:///keys{query}", tmp_path / "url"
        file.write_text(url)
        arguments = command.split()
        if command == "list":
            inside.environment.pop("KEYCTL_DATABASE_URL")
        if name.startswith("--"):
            arguments += [name, url]
        elif name == "database_url_file":
            cli.configure(f'bcrypt_cost = 4\n{name} = "{file}"\n')
        else:
            inside.environment[name] = str(file) if name.endswith("_FILE") else url

        result = inside(*arguments)

        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr.startswith(f"error: {name}: the database URL {said}\n")


class TestWhereTheKeyGoes:
    @pytest.mark.parametrize("target", ["/dev/full"])
    def test_a_stdout_without_room(self, cli: Cli, target: str) -> None:
        """The key is archived at once, and its alias is free again."""
        with Path(target).open("wb") as full:
            process = cli.start("generate", "--alias", "ci", stdout=full)
            _, err = process.communicate(timeout=60)
        assert (process.returncode, b"No space left" in err) == (8, True)
        assert_nothing_written(cli)
        assert cli("generate", "--alias", "ci").exit_code == 0

    def test_a_pipe_whose_reader_is_gone(self, cli: Cli) -> None:
        """A key that nobody could read is revoked."""
        reader, writer = os.pipe()
        os.close(reader)
        process = cli.start("generate", "--alias", "ci", stdout=writer)
        os.close(writer)
        process.communicate(timeout=60)
        assert process.returncode == 8
        assert_nothing_written(cli)

    @pytest.mark.parametrize(
        ("path", "status"),
        [("missing/key", 8), ("/dev/full", 5), ("folder", 5), ("link", 5), ("/proc/key", 8)],
    )
    @pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
    def test_a_file_that_cannot_be_written(self, cli: Cli, path: str, status: int) -> None:
        """No folder, a device, a folder, a link: refused before anything is written."""
        (cli.home / "folder").mkdir()
        (cli.home / "link").symlink_to("elsewhere")

        result = cli("generate", "--out-file", path, "-o", "json")

        assert (result.exit_code, result.stdout) == (status, "")
        assert cli("list", "-o", "json").exit_code in (0, 6)
        assert not (cli.home / "elsewhere").exists()


def test_a_document_in_the_place_of_its_file_is_not_repeated(inside: Inside) -> None:
    """It is told how a document is given, and nothing of this one."""
    result = inside("generate", "--request", '{"metadata": {"note": "private"}}')

    assert (result.exit_code, result.stdout) == (2, "")
    assert "error: the request is read from a file" in result.stderr
    assert "private" not in result.stderr


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
@pytest.mark.parametrize("group", [[], ["audit"], ["events"], ["team"]])
class TestNoCommand:
    def test_its_help_is_shown_as_it_is(self, cli: Cli, group: list[str]) -> None:
        """Who types a group without a command reads its help, on stderr; exit 2, as nothing was done."""
        asked = cli(*group, "--help", check=True)

        result = cli(*group)

        assert (result.exit_code, result.stdout, result.stderr) == (2, "", asked.stdout)

    def test_for_a_script_it_is_an_error_like_any_other(self, cli: Cli, group: list[str]) -> None:
        """With KEYCTL_OUTPUT=json stderr is one JSON object."""
        result = cli(*group, environment={"KEYCTL_OUTPUT": "json"})

        assert (result.exit_code, result.stdout, result.error["code"]) == (2, "", "usage")


def test_a_single_broken_rule_is_told_in_one_line_with_its_bound(cli: Cli) -> None:
    """What would be allowed stands beside the rule; what an admin may override comes last."""
    cli("team", "create", "web", "--max-budget", "100", check=True)

    result = cli("generate", "--team", "web", "--max-budget", "1000")

    error, hint = result.stderr.splitlines()
    assert error == (
        "error: denied by team.max_budget: max_budget: is above what is allowed (allowed: 100)"
    )
    assert hint.endswith("overrides it, on record, with --override team.max_budget --reason TEXT")
