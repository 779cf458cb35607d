"""A file that a service reads stays readable for it, and for nobody else, through every rotation."""

import grp
import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from harness import KEYCTL, Cli
from servers import ANOTHER_ACCOUNT, FOR_ANOTHER_ACCOUNT, open_folder

pytestmark = [
    pytest.mark.parametrize("kind", ["sqlite"]),
    pytest.mark.skipif(os.geteuid() != 0, reason="other groups and accounts are root's to give"),
]
GROUP = grp.getgrnam("games")


def state(path: Path) -> tuple[str, int, int]:
    """Return mode, owner and group."""
    found = path.stat()
    return oct(stat.S_IMODE(found.st_mode)), found.st_uid, found.st_gid


@pytest.fixture(name="file")
def _file(cli: Cli, tmp_path: Path) -> Path:
    cli.configure(
        "bcrypt_cost = 4\n"
        f'[sinks.app]\ntype = "file"\npath = "{tmp_path}/{{alias}}.key"\n'
        f'[sinks.set]\ntype = "file"\npath = "{tmp_path}/{{alias}}.key"\nmode = "0640"\ngroup = "games"\n'
    )
    cli("generate", "--alias", "a", "--deliver", "app", check=True)
    return tmp_path / "a.key"


class TestWhatIsReplaced:
    @pytest.mark.parametrize("target", ["sink", "file"])
    def test_keeps_mode_group_and_owner(self, cli: Cli, file: Path, target: str) -> None:
        """`chgrp app; chmod 640`, then a rotation: the service still reads it."""
        os.chown(file, 12345, GROUP.gr_gid)
        file.chmod(0o640)
        arguments = ["--deliver", "app"] if target == "sink" else ["--out-file", str(file)]
        before = file.read_text()
        cli("rotate", "a", *arguments, check=True)
        assert state(file) == ("0o640", 12345, GROUP.gr_gid)
        assert file.read_text() != before

    def test_loses_the_bits_of_others_with_a_warning(self, cli: Cli, file: Path) -> None:
        file.chmod(0o664)
        done = cli("rotate", "a", check=True)
        assert state(file)[0] == "0o660"
        assert (
            f"warning: {file} could be read or written by everybody; it no longer can"
            in done.stderr
        )
        assert "warning" not in cli("rotate", "a", check=True).stderr

    def test_keeps_its_access_list(self, cli: Cli, file: Path) -> None:
        if shutil.which("setfacl") is None:
            pytest.skip("setfacl is not installed")
        subprocess.run(["setfacl", "-m", "u:games:r", str(file)], check=True)
        cli("rotate", "a", check=True)
        done = subprocess.run(
            ["getfacl", "-c", str(file)], check=True, capture_output=True, text=True
        )
        assert "user:games:r--" in done.stdout

    @FOR_ANOTHER_ACCOUNT
    def test_that_cannot_keep_its_group_costs_nothing(self, cli: Cli) -> None:
        """Exit 8 before anything is staged, for an account outside of the file's group."""
        with open_folder() as folder:
            self.rotate_as_another(folder)

    def rotate_as_another(self, folder: Path) -> None:
        home = folder / "theirs"
        home.mkdir()
        owned = Cli(home, f"sqlite:///{home}/keyctl.db")

        def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
            return subprocess.run(
                [*ANOTHER_ACCOUNT, *KEYCTL, *arguments],
                env=owned.environment,
                cwd="/",
                capture_output=True,
                text=True,
                check=False,
            )

        for path in (home, owned.config):
            os.chown(path, 12345, 12345)
        key = home / "a.key"
        assert run("generate", "--alias", "a", "--out-file", str(key)).returncode == 0
        os.chown(key, 12345, GROUP.gr_gid)
        key.chmod(0o640)
        before = key.read_text()
        done = run("rotate", "a", "--out-file", str(key))
        assert (done.returncode, "cannot keep its group" in done.stderr) == (8, True), done
        assert key.read_text() == before
        assert len(run("info", "a", "-o", "json").stdout.split('"not_after"')) == 2  # one secret


class TestWhatTheSinkSays:
    def test_goes_before_what_is_there(self, cli: Cli, file: Path) -> None:
        cli("rotate", "a", "--deliver", "set", check=True)
        assert state(file) == ("0o640", 0, GROUP.gr_gid)

    @pytest.mark.parametrize(
        ("lines", "status"),
        [('mode = "0644"', 2), ('mode = "0240"', 2), ('mode = "abc"', 2), ('group = "nobodys"', 8)],
    )
    def test_is_refused_where_it_cannot_be(
        self, cli: Cli, tmp_path: Path, lines: str, status: int
    ) -> None:
        """Others never get bits, and a group must be there; nothing is written."""
        cli.configure(
            f'bcrypt_cost = 4\n[sinks.x]\ntype = "file"\npath = "{tmp_path}/{{alias}}"\n{lines}\n'
        )
        assert cli("generate", "--alias", "b", "--deliver", "x").exit_code == status
        assert not (tmp_path / "b").exists()
