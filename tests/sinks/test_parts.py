"""What a killed run left half written goes with the next delivery; what a living run writes stays."""

import errno
import fcntl
import os
from pathlib import Path
from typing import Any

import pytest

from keyctl.keystring import mint
from keyctl.sinks import parts
from keyctl.sinks.base import NotTakenError, Parcel
from keyctl.sinks.file import FileSink


def deliver(path: Path) -> None:
    """Put a key string into a file."""
    sink = FileSink(
        path,
        form="key",
        force=False,
        replaceable=lambda _found, _key_id: True,
        env_var="OPENAI_API_KEY",
        warn=lambda _text: None,
    )
    key = mint()
    sink.deliver(Parcel(key=key, answer={}, secret_id=key.public_id or ""))


def test_only_what_nobody_writes_is_removed(tmp_path: Path) -> None:
    """Parts of the same file that are not locked; neither another's nor what only looks similar."""
    dead = tmp_path / ".ci.AAAAAAAA.part"
    alive = tmp_path / ".ci.BBBBBBBB.part"
    others = [tmp_path / ".cd.CCCCCCCC.part", tmp_path / ".ci.part", tmp_path / ".ci.x.y.part"]
    for path in (dead, alive, *others):
        path.write_text("half")
    with alive.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        deliver(tmp_path / "ci")

    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"ci", alive.name, *(path.name for path in others)}


def test_a_part_is_locked_until_it_is_in_place(tmp_path: Path) -> None:
    """Nobody else removes it while its run lives, named or not; afterwards nothing is left."""
    target = tmp_path / "ci"
    folder = os.open(tmp_path, os.O_RDONLY)
    with parts.begun(target) as part:
        part.name_it(folder)
        parts.remove_left(target)
        assert part.path.exists()
    os.close(folder)
    assert list(tmp_path.iterdir()) == []


def test_a_part_that_is_removed_before_it_is_locked_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is put in place, and the error says why."""

    opened = os.open

    def named(path: Any, flags: int, *mode: int, **options: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "not on this file system")
        return opened(path, flags, *mode, **options)

    def locked(handle: int, _operation: int) -> None:
        os.unlink(os.readlink(f"/proc/self/fd/{handle}"))

    monkeypatch.setattr(os, "open", named)
    monkeypatch.setattr(fcntl, "flock", locked)
    with pytest.raises(NotTakenError, match=r"ci: its part was taken for the rest of a killed run"):
        deliver(tmp_path / "ci")
