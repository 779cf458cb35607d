"""The recipe of docs/gitops.md, from a bare repository to a real OpenBao: pull request, merge, night."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from bao import Bao, openbao
from harness import Cli, Result
from manual import fenced

pytestmark = [pytest.mark.parametrize("kind", ["sqlite"])]
EXAMPLE = "https://bao.example.com:8200"


@dataclass(frozen=True, slots=True)
class Repository:
    """A bare repository, a checkout of a person's, and the program that its jobs run."""

    cli: Cli
    folder: Path

    def git(self, *arguments: str, at: str = "person") -> str:
        """Run git in a checkout."""
        done = subprocess.run(
            ["git", "-c", "user.name=p", "-c", "user.email=p@example.com", *arguments],
            cwd=self.folder / at,
            env={"PATH": os.environ["PATH"], "HOME": str(self.folder)},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    def write(self, files: dict[str, str], *, branch: str = "main") -> None:
        """Commit files on a branch of the bare repository."""
        self.git("fetch", "-q")
        self.git("checkout", "-q", "-B", branch)
        for name, text in files.items():
            path = self.folder / "person" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.git("add", "-A")
        self.git("commit", "-q", "-m", "Describe keys")
        self.git("push", "-q", "origin", branch)

    def job(self, steps: list[dict[str, Any]], *, branch: str = "main", **variables: str) -> Result:
        """Run the steps with names in a fresh checkout, as a runner does; the first that fails is the last."""
        shutil.rmtree(self.folder / "job", ignore_errors=True)
        self.git("clone", "-q", "--branch", branch, "../bare.git", "../job")
        done = Result(0, "", "")
        for step in steps:
            if "name" not in step or (done.exit_code and step.get("if") != "always()"):
                continue
            ran = subprocess.run(
                ["bash", "-e", "-o", "pipefail", "-c", step["run"]],
                cwd=self.folder / "job",
                env={**self.cli.environment, "KEYCTL_CONFIG": "keyctl.toml", **variables},
                capture_output=True,
                text=True,
                check=False,
            )
            done = Result(done.exit_code or ran.returncode, ran.stdout, done.stderr + ran.stderr)
        return done

    def written(self, name: str) -> str:
        """Return a file that a job left in its checkout."""
        return (self.folder / "job" / name).read_text()


@pytest.fixture(name="bao", scope="module")
def _bao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bao]:
    with openbao(tmp_path_factory.mktemp("bao")) as server:
        yield server


@pytest.fixture(name="repository")
def _repository(cli: Cli, tmp_path: Path) -> Repository:
    """An empty repository and its first checkout."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    cli.environment["PATH"] = path
    repository = Repository(cli, tmp_path / "git")
    (tmp_path / "git" / "person").mkdir(parents=True)
    repository.git("init", "-q", "--bare", "-b", "main", "../bare.git")
    repository.git("clone", "-q", "../bare.git", ".")
    return repository


def described() -> dict[str, str]:
    """Return the fleet of the page."""
    return {
        "fleet/teams.yaml": fenced("gitops-teams"),
        "fleet/web/keys.yaml": fenced("gitops-keys"),
    }


def test_pull_request_merge_and_night(repository: Repository, bao: Bao) -> None:
    """The plan is shown to a viewer, the merge fills OpenBao, the night finds drift and tells hooks; all ends as described."""
    cli = repository.cli
    jobs = {
        name: job["steps"] for name, job in yaml.safe_load(fenced("gitops-jobs"))["jobs"].items()
    }
    config = fenced("gitops-bao").replace(EXAMPLE, bao.url)
    hook = 'type = "command"\nargv = ["sh", "-c", "cat >> ../told"]\nevents = ["fleet_drifted"]\n'
    text = f"bcrypt_cost = 4\n{config}\n[hooks.drift]\n{hook}"
    repository.write({"keyctl.toml": text})
    token = {"VAULT_TOKEN": bao.token}
    cli("user", "create", "viewer", "--role", "proxy_admin_viewer", check=True)
    viewer = {**token, "KEYCTL_API_KEY": cli.key("--user", "viewer")}

    repository.write(described(), branch="keys")
    plan = repository.job(jobs["plan"], branch="keys", **viewer)
    refused = repository.job(jobs["apply"], branch="keys", **viewer)
    repository.git("checkout", "-q", "main")
    repository.git("merge", "-q", "keys")
    repository.git("push", "-q", "origin", "main")
    first = repository.job(jobs["apply"], **token)
    quiet = repository.job(jobs["drift"], **token)

    assert (plan.exit_code, refused.exit_code) == (0, 4), (plan, refused)
    job = repository.job(jobs["plan"], branch="keys", **viewer)
    assert (job.exit_code, repository.written("plan.md").splitlines()[0]) == (
        0,
        "### keyctl plan: nothing to do",
    )
    assert (first.exit_code, quiet.exit_code) == (0, 0), (first, quiet)
    held = {name: bao.fields(f"gateway/{name}") for name in ("checkout", "search-1", "search-2")}
    assert all(cli.verdict(found["key"])["key_alias"] == name for name, found in held.items())

    cli("update", "checkout", "--max-budget", "3", check=True)
    cli("delete", "search-2", "--yes", check=True)
    drift = repository.job(jobs["drift"], **token)
    assert drift.exit_code == 10
    assert "    max_budget  3 -> 20" in drift.stdout
    repository.job([{"name": "deliver", "run": "keyctl events deliver"}], **token)
    told = json.loads((repository.folder / "told").read_text().splitlines()[0])
    assert told["type"] == "fleet_drifted"

    again = repository.job(jobs["apply"], **token)
    assert (again.exit_code, repository.job(jobs["drift"], **token).exit_code) == (0, 0), again
    assert cli("info", "checkout", "-o", "json").json["max_budget"] == 20
    assert cli.verdict(bao.fields("gateway/search-2")["key"])["valid"]


@pytest.mark.skipif(shutil.which("age") is None, reason="age is not installed")
def test_sealed_with_age(repository: Repository) -> None:
    """Without a secret manager the merge commits ciphertext, which the reader's identity opens."""
    identity = repository.folder / "identity"
    subprocess.run(["age-keygen", "-o", str(identity)], check=True, capture_output=True)
    recipient = re.findall(r"age1[0-9a-z]+", identity.read_text())[0]
    config = re.sub(r"age1[0-9a-z]{20,}", recipient, fenced("gitops-age"))
    repository.write({"keyctl.toml": f"bcrypt_cost = 4\n{config}\n", **described()})
    steps = yaml.safe_load(fenced("gitops-sealed"))

    merged = repository.job(steps)
    again = repository.job(steps)

    assert (merged.exit_code, again.exit_code) == (0, 0), (merged, again)
    repository.git("pull", "-q", "origin", "main")
    sealed = sorted((repository.folder / "person" / "sealed").iterdir())
    assert [path.name for path in sealed] == ["checkout.age", "search-1.age", "search-2.age"]
    for path in sealed:
        opened = subprocess.run(
            ["age", "--decrypt", "--identity", str(identity), str(path)],
            check=True,
            capture_output=True,
            text=True,
        )
        assert repository.cli.verdict(opened.stdout.strip())["key_alias"] == path.stem
