"""What people install: the wheel, in a clean environment, from a foreign folder."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import text

from keyctl.db.database import Database
from keyctl.db.schema import HEAD

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("keyctl", "llm-keyctl")
PLANTED = "raise SystemExit('imported from the current folder')\n"

# One worker builds and installs for all of them; installing takes longer than a usual test.
pytestmark = [pytest.mark.xdist_group("wheel"), pytest.mark.timeout(600)]


@dataclass(frozen=True, slots=True)
class Built:
    """What was built from the source distribution, which was built from the checkout."""

    sdist: Path
    wheel: Path


def run(
    *command: str | Path, cwd: Path, stdin: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command in an environment that knows nothing of this one."""
    home = cwd / "home"
    home.mkdir(exist_ok=True)
    kept = {
        name: value
        for name, value in os.environ.items()
        if name == "PATH" or name.startswith("PIP_") or name.lower().endswith("_proxy")
    }
    return subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        check=False,
        input=stdin,
        env={**kept, "HOME": str(home), "LANG": "C.UTF-8", **environment},
        cwd=cwd,
        timeout=500,
    )


def build(source: Path, out: Path) -> None:
    """Build the source distribution and the wheel from it, in an environment of their own."""
    if importlib.util.find_spec("build") is not None:
        made = run(sys.executable, "-m", "build", "--outdir", out, source, cwd=out)
        assert made.returncode == 0, made.stdout + made.stderr
        return
    # `build` is no dependency of the tests: ask the build backend itself, as it would be asked.
    venv.create(out / "backend", with_pip=True)
    python = out / "backend" / "bin" / "python"
    ready = run(python, "-m", "pip", "install", "hatchling>=1.27", cwd=out)
    assert ready.returncode == 0, ready.stdout + ready.stderr
    ask = "from hatchling.build import *; import sys; build_sdist(sys.argv[1])"
    made = run(python, "-c", ask, out, cwd=source)
    assert made.returncode == 0, made.stdout + made.stderr
    sdist = next(out.glob("*.tar.gz"))
    made = run(python, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", out, sdist, cwd=out)
    assert made.returncode == 0, made.stdout + made.stderr


@pytest.fixture(scope="module", name="built")
def _built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The distributions, built from a copy of the checkout so that nothing is left in it."""
    source, out = tmp_path_factory.mktemp("source") / "keyctl", tmp_path_factory.mktemp("dist")
    left_out = shutil.ignore_patterns(".git", ".venv*", "__pycache__", ".*_cache", ".hypothesis")
    shutil.copytree(ROOT, source, ignore=left_out)
    build(source, out)
    return Built(sdist=next(out.glob("*.tar.gz")), wheel=next(out.glob("*.whl")))


@pytest.fixture(scope="module", name="scripts")
def _scripts(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of a clean environment with the wheel and its PostgreSQL driver."""
    folder = tmp_path_factory.mktemp("clean")
    venv.create(folder / "venv", with_pip=True)
    scripts = folder / "venv" / "bin"
    wanted = f"llm-keyctl[postgres] @ {built.wheel.as_uri()}"
    installed = run(scripts / "python", "-m", "pip", "install", wanted, cwd=folder)
    assert installed.returncode == 0, installed.stdout + installed.stderr
    return scripts


@pytest.fixture(name="foreign")
def _foreign(tmp_path: Path) -> Path:
    """A folder that has nothing to do with keyctl."""
    folder = tmp_path / "foreign"
    folder.mkdir()
    return folder


@pytest.fixture(name="new_url")
def _new_url(database_url: str, kind: str) -> str:
    """The URL of a database in which keyctl was never installed."""
    if kind == "sqlite":
        Path(database_url.removeprefix("sqlite:///")).unlink()
        return database_url
    database = Database(database_url)
    with database.engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    database.engine.dispose()
    return database_url


class TestTheDistributions:
    def test_the_wheel_carries_the_migrations(self, built: Built) -> None:
        """alembic.ini and every migration travel in the wheel, where keyctl looks for them."""
        expected = {
            f"keyctl/_alembic/{path.relative_to(ROOT).as_posix()}"
            for path in (ROOT / "migrations").rglob("*")
            if path.suffix in (".py", ".mako")
        }

        names = set(zipfile.ZipFile(built.wheel).namelist())

        assert expected
        assert names >= expected | {"keyctl/_alembic/alembic.ini", "keyctl/entry.py"}

    def test_the_wheel_carries_nothing_else(self, built: Built) -> None:
        """No tests, no top-level migrations: only the package and its metadata."""
        names = zipfile.ZipFile(built.wheel).namelist()

        outside = [
            name
            for name in names
            if not name.startswith(("keyctl/", "llm_keyctl-")) or "test" in name
        ]

        assert outside == []

    def test_the_sdist_carries_what_the_wheel_is_built_from(self, built: Built) -> None:
        """The package, the migrations, the tests, and what the metadata names."""
        with tarfile.open(built.sdist) as archive:
            names = {name.partition("/")[2] for name in archive.getnames()}

        assert names >= {
            "LICENSE",
            "README.md",
            "CHANGELOG.md",
            "alembic.ini",
            "keyctl/entry.py",
            "migrations/env.py",
            *(
                f"migrations/versions/{path.name}"
                for path in (ROOT / "migrations" / "versions").glob("*.py")
            ),
            "pyproject.toml",
            "tests/soak/test_wheel.py",
        }


class TestTheInstalledProgram:
    def test_has_the_manual_where_its_help_says(self, scripts: Path, foreign: Path) -> None:
        """Recipes, the reference and the man page: there is no clone to look into."""
        shown = run(scripts / "keyctl", "generate", "--help", cwd=foreign).stdout
        pages = [Path(page) for page in re.findall(r"(/\S+\.md): ", shown)]

        assert pages == [
            scripts.parent / "share" / "doc" / "llm-keyctl" / name
            for name in ("tasks.md", "reference.md")
        ]
        assert all(page.is_file() for page in pages)
        assert "man llm-keyctl\n" in shown

    def test_installs_its_schema_and_makes_a_key(
        self, scripts: Path, foreign: Path, new_url: str
    ) -> None:
        """`db upgrade`, `generate` and `verify` work in a folder that has nothing to do with keyctl."""
        program, where = scripts / "keyctl", {"KEYCTL_DATABASE_URL": new_url}

        upgraded = run(program, "db", "upgrade", "-o", "json", cwd=foreign, **where)
        made = run(program, "generate", "--alias", "ci", cwd=foreign, **where)
        verified = run(program, "verify", "-", cwd=foreign, stdin=made.stdout, **where)

        assert (upgraded.returncode, upgraded.stderr) == (0, "")
        assert f'"after": "{HEAD}"' in upgraded.stdout
        assert (made.returncode, made.stdout[:3]) == (0, "sk-")
        assert (verified.returncode, verified.stdout.splitlines()[0]) == (0, "valid: yes")

    def test_needs_no_setting_up(self, scripts: Path, foreign: Path) -> None:
        """On a fresh machine the first command makes the embedded database and a key."""
        made = run(scripts / "keyctl", "generate", cwd=foreign)

        assert (made.returncode, made.stdout[:3]) == (0, "sk-")
        assert (foreign / "home" / ".local" / "share" / "keyctl" / "keyctl.db").is_file()

    def test_imports_nothing_from_the_current_folder(self, scripts: Path, foreign: Path) -> None:
        """Planted modules of the names that keyctl imports are left alone."""
        for name in ("alembic", "bcrypt", "env", "keyctl", "migrations", "sqlalchemy", "typing"):
            (foreign / f"{name}.py").write_text(PLANTED)

        upgraded = run(scripts / "keyctl", "db", "upgrade", cwd=foreign)
        made = run(scripts / "keyctl", "generate", cwd=foreign)
        verified = run(scripts / "keyctl", "verify", "-", cwd=foreign, stdin=made.stdout)

        assert [item.returncode for item in (upgraded, made, verified)] == [0, 0, 0]

    def test_has_a_second_name(self, scripts: Path, foreign: Path) -> None:
        """Linux's keyutils owns /bin/keyctl, which cron and sudo may find first: llm-keyctl is the same."""
        shown = [run(scripts / name, "--version", cwd=foreign).stdout for name in NAMES]

        assert shown[0].startswith("keyctl ")
        assert shown[0] == shown[1]

    def test_says_its_version(self, scripts: Path, foreign: Path, built: Built) -> None:
        """The version is the one in the wheel's name."""
        shown = run(scripts / "keyctl", "--version", cwd=foreign)

        assert (shown.returncode, shown.stdout) == (0, f"keyctl {built.wheel.name.split('-')[1]}\n")
