"""What keyctl obeys, only its own account and root may have written."""

import os
from pathlib import Path

import pytest

from keyctl.config import file, trust
from keyctl.errors import ConfigurationError

SINK = '[sinks.put]\ntype = "command"\nargv = ["{program}", "{{alias}}"]\n'


@pytest.fixture(name="home")
def _home(tmp_path: Path) -> Path:
    """A folder that holds a configuration with a sink, and the sink's program in another folder."""
    for name in ("etc", "bin"):
        (tmp_path / name).mkdir(mode=0o755)
    program = tmp_path / "bin" / "put"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    configure(tmp_path, SINK.format(program=program))
    return tmp_path


def configure(home: Path, text: str) -> Path:
    """Write the configuration with mode 0600."""
    path = home / "etc" / "config.toml"
    path.write_text(text)
    path.chmod(0o600)
    return path


def refusal(home: Path) -> tuple[str, str]:
    """Return what the refused configuration's error says, and its hint."""
    with pytest.raises(ConfigurationError) as caught:
        file.load(home / "etc" / "config.toml")
    assert int(caught.value.exit_code) == 2
    return caught.value.message, str(caught.value.hint)


class TestTheConfiguration:
    def test_one_that_is_nobody_elses(self, home: Path) -> None:
        """It is read."""
        assert "put" in file.load(home / "etc" / "config.toml").sinks

    @pytest.mark.parametrize("mode", [0o777, 0o775, 0o757])
    @pytest.mark.parametrize("above", ["etc", "."])
    def test_a_folder_above_it(self, home: Path, mode: int, above: str) -> None:
        """Mode 0600 in a folder that others may write to: the folder and the command are named."""
        folder = (home / above).resolve()
        folder.chmod(mode)

        message, hint = refusal(home)

        assert (str(folder) in message, hint) == (True, f"chmod go-w {folder}")

    def test_a_folder_of_somebody_else(self, home: Path) -> None:
        """They may put another file there."""
        if os.geteuid() != 0:
            pytest.skip("only root can give a folder away")
        os.chown(home / "etc", 12345, 12345)

        message, hint = refusal(home)

        assert ("belongs to another user" in message, hint) == (True, f"chown root {home}/etc")

    def test_a_link_to_it(self, home: Path) -> None:
        """Both the link's folder and the target's count."""
        (home / "safe").mkdir(mode=0o755)
        link = home / "safe" / "config.toml"
        link.symlink_to("../etc/config.toml")
        assert "put" in file.load(link).sinks

        (home / "etc").chmod(0o777)
        with pytest.raises(ConfigurationError, match=r"others may write to .*/etc"):
            file.load(link)
        (home / "etc").chmod(0o755)
        (home / "safe").chmod(0o777)
        with pytest.raises(ConfigurationError, match=r"others may write to .*/safe"):
            file.load(link)

    def test_one_that_runs_nothing(self, home: Path) -> None:
        """Without sinks, hooks, mail and functions it is read wherever it is."""
        configure(home, "bcrypt_cost = 4\n")
        (home / "etc").chmod(0o777)

        assert file.load(home / "etc" / "config.toml").bcrypt_cost == 4


class TestPrograms:
    def test_a_program_that_others_may_write_to(self, home: Path) -> None:
        """Mode 0777: refused, by the sink's name."""
        program = home / "bin" / "put"
        program.chmod(0o777)

        message, hint = refusal(home)

        assert ("sink put runs" in message, hint) == (True, f"chmod go-w {program}")

    def test_a_programs_folder(self, home: Path) -> None:
        """Who may write there puts another program in its place."""
        (home / "bin").chmod(0o777)

        assert refusal(home)[1] == f"chmod go-w {home}/bin"

    def test_a_link_to_a_program(self, home: Path) -> None:
        """What it leads to counts."""
        (home / "link").symlink_to(home / "bin" / "put")
        configure(home, SINK.format(program=home / "link"))
        (home / "bin").chmod(0o777)

        assert refusal(home)[1] == f"chmod go-w {home}/bin"

    def test_a_script_of_an_interpreter(self, home: Path) -> None:
        """It is the program as much as the interpreter is."""
        script = home / "bin" / "put"
        script.chmod(0o775)
        configure(home, SINK.format(program="/bin/sh").replace('"{alias}"', f'"{script}"'))

        assert refusal(home)[1] == f"chmod go-w {script}"

    def test_a_hook(self, home: Path) -> None:
        """Hooks run programs, too."""
        program = home / "bin" / "put"
        program.chmod(0o777)
        configure(home, f'[hooks.tell]\ntype = "command"\nargv = ["{program}"]\n')

        assert "hook tell runs" in refusal(home)[0]


class TestSticky:
    def test_what_lies_in_it_is_ours(self, home: Path) -> None:
        """As in /tmp: everybody may write there, and nobody can replace what belongs to us."""
        (home / "bin").chmod(0o1777)

        assert "put" in file.load(home / "etc" / "config.toml").sinks

    def test_what_lies_in_it_is_somebody_elses(self, home: Path) -> None:
        """Then they can."""
        if os.geteuid() != 0:
            pytest.skip("only root can give a file away")
        (home / "bin").chmod(0o1777)
        os.chown(home / "bin" / "put", 12345, 12345)

        assert "belongs to another user" in refusal(home)[0]


def test_links_that_go_round() -> None:
    """They end, and whoever opens them is told."""
    here = Path(os.path.realpath(os.curdir))
    assert trust.weakness_of(here / "no" / "such" / "file") is None
