"""-o github: the runner's files, read as the runner reads them."""

import os
from pathlib import Path

import pytest
from harness import Cli
from inside import Inside

pytestmark = pytest.mark.parametrize("kind", ["sqlite"], indirect=True)


class Job:
    """The files of a job, and what the runner makes of them."""

    def __init__(self, folder: Path) -> None:
        self.output, self.env = folder / "output", folder / "env"
        self.output.write_text("before=1\n")
        self.env.write_text("MULTI<<END\na\nb\nEND\nLAST=without a newline")

    @property
    def environment(self) -> dict[str, str]:
        """What the runner sets."""
        return {"GITHUB_OUTPUT": str(self.output), "GITHUB_ENV": str(self.env)}

    @staticmethod
    def read(path: Path) -> dict[str, str]:
        """Return the names and values in *path*, as actions/runner parses it.

        A line is ``NAME=VALUE``, or ``NAME<<DELIMITER`` and lines up to the delimiter.
        """
        found: dict[str, str] = {}
        lines = iter(path.read_text().splitlines())
        for line in lines:
            equals, heredoc = line.find("="), line.find("<<")
            if equals >= 0 and (heredoc < 0 or equals < heredoc):
                name, _, value = line.partition("=")
                found[name] = value
            elif heredoc >= 0:
                name, _, delimiter = line.partition("<<")
                body = []
                for text in lines:
                    if text == delimiter:
                        break
                    body.append(text)
                found[name] = "\n".join(body)
            elif line:
                raise ValueError(line)
        return found


@pytest.fixture(name="job")
def _job(tmp_path: Path) -> Job:
    """A job whose earlier steps have written both files."""
    return Job(tmp_path)


class TestGenerate:
    def test_masks_the_key_before_it_is_anywhere(self, cli: Cli, inside: Inside, job: Job) -> None:
        """stdout is the mask alone; the files have the key beside what was there."""
        made = inside("generate", "-o", "github", environment=job.environment, check=True)

        outputs, variables = job.read(job.output), job.read(job.env)
        key = outputs["key"]
        assert made.stdout == f"::add-mask::{key}\n"
        assert key not in made.stderr
        assert (outputs["before"], outputs["key_id"][:4]) == ("1", "key_")
        assert variables == {"MULTI": "a\nb", "LAST": "without a newline", "OPENAI_API_KEY": key}
        assert cli.verdict(key)["valid"]

    def test_takes_another_name_and_one_file_alone(self, inside: Inside, job: Job) -> None:
        """--env-var names the variable; a file that the runner did not name is not made."""
        only = {"GITHUB_ENV": str(job.env)}

        inside("generate", "-o", "github", "--env-var", "GATEWAY", environment=only, check=True)

        assert job.read(job.env)["GATEWAY"].startswith("sk-")
        assert job.read(job.output) == {"before": "1"}

    def test_a_key_with_a_percent_sign_is_masked_whole(self, inside: Inside, job: Job) -> None:
        """The runner unescapes the data of a command: what it masks is the key."""
        key = "sk-100%25-or-so-of-abcdefghijkl"
        path = job.output.with_name("supplied")
        path.write_text(key)

        made = inside(
            *("generate", "-o", "github", "--key-file", str(path)),
            environment=job.environment,
            check=True,
        )

        assert made.stdout.removeprefix("::add-mask::").strip().replace("%25", "%") == key
        assert job.read(job.output)["key"] == key

    @pytest.mark.parametrize("broken", ["missing", "folder"])
    def test_what_cannot_be_written_is_found_out_before(
        self, inside: Inside, job: Job, tmp_path: Path, broken: str
    ) -> None:
        """Exit 8, no key, nothing on stdout."""
        path = tmp_path if broken == "folder" else tmp_path / "no" / "such"
        extra = {**job.environment, "GITHUB_OUTPUT": str(path)}

        result = inside("generate", "-o", "github", environment=extra)

        assert (result.exit_code, result.stdout) == (8, "")
        assert inside("list", "--state", "pending", "-o", "json").json["keys"] == []

    def test_outside_a_job_it_is_refused(self, inside: Inside, job: Job) -> None:
        """Exit 2 with what to use instead; so is a second place for the key."""
        assert inside("generate", "-o", "github").exit_code == 2
        two = ("generate", "-o", "github", "--out-file", str(job.output))
        assert inside(*two, environment=job.environment).exit_code == 2

    def test_what_would_be_swallowed_is_found_out_before(self, inside: Inside, job: Job) -> None:
        """Behind a value without its end the runner would read the key as part of that value: exit 8."""
        job.env.write_text("LOG<<END\nOPENAI_API_KEY=sk-old\nEND \n")

        result = inside("generate", "-o", "github", "-q", environment=job.environment)

        assert (result.exit_code, result.stdout) == (8, "")
        assert "write a line 'END'" in result.stderr
        assert job.read(job.output) == {"before": "1"}

    @pytest.mark.parametrize("name", ["GITHUB_TOKEN", "runner_temp", "ACTIONS_CACHE_URL"])
    def test_names_of_the_runner_s_own_are_refused(
        self, inside: Inside, job: Job, name: str
    ) -> None:
        """Exit 2 before anything is made."""
        result = inside(
            *("generate", "-o", "github", "--env-var", name), environment=job.environment
        )

        assert (result.exit_code, result.stdout) == (2, "")


class TestRotate:
    def test_a_key_with_a_sink_of_its_own_is_refused(
        self, cli: Cli, inside: Inside, job: Job
    ) -> None:
        """A key goes to one place, and the message names its own."""
        cli.configure('bcrypt_cost = 4\n[sinks.vault]\ntype = "command"\nargv = ["true"]\n')
        inside("generate", "--alias", "a", "--deliver", "vault", check=True)

        result = inside("rotate", "a", "-o", "github", environment=job.environment)

        assert (result.exit_code, "so is vault" in result.stderr) == (2, True)

    def test_a_full_disk_takes_back_what_was_appended(
        self, inside: Inside, job: Job, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Both files are as they were, exit 8, and the old secret is not touched."""
        inside("generate", "--alias", "a", check=True)
        before = (job.output.read_bytes(), job.env.read_bytes())
        really = os.fsync

        def full(descriptor: int) -> None:
            if os.path.samestat(os.fstat(descriptor), job.env.stat()):
                raise OSError(28, "No space left on device")
            really(descriptor)

        monkeypatch.setattr(os, "fsync", full)
        result = inside("rotate", "a", "-o", "github", environment=job.environment)

        assert result.exit_code == 8
        assert (job.output.read_bytes(), job.env.read_bytes()) == before
        states = [item["state"] for item in inside("info", "a", "-o", "json").json["secrets"]]
        assert states == ["revoked", "active"]
