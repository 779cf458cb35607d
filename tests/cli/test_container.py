"""The conditions of the container image hold: no root, a read-only system, process 1, no shell."""

import os
import re
import subprocess
from pathlib import Path

from harness import KEYCTL
from servers import FOR_ANOTHER_ACCOUNT, open_folder

DOCKERFILE = Path(__file__).parents[2] / "Dockerfile"
CONDITIONS = """
mount --make-rprivate /
mount -t tmpfs -o size=64m,uid=10001,gid=10001,mode=0700 none "$DATA"
mount --bind / / && mount -o remount,bind,ro /
inside() {
    unshare -p -f --kill-child \
        setpriv --reuid=10001 --regid=10001 --clear-groups --no-new-privs --bounding-set=-all "$@"
}
key=$(inside "$@" generate --alias a)
printf %s "$key" | inside "$@" verify -
inside "$@" rotate a >&2
inside "$@" audit verify
touch /read-only 2>/dev/null || echo "the system is read-only"
"""


class TestTheImage:
    def test_is_of_the_wheel_and_of_an_account_that_is_not_root(self) -> None:
        text = DOCKERFILE.read_text()
        assert re.search(r"^USER 10001:10001$", text, re.MULTILINE)
        assert '\nENTRYPOINT ["keyctl"]\n' in text
        assert "pip wheel" in text


@FOR_ANOTHER_ACCOUNT
class TestItsConditions:
    def test_are_enough_to_make_and_verify_a_key(self) -> None:
        """A read-only root, one folder to write, no rights, no passwd entry, process 1."""
        with open_folder() as data:
            self.run_in(data)

    def run_in(self, data: Path) -> None:
        done = subprocess.run(
            ["unshare", "-m", "sh", "-euc", CONDITIONS, "sh", *KEYCTL],
            env={
                "PATH": os.environ["PATH"],
                "DATA": str(data),
                "HOME": str(data),
                "XDG_DATA_HOME": str(data),
                "XDG_STATE_HOME": str(data),
            },
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert "valid: yes" in done.stdout, done
        assert "events, unbroken" in done.stdout
        assert "the system is read-only" in done.stdout
        assert done.returncode == 0
        assert os.listdir(data) == []  # all of it was in the volume
