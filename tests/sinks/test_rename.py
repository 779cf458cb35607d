"""A file that is renamed into its place: what an error of that proves, and what it does not."""

import errno
import os
from pathlib import Path

import pytest

from keyctl.sinks.base import NotTakenError, UnknownError
from keyctl.sinks.file import FileSink


@pytest.fixture(name="sink")
def _sink(tmp_path: Path) -> FileSink:
    """A sink whose file is not there yet."""
    return FileSink(
        tmp_path / "key",
        form="key",
        force=False,
        replaceable=lambda *_: False,
        env_var="KEY",
        warn=print,
    )


def refuse(source: Path, _target: Path) -> None:
    """Fail as a rename does whose source is not there."""
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), source)


def test_one_that_was_not_done_is_not_taken(
    sink: FileSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes never had the file's name, and nothing is left of them."""
    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(NotTakenError):
        sink.put(b"key")
    assert os.listdir(sink.path.parent) == []


def test_one_that_was_done_and_answered_with_an_error_is_unknown(
    sink: FileSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As NFS may, when it has to ask twice: what is in place must go on working."""
    rename = os.rename

    def do(source: Path, target: Path) -> None:
        rename(source, target)
        refuse(source, target)

    monkeypatch.setattr(os, "rename", do)
    with pytest.raises(UnknownError):
        sink.put(b"key")
    assert sink.path.read_bytes() == b"key"
