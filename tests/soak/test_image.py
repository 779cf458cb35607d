"""The Dockerfile builds an image, and what is in it makes and verifies keys as process 1 of a read-only system.

Debian's buildah follows the Dockerfile's instructions.  Its base image lies in a registry that a test
does not ask: files of this machine stand in for it, the Python that runs the tests among them.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from servers import wanted

ROOT = Path(__file__).resolve().parents[2]
BASE = "docker.io/library/python:3.13-slim"
TOOLS = ("sh", "install")
# What every Debian has, and wheels rely on.
PACKAGES = ("libc6", "libgcc-s1", "libstdc++6")
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
LEFT_OUT = ("__pycache__", "test", "site-packages", "idlelib", "tkinter", "*.a")
PIP = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST", "PIP_DEFAULT_TIMEOUT")
RUN = """
mount --make-rprivate /
mount --bind "$IMAGE" "$IMAGE"
mount --rbind /dev "$IMAGE/dev"
mount --rbind /proc "$IMAGE/proc"
mount -t tmpfs -o size=64m,uid=10001,gid=10001,mode=0700 none "$IMAGE/var/lib/keyctl"
mount -o remount,bind,ro "$IMAGE"
inside() {
    unshare -p -f --kill-child --root "$IMAGE" --wd "$FOLDER" --setgid 10001 --setuid 10001 "$@"
}
key=$(inside "$@" generate --alias a)
printf %s "$key" | inside "$@" verify -
inside "$@" rotate a >&2
inside "$@" audit verify
touch "$IMAGE/read-only" 2>/dev/null || echo "the system is read-only"
"""

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        os.geteuid() != 0
        or subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode
        != 0,
        reason="takes root, and a mount namespace of its own",
    ),
]


class Buildah:
    """Debian's buildah, with images of its own."""

    def __init__(self, program: str, home: Path) -> None:
        self._command = [
            program, "--storage-driver", "vfs", "--root", f"{home}/store", "--runroot", f"{home}/run",
        ]  # fmt: skip

    def __call__(self, *arguments: str | Path) -> str:
        """Run it, and return what it prints."""
        done = subprocess.run(
            [*self._command, *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            timeout=800,
        )
        assert done.returncode == 0, (arguments, done.stdout[-2000:], done.stderr[-4000:])
        return done.stdout.strip()


def put(root: Path, source: Path) -> None:
    """Copy a file of this machine to the same place."""
    target = root / str(source).lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)


def libraries_of(file: Path) -> Iterator[Path]:
    """Yield the libraries that a program or a library loads."""
    done = subprocess.run(["ldd", file], capture_output=True, text=True, check=False)
    for word in done.stdout.split():
        if word.startswith("/"):
            yield Path(word)


def fill(root: Path) -> None:
    """Make a root file system with Python, pip, a shell and what they load."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    prefix, ours = Path(sys.base_prefix), root / "usr/local"
    for folder in ("bin", "tmp", "proc", "dev", "sys", "run", "var/lib", "root", "usr/local/bin"):
        (root / folder).mkdir(parents=True)
    shutil.copytree(
        prefix / "lib" / version,
        ours / "lib" / version,
        ignore=shutil.ignore_patterns(*LEFT_OUT),
        symlinks=True,
    )
    site = Path("lib") / version / "site-packages"
    shutil.copytree(prefix / site / "pip", ours / site / "pip")
    for name in ("python", "python3", version):
        shutil.copy(prefix / "bin" / version, ours / "bin" / name)
    for tool in TOOLS:
        shutil.copy(shutil.which(tool) or tool, root / "bin" / tool)
    loading = [*(root / "bin").iterdir(), prefix / "bin" / version, *prefix.glob("lib/*.so*")]
    for file in [*loading, *(ours / "lib" / version / "lib-dynload").iterdir()]:
        for library in libraries_of(file):
            put(root, library)
    for package in PACKAGES:
        listed = subprocess.run(["dpkg", "-L", package], capture_output=True, text=True, check=True)
        for file in map(Path, listed.stdout.split()):
            if ".so" in file.name and file.is_file():
                put(root, file)
    put(root, Path(os.environ.get("PIP_CERT", CERTIFICATES)))


@contextmanager
def image_of(dockerfile: Path) -> Iterator[tuple[dict[str, Any], Path]]:
    """Build the image, and give its configuration and its files."""
    program = wanted("buildah")
    # Not in memory, where the tests' folder is: it takes a gigabyte.
    home = Path(tempfile.mkdtemp(prefix="keyctl-image-", dir="/var/tmp"))
    try:
        buildah = Buildah(program, home)
        (home / "root").mkdir()
        fill(home / "root")
        base = buildah("from", "scratch")
        buildah("copy", base, home / "root", "/")
        variables = {name: os.environ[name] for name in PIP if name in os.environ}
        variables |= {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "PIP_CERT": os.environ.get("PIP_CERT", CERTIFICATES),
        }
        for name, value in variables.items():
            buildah("config", "--env", f"{name}={value}", base)
        buildah("commit", "--rm", base, BASE)
        buildah(
            "build", "--isolation", "chroot", "--network", "host", "--pull-never",
            "--file", dockerfile, "--tag", "keyctl:1", dockerfile.parent,
        )  # fmt: skip
        told = json.loads(buildah("inspect", "--type", "image", "keyctl:1"))
        container = buildah("from", "--pull-never", "keyctl:1")
        yield told["OCIv1"]["config"], Path(buildah("mount", container))
    finally:
        shutil.rmtree(home, ignore_errors=True)


def test_the_image_makes_and_verifies_a_key() -> None:
    """Every instruction is carried out; then: not root, nothing to write but the volume, process 1."""
    with image_of(ROOT / "Dockerfile") as (config, files):
        assert (config["User"], config["Entrypoint"]) == ("10001:10001", ["keyctl"])
        assert config["Volumes"] == {"/var/lib/keyctl": {}}
        # Neither the source nor the wheels are left in it.
        assert not (files / "source").exists()
        assert not list(files.glob("wheels/*"))
        done = subprocess.run(
            ["unshare", "-m", "sh", "-euc", RUN, "sh", *config["Entrypoint"]],
            env={
                **dict(item.split("=", 1) for item in config["Env"]),
                "IMAGE": str(files),
                "FOLDER": config["WorkingDir"],
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    assert done.returncode == 0, done
    assert "valid: yes" in done.stdout
    assert "events, unbroken" in done.stdout
    assert "the system is read-only" in done.stdout
