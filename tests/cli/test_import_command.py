"""keyctl import litellm as a command: again, dry, killed, and from a dump."""

import json
import signal
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from harness import Cli
from litellm_tables import LiteLLM, digest, key
from migrating import OLD, OLDER, RunImport, count, environment, results, stored
from terminal import shown_to_end, spawn

from keyctl.db.litellm_source import opened
from keyctl.db.queries import directory
from keyctl.records import User
from keyctl.services.import_litellm.report import ImportOrder
from keyctl.services.import_litellm.service import ImportService
from keyctl.services.workspace import Workspace


class TestTheCommand:
    def test_again_imports_nothing_twice(
        self, workspace: Workspace, litellm: LiteLLM, run: RunImport
    ) -> None:
        """A second run finds everything here, and adds no row."""
        litellm.add("users", {"user_id": "ada"})
        litellm.add("teams", {"team_id": "web", "members_with_roles": [{"user_id": "ada"}]})
        litellm.add("keys", key(OLD, team_id="web", user_id="ada"))
        run()
        before = count(workspace)

        lines = run()

        assert {line.result for line in lines} == {"present"}
        assert count(workspace) == before

    def test_a_dry_run_writes_nothing(
        self, workspace: Workspace, litellm: LiteLLM, run: RunImport
    ) -> None:
        """It reports what a run reports, key by key, and leaves not even an audit event."""
        litellm.add("users", {"user_id": "ada"})
        litellm.add("teams", {"team_id": "web", "members_with_roles": [{"user_id": "ada"}]})
        litellm.add(
            "keys",
            key(OLD, team_id="web", user_id="ada", key_alias="ci"),
            key(OLDER, max_budget=-1.0),
        )

        planned = run(dry_run=True)

        assert count(workspace) == 0
        with workspace.database.read() as connection:
            assert directory.known(connection, User, ["ada"]) == set()
        assert [replace(line, key_id=None, audit=None) for line in planned] == [
            replace(line, key_id=None, audit=None) for line in run()
        ]

    def test_the_source_is_not_changed(self, litellm: LiteLLM, run: RunImport) -> None:
        """Every row of it is what it was."""
        litellm.add("users", {"user_id": "ada", "password": "x"})
        litellm.add("keys", key(OLD, metadata={"a": 1.5}))
        before = litellm.everything()

        run()

        assert litellm.everything() == before

    def test_the_connection_to_the_source_cannot_write(self, litellm: LiteLLM) -> None:
        """PostgreSQL itself refuses a write in the transaction that reads."""
        with (
            opened(litellm.url) as source,
            pytest.raises(Exception, match="read-only"),
        ):
            source._connection.exec_driver_sql('DELETE FROM "LiteLLM_UserTable"')

    def test_the_report(self, cli: Cli, litellm: LiteLLM) -> None:
        """One JSON document: what became of how many, which columns have no home, which rows say something."""
        litellm.add("keys", key(OLD, total_spend=2.0), key(OLDER, max_budget=-1.0))

        result = cli("import", "litellm", "-o", "json", environment=environment(litellm))

        report = result.json
        assert (result.exit_code, result.error["code"]) == (9, "batch")
        assert report["counts"][-1] == {
            "object": "key",
            "imported": 1,
            "present": 0,
            "skipped": 0,
            "failed": 1,
        }
        assert (report["dry_run"], report["columns"]) == (
            False,
            [{"column": "key.total_spend", "rows": 1}],
        )
        assert [row["source"] for row in report["rows"]] == [digest(OLDER)[:8]]
        assert report["audit"] == cli("audit", "head", "-o", "json", check=True).json
        assert cli.verdict(OLD)["valid"]

    def test_a_line_for_each_row(self, cli: Cli, litellm: LiteLLM) -> None:
        """JSON lines hold one object per row and nothing else, and no hash in full anywhere."""
        litellm.add("keys", key(OLD, key_alias="ci"))

        result = cli("import", "litellm", "-o", "jsonl", environment=environment(litellm))

        (line,) = [json.loads(text) for text in result.stdout.splitlines()]
        assert (result.exit_code, line["result"], line["key_alias"]) == (0, "imported", "ci")
        assert digest(OLD)[8:] not in result.stdout + result.stderr

    def test_for_people(self, cli: Cli, litellm: LiteLLM) -> None:
        """A table on stdout; on stderr what failed, and that a dry run wrote nothing."""
        litellm.add("keys", key(OLD), key(OLDER, max_budget=-1.0))

        result = cli("import", "litellm", "--dry-run", environment=environment(litellm))

        assert result.exit_code == 9
        assert result.stdout.splitlines() == [
            "object        imported  present  skipped  failed",
            "user          0         0        0        0",
            "organization  0         0        0        0",
            "team          0         0        0        0",
            "member        0         0        0        0",
            "key           1         0        0        1",
        ]
        assert result.stderr.splitlines() == [
            f"key {digest(OLDER)[:8]} failed: unmappable_row: max_budget: -1.0 dollars is out of range",
            "a dry run: nothing was written",
            "error: 1 row failed",
            "hint: the report says which and why",
        ]

    @pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
    def test_a_bar_on_a_terminal(self, cli: Cli, litellm: LiteLLM) -> None:
        """A person sees how far it is, what fails as it fails, and the table at the end."""
        litellm.add("keys", key(OLD), key(OLDER, max_budget=-1.0))
        more = {**environment(litellm), "COLUMNS": "200"}

        shown, status = shown_to_end(spawn(cli, "import", "litellm", columns=200, **more))

        assert status == 9
        for text in ("importing keys", "max_budget: -1.0 dollars is out of range", "organization"):
            assert text in shown

    @pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
    def test_a_password_is_refused_and_not_repeated(self, cli: Cli) -> None:
        """A source URL with a password belongs into the environment or a file."""
        url = "postgresql://litellm:correct-horse@127.0.0.1:1/litellm"

        result = cli("import", "litellm", "--source-url", url)

        assert (result.exit_code, result.stdout) == (2, "")
        assert "correct-horse" not in result.stderr

    @pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
    def test_litellms_own_url_from_a_file(self, cli: Cli, litellm: LiteLLM, tmp_path: Path) -> None:
        """`DATABASE_URL` as LiteLLM has it, with what only its database layer understands."""
        path = tmp_path / "url"
        extra = "&" if "?" in litellm.url else "?"
        path.write_text(f"{litellm.url}{extra}schema=public&connection_limit=10\n")
        litellm.add("keys", key(OLD))

        result = cli("import", "litellm", environment={"KEYCTL_SOURCE_URL_FILE": str(path)})

        assert (result.exit_code, cli.verdict(OLD)["valid"]) == (0, True)

    @pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
    @pytest.mark.parametrize(
        ("arguments", "code", "message"),
        [
            ([], 2, "there is nothing to import from"),
            (["--source-url", "sqlite:////nowhere/litellm.db"], 6, "cannot be opened"),
            (["--source-url", "sqlite:////tmp/x", "--source-file", "y"], 2, "give either"),
            (["--drop", "key.project_id"], 2, "need --reason"),
            (["--source-file", "/nowhere/dump.json"], 2, "cannot be read"),
        ],
    )
    def test_what_people_get_wrong(
        self, cli: Cli, arguments: list[str], code: int, message: str
    ) -> None:
        """Each says what is wrong, and no database is made on the way."""
        result = cli("import", "litellm", *arguments)

        assert (result.exit_code, result.stdout) == (code, "")
        assert message in result.stderr

    @pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
    def test_a_database_that_is_not_litellms(self, cli: Cli, database_url: str) -> None:
        """It is exit 6, and says which table is missing."""
        result = cli("import", "litellm", environment={"KEYCTL_SOURCE_URL": database_url})

        assert result.exit_code == 6
        assert "no table LiteLLM_VerificationToken" in result.stderr

    def test_a_killed_import_goes_on(self, cli: Cli, litellm: LiteLLM) -> None:
        """What was committed stays, the batch that was not is imported by the next run."""
        litellm.add("users", {"user_id": "ada"})
        litellm.keys(key(f"sk-{n:022}", user_id="ada", key_alias=f"k{n}") for n in range(600))
        cli.environment.update(environment(litellm))

        killed = cli.stepped("confirmed", "SIGKILL", "import", "litellm", "-o", "jsonl")
        left = len(cli.secrets())
        again = cli("import", "litellm", "-o", "json", check=True)

        assert (killed.exit_code, left) == (-signal.SIGKILL, 500)
        assert again.json["counts"][-1] == {
            "object": "key",
            "imported": 100,
            "present": 500,
            "skipped": 0,
            "failed": 0,
        }
        assert cli.verdict(f"sk-{599:022}")["valid"]

    def test_nothing_is_half_written(self, cli: Cli, litellm: LiteLLM) -> None:
        """A run that is killed before its commit leaves no key and no secret."""
        litellm.add("keys", key(OLD))
        cli.environment.update(environment(litellm))

        cli.killed("stage_uncommitted", "import", "litellm")

        assert cli.secrets() == {}
        assert cli("import", "litellm").exit_code == 0
        assert cli.verdict(OLD)["valid"]


class TestADump:
    @pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
    def test_pages_of_key_list(self, cli: Cli, tmp_path: Path) -> None:
        """What /key/list answered is imported; an owner that is not here fails its key."""
        pages = [
            [{"token": digest(OLD), "key_alias": "ci", "max_budget": 1.5, "expires": None}],
            [
                {"token": digest(OLDER), "user_id": "ada"},
                {"token": OLDER, "key_alias": "clear"},
                {"token": digest("sk-" + "b" * 22), "budget_id": "b", "litellm_budget_table": None},
            ],
        ]
        paths = []
        for number, page in enumerate(pages):
            path = tmp_path / f"{number}.json"
            path.write_text(json.dumps({"keys": page, "total_count": 4}))
            paths += ["--source-file", str(path)]

        result = cli("import", "litellm", *paths, "-o", "json")

        assert result.exit_code == 9
        assert cli.verdict(OLD)["valid"]
        assert [row["reason"].split(":")[0] for row in result.json["rows"]] == [
            "user_not_found",
            "unmappable_row",
            "unmappable_row",
        ]
        assert OLDER not in result.stdout + result.stderr

    @pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
    def test_a_list_of_hashes_is_refused(self, cli: Cli, tmp_path: Path) -> None:
        """Without return_full_object=true the answer does not tell what keys may do."""
        path = tmp_path / "page.json"
        path.write_text(json.dumps({"keys": [digest(OLD)]}))

        result = cli("import", "litellm", "--source-file", str(path))

        assert result.exit_code == 2
        assert "return_full_object=true" in result.stderr


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
def test_sqlite_is_a_source_too(workspace: Workspace, tmp_path: Path) -> None:
    """LiteLLM's tables in a SQLite file hold documents and lists as text; it is read, and not written."""
    path = tmp_path / "lite llm?.db"
    sqlite3.connect(path).close()
    source = LiteLLM(f"sqlite:///{path}".replace("?", "%3F"))
    source.add("users", {"user_id": "ada"})
    source.add("keys", key(OLD, models=["gpt-4"], metadata={"tags": ["a"]}, user_id="ada"))
    source.engine.dispose()
    before = path.read_bytes()

    with opened(source.url) as tables:
        lines = list(ImportService(workspace).run(tables, ImportOrder()))

    assert results(lines) == {("user", "imported"): 1, ("key", "imported"): 1}
    found = stored(workspace, OLD)
    assert (found.models, found.tags, path.read_bytes()) == (["gpt-4"], ["a"], before)
