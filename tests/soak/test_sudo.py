"""The manual's sudoers line and wrapper, tried by an account that has nothing but a key.

In a mount namespace of their own: the accounts, /etc/keyctl, /opt/keyctl and /usr/local/bin of this
machine stay as they are.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest
from harness import Cli
from manual import PAGES
from servers import wanted

import keyctl

KEEPER, CALLER, DEVELOPERS = 61_001, 61_002, 61_003
ACCOUNTS = {
    "passwd": [
        f"keyctl:x:{KEEPER}:{KEEPER}::/var/lib/keyctl:/usr/sbin/nologin",
        f"dev:x:{CALLER}:{DEVELOPERS}::/nonexistent:/bin/sh",
    ],
    "group": [f"keyctl:x:{KEEPER}:", f"developers:x:{DEVELOPERS}:dev"],
    "shadow": ["keyctl:*:20000:0:99999:7:::", "dev:*:20000:0:99999:7:::"],
}
AS_DEV = ("setpriv", f"--reuid={CALLER}", f"--regid={DEVELOPERS}", "--clear-groups")


def may_mount() -> bool:
    """Tell whether this account may have a mount namespace of its own; a container's root may not."""
    if shutil.which("unshare") is None:
        return False
    tried = subprocess.run(
        ["unshare", "--mount", "true"], capture_output=True, check=False, timeout=60
    )
    return tried.returncode == 0


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        os.geteuid() != 0 or not may_mount(),
        reason="makes accounts and mounts, so it takes root with a mount namespace of its own",
    ),
]


def printed(first: str) -> str:
    """Return the block of the manual that begins so, without its indentation."""
    lines = PAGES["docs/authority.md"].splitlines()
    begin = next(number for number, line in enumerate(lines) if line.strip().startswith(first))
    block: list[str] = []
    for line in lines[begin:]:
        if line.strip() == "```":
            return "\n".join(block) + "\n"
        block.append(line.strip())
    raise AssertionError(first)


@dataclass(frozen=True)
class Machine:
    """A machine as the manual sets it up, below *home*."""

    home: Path

    def dev(self, command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command as the caller's account, in a namespace where the machine is set up."""
        script = [f"mount --bind {self.home}/{name} /{name}" for name in ("etc", "opt")]
        script.append(f"mount --bind {self.home}/bin /usr/local/bin")
        for number, (closed, inside) in enumerate(self._closed()):
            stash = self.home / f"stash{number}"
            stash.mkdir(exist_ok=True)
            # A Python below /root is closed to other accounts: here it is the only thing there.
            script += [
                f"mount --bind {closed} {stash}",
                f"mount -t tmpfs -o mode=755 tmpfs {closed}",
                f"mkdir {closed}/{inside}",
                f"mount --rbind {stash}/{inside} {closed}/{inside}",
            ]
        script.append('cd / && exec "$@"')
        whole = ("sh", "-ec", "\n".join(script), "sh", *AS_DEV, "sh", "-c", command)
        return subprocess.run(
            ["unshare", "--mount", *whole],
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    @staticmethod
    def _closed() -> Iterator[tuple[Path, str]]:
        """Yield each folder above this Python that others may not enter, and what of it they need."""
        found: dict[Path, str] = {}
        for used in (sys.executable, sys.base_prefix, keyctl.__file__):
            path = Path(used).resolve()
            for folder in path.parents:
                if not folder.stat().st_mode & 0o001:
                    found[folder] = path.relative_to(folder).parts[0]
        yield from sorted(found.items())


@pytest.fixture(name="machine")
def _machine(tmp_path: Path) -> Iterator[tuple[Machine, str]]:
    """A machine, and the key of bob, who works there as dev."""
    wanted("sudo")
    home = Path(f"/var/tmp/keyctl-{uuid4().hex[:8]}")  # noqa: S108  # both accounts must get there
    home.mkdir(mode=0o755)
    try:
        shutil.copytree("/etc", home / "etc", symlinks=True, ignore_dangling_symlinks=True)
        for name, lines in ACCOUNTS.items():
            with (home / "etc" / name).open("a") as file:
                file.writelines(f"{line}\n" for line in lines)
        (home / "data").mkdir(mode=0o700)
        database = f"sqlite:///{home}/data/keyctl.db"
        admin = Cli(tmp_path / "home", database)
        admin("user", "create", "bob", check=True)
        key = admin.key("--user", "bob")
        for item in (home / "data", *(home / "data").rglob("*")):
            os.chown(item, KEEPER, KEEPER)
        folder = home / "etc/keyctl"
        folder.mkdir(exist_ok=True)
        (folder / "database-url").write_text(database)
        (folder / "config.toml").write_text(
            'restricted = true\nbcrypt_cost = 4\ndatabase_url_file = "/etc/keyctl/database-url"\n'
        )
        for item in folder.iterdir():
            item.chmod(0o640)
            os.chown(item, 0, KEEPER)
        sudoers = home / "etc/sudoers.d/keyctl"
        sudoers.write_text(printed("Defaults!"))
        sudoers.chmod(0o440)
        shutil.copytree("/usr/local/bin", home / "bin", symlinks=True)
        (home / "bin/keyctl").unlink(missing_ok=True)
        (home / "bin/keyctl").write_text(printed("#!/bin/sh"))
        program = home / "opt/keyctl/bin/keyctl"
        program.parent.mkdir(parents=True)
        program.write_text(
            f"#!{sys.executable}\nimport sys\nfrom keyctl.entry import main\nsys.exit(main())\n"
        )
        for item in (home / "bin/keyctl", program):
            item.chmod(0o755)
        yield Machine(home), key
    finally:
        shutil.rmtree(home)


def test_a_caller_has_a_key_and_nothing_else(machine: tuple[Machine, str]) -> None:
    """The one program, streams and their own key; no file, no database, no other program."""
    there, key = machine
    made = there.dev("keyctl generate --alias mine", KEYCTL_API_KEY=key)
    assert (made.returncode, made.stdout[:3]) == (0, "sk-"), made.stderr
    body = there.dev("echo '{}' | keyctl generate --request -", KEYCTL_API_KEY=key)
    assert (body.returncode, body.stdout[:3]) == (0, "sk-"), body.stderr

    for command in (
        "keyctl list --config /tmp/mine.toml",
        f"keyctl list --database-url sqlite:///{there.home}/data/keyctl.db",
        "keyctl generate --request /etc/shadow",
        f"keyctl generate --out-file {there.home}/data/x",
        "keyctl user create eve --role proxy_admin",
    ):
        assert there.dev(command, KEYCTL_API_KEY=key).returncode == 4, command
    assert there.dev("keyctl list").returncode == 4

    for command in (
        f"cat {there.home}/data/keyctl.db",
        "cat /etc/keyctl/database-url",
        "sudo -n -u keyctl -- /bin/cat /etc/keyctl/database-url",
        "sudo -n -- /opt/keyctl/bin/keyctl list",
        "sudo -n -E -u keyctl -- /opt/keyctl/bin/keyctl list",
        "sudo -n -u keyctl PYTHONPATH=/tmp -- /opt/keyctl/bin/keyctl list",
        "echo x > /usr/local/bin/keyctl",
        "/opt/keyctl/bin/keyctl list",
    ):
        refused = there.dev(command, KEYCTL_API_KEY=key)
        assert (refused.returncode != 0, refused.stdout) == (True, ""), command


def test_what_the_caller_s_environment_says_does_not_arrive(
    machine: tuple[Machine, str],
) -> None:
    """Neither what would steer Python nor what would choose a database: the key, and how to show things."""
    there, key = machine
    evil = there.home / "evil"
    evil.mkdir(mode=0o755)
    (evil / "sitecustomize.py").write_text("raise SystemExit('steered')\n")
    listed = there.dev(
        f"cd {evil} && keyctl list",
        KEYCTL_API_KEY=key,
        KEYCTL_OUTPUT="json",
        PYTHONPATH=str(evil),
        KEYCTL_DATABASE_URL="sqlite:////tmp/mine.db",
        KEYCTL_CONFIG="/dev/null",
        HOME=str(evil),
    )
    assert listed.returncode == 0, listed.stderr
    assert [key["user_id"] for key in json.loads(listed.stdout)["keys"]] == ["bob"]
